"""The same few settings for every method, judged on validation queries alone.

    python benchmarks/trials.py --data=FOLDER --finished=runs/table

Each method of the table is trained at 64 bits, seed 0, with each of `TRIALS`, the
first being the table's own settings. The score is the MAP of the 1,000 validation
queries after the last epoch; test queries are not encoded. Scores are kept in WORKDIR
as they come, and the same command goes on after an interruption. Writes
`results/trials.md` and `.json`.
"""

import argparse
import gc
import json
import pathlib
import runpy

import jax

from modal_aware_jax import build, modes
from modal_aware_jax.compare import find_cells, provenance
from modal_aware_jax.compare.cells import Cell, cell_config, fingerprint

HERE = pathlib.Path(__file__).parent
# Shared by all methods, so that each has as many trials as the next.
TRIALS = {
    "as in the table": {},
    "half the learning rate": {"optimizer.learning_rate": 1e-3},
    "label weight 0.03": {"loss.label_weight": 0.03},
    "no label head": {"loss.label_weight": 0.0},
}
METHODS = (
    "modal_aware,concat,gmu,mcb,text,image,dpsh,dsh,hashnet,csq,contrastive,"
    "divide_and_encode"
)
BITS, SEED = 64, 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="the folder of MIR-Flickr")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--finished", help="a comparison whose cells are taken over")
    parser.add_argument("--workdir", default="runs/trials", type=pathlib.Path)
    parser.add_argument("--out", default=HERE / "results" / "trials", type=pathlib.Path)
    args = parser.parse_args()
    get_config = runpy.run_path(str(HERE.parent / "configs" / "flickr.py"))
    config = get_config["get_config"]("variant=quick")
    config.data.dir = args.data
    finished = pathlib.Path(args.finished) if args.finished else None
    known = find_cells(config, finished)[0] if finished else {}
    args.workdir.mkdir(parents=True, exist_ok=True)
    kept = args.workdir / "scores.json"
    scores = json.loads(kept.read_text()) if kept.exists() else {}
    pairs = build.collection(config.data)
    methods = args.methods.split(",")
    for method in methods:
        for name, changes in TRIALS.items():
            cell = Cell(method, BITS, SEED)
            own = cell_config(config, cell)
            own.update_from_flattened_dict(changes)
            key = f"{method} {fingerprint(own)}"
            if key in scores:
                continue
            if not changes and cell in known:
                path = finished / cell.folder / "report" / "history.json"
                history = json.loads(path.read_text())["history"]
            else:
                place = args.workdir / key.replace(" ", "-")
                history = modes.fit_run(build.experiment(own, pairs), place)[2]
                jax.clear_caches()
                gc.collect()
            scores[key] = {
                "method": method,
                "trial": name,
                "validation_map": history[-1]["validation_map"],
            }
            kept.write_text(json.dumps(scores, indent=1))
            print(scores[key], flush=True)
    rows = [row for row in scores.values() if row["method"] in methods]
    args.out.with_suffix(".json").write_text(
        json.dumps({"rows": rows, "provenance": provenance()}, indent=1) + "\n"
    )
    args.out.with_suffix(".md").write_text(table(rows, methods))


def table(rows, methods):
    """One row a method, one column a trial, the best in bold."""
    found = {(row["method"], row["trial"]): row["validation_map"] for row in rows}
    lines = [
        "| method | " + " | ".join(TRIALS) + " |",
        "|---" * (len(TRIALS) + 1) + "|",
    ]
    for method in methods:
        own = [found.get((method, trial)) for trial in TRIALS]
        best = max(score for score in own if score is not None)
        cells = [
            "–"
            if score is None
            else f"**{score:.4f}**"
            if score == best
            else f"{score:.4f}"
            for score in own
        ]
        lines.append(f"| {build.METHODS[method].title} | " + " | ".join(cells) + " |")
    note = (
        f"\nMAP of the 1,000 validation queries after the last epoch, {BITS} bits, "
        f"seed {SEED}, `configs/flickr.py:variant=quick`; they search 2,000 other "
        "pairs of the database. Made by `benchmarks/trials.py`.\n"
    )
    return "\n".join(lines) + "\n" + note


if __name__ == "__main__":
    main()
