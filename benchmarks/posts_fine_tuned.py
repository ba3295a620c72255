"""SG-MFT and its rivals on real posts, the text encoder trained along with them.

    python benchmarks/posts_fine_tuned.py --data=FOLDER --workdir=runs/posts_fine_tuned
    python benchmarks/posts_fine_tuned.py --workdir=runs/posts_fine_tuned --report

As `benchmarks/posts.py`, whose parts these are, with one difference: the installed
sentence model is not frozen but learns at a rate of its own. A run takes minutes on a
core, so there are no trials: one setting, fixed beforehand, for all methods, and seeds
on all training posts, scored on the test posts.
"""

import functools
import json
import pathlib
import sys

import numpy as np

from modal_aware_jax.backbones.piece_reader import pretrained_reader
from modal_aware_jax.backbones.sentence_vectors import find_model
from modal_aware_jax.classification import bootstrap_interval, macro_f1
from modal_aware_jax.experiment.classifiers import CLASSIFIERS

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
import posts  # noqa: E402

METHODS = ("sgmft", "concat", "text", "gmu", "unis_mmc", "modal_aware")
BATCH = 20
SETTING = posts.Trial(0.3, 1e-3, 1.0, 3, 2, text=5e-5)


def measure(data, workdir, methods, trainer):
    """All runs that are not there yet, seed by seed."""
    train = np.setdiff1d(np.arange(len(data["labels"])), data["test"])
    for seed in range(posts.SEEDS):
        for method in methods:
            posts.kept(
                workdir / method / f"seed{seed}.npz",
                lambda method=method, seed=seed: trainer(method).run(
                    SETTING, train, seed
                ),
            )


def read_rows(workdir, data, methods):
    """What is there of each method, and who was right on the test posts."""
    classes, rows = data["labels"].argmax(axis=1)[data["test"]], {}
    for method in methods:
        said, seconds, commits = [], [], set()
        for path in sorted((workdir / method).glob("seed*.npz")):
            with np.load(path) as run:
                said.append(run["probabilities"][data["test"]].argmax(axis=1))
                seconds.append(float(run["seconds"]))
                commits.add(str(json.loads(str(run["made"]))["commit"]))
        if len(said) < 2:
            continue
        rows[method] = {
            "title": CLASSIFIERS[method].title,
            "test": [float((one == classes).mean()) for one in said],
            "test_macro_f1": [
                float(macro_f1(classes, one, classes.max() + 1)) for one in said
            ],
            "right": np.mean([one == classes for one in said], axis=0),
            "seconds": float(np.median(seconds)),
            "commits": sorted(commits),
        }
    return rows


def write(rows, data):
    """posts_fine_tuned.md and .json."""
    first = "sgmft" if "sgmft" in rows else next(iter(rows))
    lines = [
        "| method | test accuracy | macro-F1 | seeds | "
        f"{rows[first]['title']} ahead (95 %) | s a run |",
        "|---|---|---|---|---|---|",
    ]
    for method, row in sorted(rows.items(), key=lambda item: -np.mean(item[1]["test"])):
        lead = ""
        if method != first:
            found = bootstrap_interval(np.mean, rows[first]["right"] - row["right"])
            lead = f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
            row |= {"lead": found.value, "low": found.low, "high": found.high}
        lines.append(
            f"| {row['title']} | {np.mean(row['test']):.4f} ± "
            f"{np.std(row['test'], ddof=1):.4f} | {np.mean(row['test_macro_f1']):.4f} "
            f"| {len(row['test'])} | {lead} | {row['seconds']:.0f} |"
        )
    commits = sorted({commit for row in rows.values() for commit in row["commits"]})
    number = len(data["test"])
    lines.append(
        f"\n{len(data['labels']) - number:,} training posts, {number} test posts; the "
        f"text encoder is trained along. One setting for all rows, fixed beforehand: "
        f"{SETTING.epochs} epochs in batches of {BATCH}, rate {SETTING.text:g} of the "
        f"text encoder and {SETTING.rate:g} of the rest. Leads: paired bootstrap over "
        "the test posts of the mean over seeds; seconds are processor time of one "
        f"core. Commits {', '.join(commits)}; made by `benchmarks/posts_fine_tuned.py`."
    )
    text, out = "\n".join(lines) + "\n", HERE / "results" / "posts_fine_tuned"
    out.with_suffix(".md").write_text(text)
    plain = {m: {k: v for k, v in r.items() if k != "right"} for m, r in rows.items()}
    record = {"setting": SETTING._asdict() | {"batch": BATCH}, "methods": plain}
    out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    print(text)


def main():
    args = posts.arguments(__doc__, METHODS)
    config = posts.posts_config(args, ",text=fine_tuned")
    config.data.num_tokens = posts.LONGEST
    data = posts.read_features(config, args.workdir / "features.npz")
    methods = args.methods.split(",")
    if args.report:
        write(read_rows(args.workdir, data, methods), data)
        return
    length = data["numbers"].shape[1]
    reader = pretrained_reader(find_model(config.data.sentence_model), length)

    @functools.cache
    def trainer(method):
        options = {"reader": reader, "batch": BATCH}
        static = SETTING.dropout, SETTING.layers
        return posts.Trainer(config, method, *static, data, **options)

    measure(data, args.workdir, methods, trainer)


if __name__ == "__main__":
    main()
