"""A checkpoint against a split: metrics, curves and a page of examples."""

import contextlib
import functools
import json
import pathlib
from collections.abc import Iterator

import numpy as np

from modal_aware_jax.build import Experiment
from modal_aware_jax.modes.encoder import Encoder, lower_maps, variables_of
from modal_aware_jax.modes.pair_scorer import PairScorer
from modal_aware_jax.modes.reading import check_reading
from modal_aware_jax.report import write_report
from modal_aware_jax.retrieval.code_health import code_health
from modal_aware_jax.retrieval.codes_file import read_codes
from modal_aware_jax.retrieval.evaluate import evaluate
from modal_aware_jax.training.checkpoint import load_model
from modal_aware_jax.training.errors import DataError
from modal_aware_jax.training.processes import is_first
from modal_aware_jax.training.workdir import explain_write_errors


def load_run(experiment: Experiment, workdir: pathlib.Path, step="latest"):
    """Fills the experiment's model from a run's checkpoint -> the run's record."""
    check_reading(experiment, workdir)
    return load_model(experiment.model, workdir / "checkpoints", step=step)


def evaluate_run(experiment: Experiment, workdir: pathlib.Path, *, step="latest"):
    """Evaluates a run's checkpoint on its test pairs and writes its report.

    Args:
      experiment: built from the config the run was trained with.
      workdir: the run's directory.
      step: 'latest' (the default and the protocol), 'best' or a step.
    """
    record = load_run(experiment, workdir, step)
    maps = lower_maps(experiment)
    if experiment.task.prepare:
        experiment.task.prepare(experiment, maps)
    encoder = Encoder(experiment, maps)
    variables = variables_of(experiment.model)
    return report_run(experiment, encoder, variables, workdir, record.get("history"))


def report_run(experiment, encoder, variables, workdir, history=None) -> dict:
    """Evaluates the test pairs, and writes `report/` and what is kept of single pairs.

    Returns:
      The result of the task's evaluation; an empty dict in all processes but the
      first, which writes.
    """
    task = experiment.task
    with explain_read_errors(workdir):
        outputs = {
            name: encoder.outputs(variables, positions, label=f"encode the {name}")
            for name, positions in task.test(experiment).items()
        }
        if not is_first():
            return {}
        if experiment.pairs is not None:
            scorer = functools.partial(PairScorer, experiment, variables, encoder.maps)
            outputs |= task.second(experiment, outputs, scorer)
        found = task.evaluate(experiment, outputs)
    directory = workdir / f"report{experiment.suffix}"
    arrays = pathlib.Path(task.arrays_file)
    arrays = workdir / arrays.with_stem(arrays.stem + experiment.suffix)
    with explain_write_errors(directory):
        task.write_report(
            directory,
            {experiment.name: found.result},
            examples=found.examples,
            title=task.title(experiment),
        )
        np.savez_compressed(arrays, **found.arrays)
        if history:
            text = json.dumps({"history": history}, indent=1)
            (directory / "history.json").write_text(text)
    return found.result


@contextlib.contextmanager
def explain_read_errors(workdir: pathlib.Path) -> Iterator[None]:
    """Turns what cannot be read during an evaluation into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The evaluation failed: {type(error).__name__}: {error}. The checkpoints "
            f"in {workdir} are untouched: when the cause is mended, give the same "
            "command again."
        ) from error


def evaluate_codes_file(path: pathlib.Path, workdir: pathlib.Path) -> dict:
    """Evaluates codes made elsewhere and writes `report/` without examples.

    Args:
      path: an `.npz` file as `retrieval.read_codes` describes it.
      workdir: where the report goes.
    """
    codes = read_codes(path)
    results = evaluate(
        codes.query,
        codes.database,
        codes.query_labels,
        codes.database_labels,
        num_bits=codes.num_bits,
    )
    results["health"] = code_health(codes.database, codes.num_bits)
    write_report(
        workdir / "report", {path.stem: results}, title=f"Codes of {path.name}"
    )
    return results
