"""Codes of several lengths from one model, beside models of a length of their own.

    python -m modal_aware_jax.compare --config=configs/flickr.py:variant=quick \
        --config.data.dir=FOLDER --config.model.nested_bits="(16,32,48,64)" \
        --workdir=runs/nested --methods=modal_aware,concat --bits=128 --seeds=0
    python benchmarks/nested.py --data=FOLDER --nested=runs/nested --own=runs/table

The first b bits of the codes that the cells kept are codes of b bits. Beside them stand
the cells of the same method and seed that a comparison in --own trained at that length
alone, where there are any. Writes `results/nested.md` and `nested.json`.
"""

import argparse
import json
import pathlib

import numpy as np
from flickr_settings import add_arguments, quick_config

from modal_aware_jax import build
from modal_aware_jax.compare import provenance
from modal_aware_jax.compare.cells import find_cells
from modal_aware_jax.compare.finished import chosen_cells
from modal_aware_jax.hashing.codes import pack, unpack
from modal_aware_jax.hashing.nested import check_lengths
from modal_aware_jax.report.paired_bootstrap import paired_bootstrap
from modal_aware_jax.retrieval.metrics import average_precision

HERE = pathlib.Path(__file__).parent
PARTS = ("protocol", "unseen")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_arguments(parser)
    parser.add_argument("--nested", required=True, type=pathlib.Path)
    parser.add_argument("--own", required=True, type=pathlib.Path)
    parser.add_argument("--methods", default="modal_aware,concat")
    parser.add_argument("--bits", default=128, type=int)
    parser.add_argument("--lengths", default="16,32,48,64")
    args = parser.parse_args()
    config = quick_config(args.data, before=args.before)
    own, _ = find_cells(config, args.own)
    config.model.nested_bits = tuple(map(int, args.lengths.split(",")))
    cells = chosen_cells(
        config, args.nested, methods=args.methods.split(","), bits=args.bits
    )
    rows = []
    for cell, finished in cells.items():
        with np.load(args.nested / cell.folder / "codes.npz") as kept:
            codes = {name: kept[name] for name in kept.files}
        query, database = (
            np.asarray(unpack(codes[name], args.bits)) for name in ("query", "database")
        )
        unseen = ~codes["database_trained"]
        for bits in check_lengths(config.model.nested_bits, args.bits):
            scores = {
                part: average_precision(
                    np.asarray(pack(query[:, :bits])),
                    np.asarray(pack(database[chosen, :bits])),
                    codes["query_labels"],
                    codes["database_labels"][chosen],
                    num_bits=bits,
                )
                for part, chosen in (("protocol", slice(None)), ("unseen", unseen))
            }
            alone = own.get(cell._replace(bits=bits))
            row = row_of(cell, bits, scores, alone and alone.result)
            rows.append({**row, "trained_at": finished.made["commit"]})
            print(rows[-1], flush=True)
    write(rows, args, config)


def row_of(cell, bits, scores, own):
    """Scores at one length: the prefix's, the own model's, and their difference."""
    row = {"method": cell.method, "seed": cell.seed, "bits": bits}
    for part, ours in scores.items():
        row[part] = float(ours.mean())
        if own is not None:
            theirs = own[part] if part == "unseen" else own
            row[f"{part}_own"] = float(theirs["map_expected"])
            difference = paired_bootstrap(ours, theirs["average_precision"])
            row[f"{part}_difference"] = [float(value) for value in difference]
    return row


def write(rows, args, config):
    made = provenance()
    lengths = [*config.model.nested_bits, args.bits]
    lines = [
        "| method | bits | nested, protocol | own length | difference (95 %) "
        "| nested, unseen | own length | difference (95 %) |",
        "|" + "---|" * 8,
    ]
    for row in rows:
        cells = [build.METHODS[row["method"]].title, str(row["bits"])]
        for part in PARTS:
            cells.append(f"{row[part]:.4f}")
            if f"{part}_own" in row:
                value, low, high = row[f"{part}_difference"]
                cells.append(f"{row[f'{part}_own']:.4f}")
                cells.append(f"{value:+.4f} ({low:+.4f} to {high:+.4f})")
            else:
                cells += ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(
        "\nMIR-Flickr, `configs/flickr.py:variant=quick`, seed 0, ties 'expected'. One "
        f"model for {', '.join(map(str, lengths))} bits (`config.model.nested_bits`), "
        "trained on all of these prefixes at once; models of their own length beside "
        "it. Intervals: paired bootstrap over the queries. Trained at "
        f"commit {', '.join(sorted({row['trained_at'] for row in rows}))}, scored at "
        f"{made['commit']}. Made by `benchmarks/nested.py`.\n"
    )
    results = HERE / "results"
    (results / "nested.md").write_text("\n".join(lines))
    record = {"rows": rows, "made": made}
    (results / "nested.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
