"""What the features of finished cells hold: their label head's own ranking.

    python benchmarks/label_ceiling.py --data=FOLDER --workdir=runs/table \
        --methods=concat,modal_aware

Of the same networks that a comparison on MIR-Flickr trained, each pair's label
probabilities p rank the pairs that were not trained on by 1 - prod_l (1 - p_l p'_l),
the probability of a shared label if labels were independent. No code is read: the
distance to it is what hashing costs. Writes `results/label_ceiling.md`, or `--out`.
"""

import argparse
import pathlib

import jax
import numpy as np
from flax import nnx
from flickr_settings import add_arguments, quick_config

from modal_aware_jax import build
from modal_aware_jax.compare import provenance
from modal_aware_jax.compare.finished import chosen_cells, open_cell
from modal_aware_jax.data import pipeline
from modal_aware_jax.hashing.head import label_logits
from modal_aware_jax.modes.encoder import lower_maps
from modal_aware_jax.retrieval.metrics import ranked_average_precision

HERE = pathlib.Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_arguments(parser)
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--methods", default="concat,modal_aware")
    parser.add_argument("--bits", default=64, type=int)
    parser.add_argument("--seeds", default="0")
    parser.add_argument(
        "--out", default=HERE / "results/label_ceiling.md", type=pathlib.Path
    )
    args = parser.parse_args()
    config = quick_config(args.data, before=args.before)
    cells = chosen_cells(
        config,
        args.workdir,
        methods=args.methods.split(","),
        bits=args.bits,
        seeds=[int(seed) for seed in args.seeds.split(",")],
    )
    pairs = build.collection(config.data)
    lines = ["| method | seed | codes | label probabilities |", "|---|---|---|---|"]
    for cell, finished in cells.items():
        experiment = open_cell(config, cell, args.workdir, pairs)
        parts = experiment.split
        unseen = np.setdiff1d(parts.database, parts.train)
        query, database = (
            probabilities(experiment, rows) for rows in (parts.query, unseen)
        )
        labels = experiment.collection.labels
        score = mean_average_precision(
            query, database, labels[parts.query], labels[unseen]
        )
        codes = finished.result["unseen"]["map_expected"]
        title = build.METHODS[cell.method].title
        lines.append(f"| {title} | {cell.seed} | {codes:.4f} | {score:.4f} |")
        print(lines[-1], flush=True)
    note = (
        f"\nMAP of the test queries over the pairs that were not trained on, "
        f"{args.bits} bits, `configs/flickr.py:variant=quick`, commit "
        f"{provenance()['commit']}. Made by `benchmarks/label_ceiling.py`.\n"
    )
    args.out.write_text("\n".join(lines) + "\n" + note)


def probabilities(experiment, positions):
    """Label probabilities of pairs, [n, L], by the label head."""
    graphdef, state = nnx.split(experiment.model)

    def logits(state, batch):
        model = nnx.merge(graphdef, state)
        maps, text = batch["image"].astype(np.float32), batch["text"]
        return label_logits(model, model.joint_from_maps(maps, text, train=False))

    if experiment.mirrored:  # as the codes are
        logits = build.mean_with_mirror(logits, cached_maps=True)
    logits = jax.jit(logits)
    batches = pipeline.cached_eval_batches(
        lower_maps(experiment),
        experiment.collection,
        positions,
        batch_size=200,
        mirrored=experiment.mirrored,
    )
    rows = [
        np.asarray(logits(state, {x: batch[x] for x in ("image", "text")}))[
            batch["mask"]
        ]
        for batch in batches
    ]
    return 1 / (1 + np.exp(-np.concatenate(rows).astype(np.float64)))


def mean_average_precision(query, database, query_labels, labels):
    """MAP of the ranking by the probability of a shared label, loop over queries."""
    scores = []
    for own, wanted in zip(query, query_labels, strict=True):
        share = -np.log1p(-own * database).sum(axis=1)
        order = np.argsort(-share, kind="stable")
        relevant = (labels[order] & wanted).any(axis=1)
        scores.append(ranked_average_precision(relevant, relevant.sum()))
    return np.mean(scores)


if __name__ == "__main__":
    main()
