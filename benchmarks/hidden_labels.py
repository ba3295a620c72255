"""What codes trained without labels know of labels: MIR-Flickr with its labels hidden.

    python benchmarks/hidden_labels.py --data=FOLDER --workdir=runs/hidden

Trains the quick config of a method on the collection without its labels, on the split
that the supervised run has, then scores its codes by the labels: MAP of the whole
database and of the pairs that were not trained on. Beside it stand the frozen features
themselves, ranked as the neighbours are, and the supervised codes of
`results/flickr_words.json`. Writes `results/hidden_labels.md` and `.json`; the same
command goes on after an interruption.
"""

import argparse
import dataclasses
import json
import pathlib
import time

import numpy as np
from flax import nnx
from flickr_settings import add_arguments, quick_config

from modal_aware_jax import build, modes
from modal_aware_jax.compare import provenance
from modal_aware_jax.modes.encoder import lower_maps
from modal_aware_jax.retrieval.label_scores import average_precision_by_labels
from modal_aware_jax.retrieval.metrics import mean_average_precision
from modal_aware_jax.retrieval.neighbours import joint_vectors
from modal_aware_jax.tasks.frozen_features import frozen_features

HERE = pathlib.Path(__file__).parent
METHOD, BITS, SEED = "concat", 64, 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_arguments(parser)
    parser.add_argument("--weights", default="", help="of MobileNetV2")
    parser.add_argument("--method", default=METHOD)
    parser.add_argument("--workdir", default="runs/hidden", type=pathlib.Path)
    parser.add_argument(
        "--out", default=HERE / "results/hidden_labels", type=pathlib.Path
    )
    args = parser.parse_args()
    config = quick_config(
        args.data,
        before=args.before,
        arg=f"method={args.method},bits={BITS},seed={SEED}",
    )
    if args.weights:
        config.backbone.weights = args.weights
    pairs = build.collection(config.data)
    hidden = dataclasses.replace(
        pairs, labels=np.zeros((len(pairs), 0)), label_names=()
    )
    experiment = build.experiment(config.lock(), hidden)
    start = time.monotonic()
    result = modes.train(experiment, args.workdir)
    seconds = time.monotonic() - start
    rows = [
        {"ranked by": "codes trained without labels", **_of_codes(args.workdir, pairs)},
        {
            "ranked by": "the frozen features themselves",
            **_of_features(experiment, pairs),
        },
        _supervised(args.method),
    ]
    recall = {
        name: {k: part["recall_at"][k] for k in (10, 100, 1000)}
        for name, part in (("whole", result), ("unseen", result["unseen"]))
    }
    made = {"commit": provenance()["commit"], "seconds": round(seconds, 1)}
    kept = {"rows": rows, "recall": recall, "method": args.method, "made": made}
    args.out.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(_markdown(kept))
    print(_markdown(kept))


def _of_codes(workdir, pairs):
    position = {name: i for i, name in enumerate(pairs.ids.tolist())}
    with np.load(workdir / "codes.npz") as kept:
        query, database = kept["query"], kept["database"]
        trained = kept["database_trained"]
        labels = [
            pairs.labels[[position[i] for i in kept[f"{name}_ids"].tolist()]]
            for name in ("query", "database")
        ]
    return {
        name: mean_average_precision(
            query, database[rows], labels[0], labels[1][rows], num_bits=BITS
        )
        for name, rows in (("whole", slice(None)), ("unseen", ~trained))
    }


def _of_features(experiment, pairs):
    parts = experiment.split
    backbone = nnx.split(experiment.model.backbone)
    features = frozen_features(experiment, lower_maps(experiment), backbone)
    vectors = joint_vectors(features, parts.train)
    unseen = np.setdiff1d(parts.database, parts.train)
    return {
        name: float(
            average_precision_by_labels(
                vectors[parts.query],
                vectors[rows],
                pairs.labels[parts.query],
                pairs.labels[rows],
            ).mean()
        )
        for name, rows in (("whole", parts.database), ("unseen", unseen))
    }


def _supervised(method):
    kept = json.loads((HERE / "results" / "flickr_words.json").read_text())
    (row,) = [
        row for row in kept["rows"] if row["method"] == method and row["bits"] == BITS
    ]
    return {
        "ranked by": f"codes trained with labels, {row['seeds']} seeds",
        "whole": row["map"],
        "unseen": row["map_unseen"],
    }


def _markdown(kept):
    lines = [
        "| ranked by | MAP by labels, whole database | unseen pairs |",
        "|---|---|---|",
    ]
    lines += [
        f"| {row['ranked by']} | {row['whole']:.4f} | {row['unseen']:.4f} |"
        for row in kept["rows"]
    ]
    lines += [
        "",
        "| a query's 10 nearest by the frozen features | first 10 | 100 | 1,000 |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {' | '.join(f'{value:.3f}' for value in found.values())} |"
        for name, found in kept["recall"].items()
    ]
    made = kept["made"]
    return "\n".join(lines) + (
        f"\n\nMIR-Flickr's test queries, {BITS} bits, seed {SEED}, {kept['method']}, "
        f"`configs/flickr.py:variant=quick`; labels were hidden in training. Commit "
        f"{made['commit']}, {made['seconds']:.0f} s after the maps. Made by "
        "`benchmarks/hidden_labels.py`.\n"
    )


if __name__ == "__main__":
    main()
