"""How a run reads its data, kept with it: the words and labels by name, in their order.

A network knows words and labels by position alone. Data that changed may have as many
of them as before, in another order: that is told, never trained or encoded.
"""

import json
import os
import pathlib

from modal_aware_jax.build import Experiment

FILE = "reading.json"
SHOWN = 5


def keep_reading(experiment: Experiment, workdir: pathlib.Path) -> None:
    """Writes the file, or compares it with what is there already."""
    check_reading(experiment, workdir)
    partial = workdir / f".{FILE}.{os.getpid()}.partial"
    partial.write_text(json.dumps(_facts(experiment), indent=0), "utf-8")
    partial.replace(workdir / FILE)


def check_reading(experiment: Experiment, workdir: pathlib.Path) -> None:
    """Raises a ValueError where the run's words or labels are not the experiment's.

    Runs of before this file was kept are taken as they are.
    """
    path = workdir / FILE
    if not path.is_file():
        return
    try:
        saved = json.loads(path.read_text("utf-8"))
        saved = {name: list(saved[name]) for name in ("vocabulary", "label_names")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}). Delete it if the data is as it was."
        ) from error
    for name, now in _facts(experiment).items():
        before = saved[name]
        if before == now:
            continue
        gone = [word for word in before if word not in set(now)]
        new = [word for word in now if word not in set(before)]
        what = "words" if name == "vocabulary" else "labels"
        change = (
            "in another order"
            if not gone and not new
            else " and ".join(
                f"{how} {_some(names)}"
                for how, names in (("without", gone), ("with", new))
                if names
            )
        )
        raise ValueError(
            f"The run in {workdir} knows {len(before)} {what}; the data now has "
            f"{len(now)}, {change}. Use the data and options of that run, or another "
            "--workdir. Other data is encoded by an exported model: --model=FOLDER."
        )


def codes_name(experiment: Experiment, record: dict) -> str:
    """What tells a run's files of codes or embeddings apart: step, length, reading.

    Args:
      record: of the run, as `load_run` gives it.
    """
    return f"{record['step']}{experiment.suffix}{other_reading(experiment, record)}"


def other_reading(experiment: Experiment, record: dict) -> str:
    """What tells files of codes apart that are not read as the run was trained.

    Args:
      experiment: whose `mirrored` may have been changed since.
      record: of the run, as `load_run` gives it.

    Returns:
      '-mirrored' or '-plain', as the pictures are read now; '' where they always were.
    """
    before = record.get("config", {}).get("data", {}).get("mirrored", False)
    has_pictures = hasattr(experiment.model, "backbone")
    if not has_pictures or bool(before) == experiment.mirrored:
        return ""
    return "-mirrored" if experiment.mirrored else "-plain"


def _facts(experiment):
    pairs = experiment.collection
    # Words have a column each, or a number each, in this order.
    words = pairs.vocabulary or getattr(experiment.text, "known", ())
    return {
        "vocabulary": list(words),
        "label_names": list(pairs.label_names),
    }


def _some(words):
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(map(repr, words[:SHOWN])) + more
