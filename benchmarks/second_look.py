"""What the scores of pairs know: of pictures that were trained on, and of new ones.

    python benchmarks/second_look.py --data=FOLDER --workdir=runs/flickr8k_tokens

Of finished cells of `configs/flickr8k.py:method=cmfg` that score pairs: rsum of some
test images among each other, and of as many training images, by the embeddings, by
similarity + weight x score of the first 50 as reports do, and by the score alone. A
second look that ranks training images well and new ones no better than the embeddings
has learned the training pairs by heart; one that ranks neither has not learned.
Nothing is chosen here. Writes `results/second_look.md` and `.json`.
"""

import argparse
import functools
import json
import pathlib
import runpy

import numpy as np

from modal_aware_jax import build
from modal_aware_jax.compare import provenance
from modal_aware_jax.compare.cells import cell_config
from modal_aware_jax.compare.finished import chosen_cells
from modal_aware_jax.modes.encoder import Encoder, lower_maps, variables_of
from modal_aware_jax.modes.evaluate import load_run
from modal_aware_jax.modes.pair_scorer import PairScorer
from modal_aware_jax.retrieval.evaluate_matching import evaluate_matching
from modal_aware_jax.tasks.matching import embeddings_of, in_order, look_again

HERE = pathlib.Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of Flickr8k")
    parser.add_argument("--weights", default="", help="of the backbone")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--images", default=300, type=int, help="of either kind")
    parser.add_argument("--methods", default="", help="all that are there by default")
    args = parser.parse_args()
    get_config = runpy.run_path(str(HERE.parent / "configs" / "flickr8k.py"))
    config = get_config["get_config"]("method=cmfg")
    config.data.dir, config.data.num_validation = args.data, 0
    config.backbone.weights = args.weights or config.backbone.weights
    methods = [name for name in args.methods.split(",") if name]
    cells = chosen_cells(config, args.workdir, methods=methods, codes=False)
    pairs, rows = build.collection(config.data), []
    for cell in cells:
        experiment = build.experiment(cell_config(config, cell), pairs)
        load_run(experiment, args.workdir / cell.folder)
        if experiment.pairs is not None:
            rows += looks(experiment, cell, args.images)
    out = HERE / "results" / "second_look"
    found = {"rows": rows, "count": args.images, "made": provenance()}
    out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    out.with_suffix(".md").write_text(table(found))
    print(table(found))


def looks(experiment, cell, count: int) -> list[dict]:
    """rsum of so many new and trained images, by each order."""
    encoder = Encoder(experiment, lower_maps(experiment))
    variables = variables_of(experiment.model)
    scorer = functools.partial(PairScorer, experiment, variables, encoder.maps)
    weight = experiment.config["retrieval"]["rerank_weight"]
    rows, parts = [], experiment.split
    for which, positions in (("new", parts.query), ("trained", parts.train)):
        positions = np.sort(np.random.default_rng(0).permutation(positions)[:count])
        outputs = encoder.outputs(variables, positions)
        images, texts, owners = embeddings_of(experiment, positions, outputs)
        found = look_again(experiment, positions, outputs, scorer)
        alone = {way: (first, score) for way, (first, _, score) in found.items()}
        orders = {"second": in_order(found, weight), "alone": alone}
        row = {
            "method": cell.method,
            "seed": cell.seed,
            "images": which,
            "embeddings": float(evaluate_matching(images, texts, owners)["rsum"]),
        }
        for name, order in orders.items():
            result = evaluate_matching(images, texts, owners, reranked=order)
            row[name] = float(result["rsum"])
        rows.append(row)
        print(rows[-1], flush=True)
    return rows


def table(found: dict) -> str:
    lines = [
        "| method | images | embeddings | similarity + weight x score | score alone |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        title = build.TASKS["matching"].methods[row["method"]].title
        scores = " | ".join(
            f"{row[name]:.1f}" for name in ("embeddings", "second", "alone")
        )
        lines.append(f"| {title} | {row['images']} | {scores} |")
    made = found["made"]
    note = (
        f"\nrsum of {found['count']} test images of Flickr8k (new) and of as many "
        "training images (trained), the first 50 of each query ordered again; "
        f"`configs/flickr8k.py:method=cmfg`, commit {made['commit']}. Made by "
        "`benchmarks/second_look.py`.\n"
    )
    return "\n".join(lines) + "\n" + note


if __name__ == "__main__":
    main()
