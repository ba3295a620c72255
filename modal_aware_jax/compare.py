"""Methods x code lengths x seeds on one footing: a table that can be believed.

    python -m modal_aware_jax.compare --config=configs/shapes.py \\
        --methods=modal_aware,image,text --bits=32 --seeds=0 --workdir=runs/demo

Each cell is an ordinary run in WORKDIR/METHOD-BITS-SEED. A finished cell is never run
again, an interrupted one goes on; cells share the prepared data and the cached maps.
WORKDIR/report/ gets the table of means and standard deviations over seeds and, against
the first method, intervals of a paired bootstrap over the queries.
"""

import csv
import hashlib
import itertools
import json
import os
import pathlib
import platform
import subprocess
import sys

import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from modal_aware_jax.overrides import parse_flags
from modal_aware_jax.training.errors import RunError

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The experiment: configs/NAME.py.")
flags.DEFINE_list("methods", "modal_aware,image,text", "Methods, ours first.")
flags.DEFINE_list("bits", "64", "Code lengths.")
flags.DEFINE_list("seeds", "0", "Training seeds.")
flags.DEFINE_string("workdir", "runs/compare", "Where the cells and the report go.")


def cell_config(config, method: str, bits: int, seed: int):
    """The config of one cell: the given one with method, code length and seed."""
    cell = config.copy_and_resolve_references()
    cell.model.method, cell.model.num_bits, cell.seed = method, bits, seed
    return cell.lock()


def fingerprint(config) -> str:
    """A short hash of all values of a config."""
    text = json.dumps(config.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_cells(config, cells, workdir: pathlib.Path) -> dict:
    """Runs what is not yet done -> {(method, bits, seed): result dict}."""
    from modal_aware_jax import build, modes

    pairs, results = None, {}
    for number, (method, bits, seed) in enumerate(cells, 1):
        cell = cell_config(config, method, bits, seed)
        directory = workdir / f"{method}-{bits}-{seed}"
        done = read_cell(directory, cell)
        if done is None:
            print(f"[{number}/{len(cells)}] {method}, {bits} bits, seed {seed}")
            pairs = build.collection(config.data) if pairs is None else pairs
            experiment = build.experiment(cell, pairs)
            done = modes.train(experiment, directory)
            write_cell(directory, cell, done)
        results[method, bits, seed] = done
        print(f"    MAP {done['map_expected']:.4f}", flush=True)
    return results


def write_cell(directory: pathlib.Path, config, result: dict) -> None:
    """Marks a cell as finished, with its result and the config that gave it."""
    record = {key: _plain(value) for key, value in result.items()}
    record = {"fingerprint": fingerprint(config), "result": record}
    partial = directory / "cell.json.partial"
    partial.write_text(json.dumps(record))
    partial.replace(directory / "cell.json")


def read_cell(directory: pathlib.Path, config) -> dict | None:
    """The result of a finished cell, or None; refuses one of another config."""
    path = directory / "cell.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    if record["fingerprint"] != fingerprint(config):
        raise ValueError(
            f"{directory} holds a finished cell of another config. Choose another "
            "--workdir, or delete that folder to run the cell anew."
        )
    result = record["result"]
    for key in ("average_precision", "radius_precision", "radius_recall"):
        result[key] = np.asarray(result[key])
    for key in ("precision_at", "recall_at"):
        result[key] = {int(n): value for n, value in result[key].items()}
    return result


def _plain(value):
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def summarise(results: dict, methods, bits, seeds) -> list[dict]:
    """One row a method and code length: MAP over seeds, and the first method's lead."""
    from modal_aware_jax.report.paired_bootstrap import paired_bootstrap

    def per_query(method, length):
        cells = [results[method, length, seed] for seed in seeds]
        return np.mean([cell["average_precision"] for cell in cells], axis=0)

    rows = []
    for method, length in itertools.product(methods, bits):
        cells = [results[method, length, seed] for seed in seeds]
        scores = [cell["map_expected"] for cell in cells]
        row = {
            "method": method,
            "bits": length,
            "seeds": len(seeds),
            "map": float(np.mean(scores)),
            "map_sd": float(np.std(scores, ddof=1)) if len(seeds) > 1 else None,
            "map_index": float(np.mean([cell["map_index"] for cell in cells])),
            "lead": None,
            "lead_low": None,
            "lead_high": None,
        }
        if method != methods[0]:
            lead = paired_bootstrap(
                per_query(methods[0], length), per_query(method, length)
            )
            row |= {"lead": lead.mean, "lead_low": lead.low, "lead_high": lead.high}
        rows.append(row)
    return rows


def markdown(rows: list[dict], first: str) -> str:
    """The summary as a Markdown table."""
    lines = [
        f"| method | bits | MAP | seeds | {first} minus it (95 % interval) |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        score = f"{row['map']:.4f}"
        if row["map_sd"] is not None:
            score += f" ± {row['map_sd']:.4f}"
        lead = ""
        if row["lead"] is not None:
            lead = "{lead:+.4f} ({lead_low:+.4f} to {lead_high:+.4f})".format(**row)
        lines.append(
            f"| {row['method']} | {row['bits']} | {score} | {row['seeds']} | {lead} |"
        )
    return "\n".join(lines) + "\n"


def provenance() -> dict:
    """What made the numbers: versions, hardware, and the commit if known."""
    import flax
    import jax

    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "commit": commit,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "devices": [device.device_kind for device in jax.devices()],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def write_summary(directory: pathlib.Path, rows, methods, config) -> str:
    """Writes `comparison.json`, `.csv` and `.md` -> the Markdown table."""
    directory.mkdir(parents=True, exist_ok=True)
    values = config.to_dict()
    if values["data"].get("dir"):  # where it lay on this machine tells nobody anything
        values["data"]["dir"] = pathlib.Path(values["data"]["dir"]).name
    made = {**provenance(), "config": values}
    record = {"rows": rows, "provenance": made}
    text = json.dumps(record, indent=1, default=str)
    (directory / "comparison.json").write_text(text)
    with open(directory / "comparison.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = markdown(rows, methods[0])
    (directory / "comparison.md").write_text(table)
    return table


def run(args) -> None:
    """Runs all cells and writes the report."""
    from modal_aware_jax.report import write_report

    if args.config is None:
        raise ValueError("Name an experiment, for example --config=configs/shapes.py.")
    bits, seeds = [int(b) for b in args.bits], [int(s) for s in args.seeds]
    workdir = pathlib.Path(args.workdir).expanduser()
    cells = list(itertools.product(args.methods, bits, seeds))
    results = run_cells(args.config, cells, workdir)
    rows = summarise(results, args.methods, bits, seeds)
    table = write_summary(workdir / "report", rows, args.methods, args.config)
    shown = {m: results[m, bits[0], seeds[0]] for m in args.methods}
    write_report(workdir / "report", shown, title=f"Comparison at {bits[0]} bits")
    print(table)
    print(f"The report is {workdir / 'report' / 'index.html'}")


def main(argv) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step otherwise
    try:
        run(FLAGS)
    except (ValueError, RunError) as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
