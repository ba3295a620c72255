"""The tables of `benchmarks/posts.py`, from the runs in its workdir."""

import json
import pathlib

import numpy as np

from modal_aware_jax.classification import (
    bootstrap_interval,
    macro_f1,
    mcnemar_exact,
)
from modal_aware_jax.experiment.classifiers import CLASSIFIERS

HERE = pathlib.Path(__file__).parent


def write(workdir, data, methods, trials, folds):
    """Writes posts.md, posts.json and posts.npz of what is there and was in them.

    Args:
      workdir: of the runs.
      data: of `read_features`.
      methods: rows, the first two the baseline and ours.
      trials: the settings.
      folds: positions of each fold.
    """
    classes = data["labels"].argmax(axis=1)
    out = HERE / "results" / "posts"
    found = read_former(out)
    for method in methods:
        row = read_method(workdir / method, classes, data["test"], folds)
        if row is not None:
            found[method] = row | {"setting": trials[row["trial"]]._asdict()}
    order = sorted(found, key=lambda m: -found[m]["five_fold"])
    rows = [one_row(found, method, order[0]) for method in order]
    text = table(rows, data, found, len(trials))
    out.with_suffix(".md").write_text(text)
    plain = {m: {k: v for k, v in r.items() if k != "right"} for m, r in found.items()}
    record = {"rows": rows, "methods": plain}
    out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    right = {method: np.packbits(row["right"]) for method, row in found.items()}
    np.savez_compressed(out.with_suffix(".npz"), **right)
    print(text)


def read_former(out):
    """Rows of a former report, whose runs may lie elsewhere."""
    if not out.with_suffix(".json").exists():
        return {}
    record = json.loads(out.with_suffix(".json").read_text())["methods"]
    with np.load(out.with_suffix(".npz")) as kept:
        right = {method: np.unpackbits(kept[method]).astype(bool) for method in record}
    return {method: row | {"right": right[method]} for method, row in record.items()}


def read_method(folder, classes, test, folds):
    """The scores of a method whose five folds are there, else None."""
    paths = {path.stem: path for path in folder.glob("*.npz")}
    chosen = {stem.split("-")[0] for stem in paths if "-fold" in stem}
    if len(chosen) != 1:
        return None
    (trial,) = chosen
    stems = [trial, *(f"{trial}-fold{i}" for i in range(1, len(folds)))]
    if not all(stem in paths for stem in stems):
        return None
    held, made, seconds = np.full((len(classes),), -1), set(), []
    for stem, fold in zip(stems, folds, strict=True):
        with np.load(paths[stem]) as kept:
            held[fold] = kept["probabilities"][fold].argmax(axis=1)
            made.add(json.loads(str(kept["made"]))["commit"])
            seconds.append(float(kept["seconds"]))
    every = np.concatenate(folds)
    right = (held == classes)[np.sort(every)]
    tests, scores = [], []
    for stem in sorted(s for s in paths if s.startswith(f"{trial}-seed")):
        with np.load(paths[stem]) as kept:
            said = kept["probabilities"][test].argmax(axis=1)
        tests.append(float((said == classes[test]).mean()))
        scores.append(macro_f1(classes[test], said, classes.max() + 1))
    number = int(trial.removeprefix("trial"))
    return {
        "trial": number,
        "five_fold": float(right.mean()),
        "five_fold_macro_f1": macro_f1(classes[every], held[every], classes.max() + 1),
        "right": right,
        "test": tests,
        "test_macro_f1": scores,
        "seconds": float(np.median(seconds)),
        "commits": sorted(made),
    }


def one_row(found, method, best):
    """A line of the table; leads are SG-MFT's, or the best's where it is not there."""
    row = found[method]
    first = "sgmft" if "sgmft" in found else best
    line = {"method": method, "title": CLASSIFIERS[method].title}
    line |= {k: v for k, v in row.items() if k != "right"}
    if method != first:
        ours, theirs = found[first]["right"], row["right"]
        difference = ours.astype(float) - theirs
        lead = bootstrap_interval(np.mean, difference)
        told = mcnemar_exact(ours, theirs)
        line |= {"lead": lead.value, "low": lead.low, "high": lead.high}
        line |= {"p": told.p_value}
    return line


def table(rows, data, found, num_trials):
    """The rows as Markdown, and what they are."""
    first = "sgmft" if "sgmft" in found else rows[0]["method"]
    name = CLASSIFIERS[first].title
    lines = [
        f"| method | five-fold accuracy | macro-F1 | {name} ahead (95 %) | McNemar's p "
        "| test accuracy | seeds | s a run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lead = ""
        if "lead" in row:
            lead = f"{row['lead']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"
        p = f"{row['p']:.4f}" if "p" in row else ""
        test = row["test"]
        spread = f" ± {np.std(test, ddof=1):.4f}" if len(test) > 1 else ""
        test = f"{np.mean(test):.4f}{spread}" if test else "–"
        lines.append(
            f"| {row['title']} | {row['five_fold']:.4f} | "
            f"{row['five_fold_macro_f1']:.4f} | {lead} | {p} | {test} | "
            f"{len(row['test'])} | {row['seconds']:.0f} |"
        )
    classes = data["labels"].argmax(axis=1)
    train = np.setdiff1d(np.arange(len(classes)), data["test"])
    share = np.bincount(classes[train]).max() / len(train)
    commits = sorted({c for row in found.values() for c in row["commits"]})
    lines.append(
        f"\n{len(train):,} training posts in five folds, each predicted by a network "
        f"that has not seen it; {len(data['test'])} test posts, scored by networks "
        f"trained on all training posts. Always the frequent class: {share:.4f} of the "
        "training posts. Frozen tokens; the setting of each row is the one of the "
        f"lowest cross-entropy on fold 0 among the {num_trials} that every row tried. "
        "Intervals: paired bootstrap over posts; seconds are processor time. "
        f"Commits {', '.join(map(str, commits))}; made by `benchmarks/posts.py`."
    )
    return "\n".join(lines) + "\n"
