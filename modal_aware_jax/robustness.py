"""What noise, blur, JPEG, occlusion and missing or wrong tags cost every method.

    python -m modal_aware_jax.robustness --config=configs/shapes.py --workdir=runs/demo

Reads the finished cells of a comparison (`python -m modal_aware_jax.compare` with the
same --config and --workdir) and perturbs the test queries: one modality at a time, and
both at once at the same level (noise with each loss of words, dropped words with each
loss in the image). The database stays as it is, unless --database perturbs it too. The
first of --methods is the full model.

WORKDIR/robustness/ gets a table of the fall in MAP (Markdown and CSV), the papers' two
claims tested, and a figure. Each number is kept there as soon as it is measured; the
same command goes on after an interruption, and measures what new cells or levels need.
"""

import json
import pathlib

import numpy as np
from absl import flags

from modal_aware_jax import build, cli
from modal_aware_jax.compare import cell_flags
from modal_aware_jax.compare.cells import Cell, cell_config, fingerprint
from modal_aware_jax.compare.finished import chosen_cells, open_cell
from modal_aware_jax.compare.perturbed import (
    Condition,
    Perturbed,
    Reader,
    conditions,
    measure,
)
from modal_aware_jax.data.perturbations import LEVELS
from modal_aware_jax.report.robustness import write_robustness

flags.adopt_module_key_flags(cli)  # --help shows them
flags.adopt_module_key_flags(cell_flags)
flags.DEFINE_list("seeds", [], "Training seeds; all by default.")
flags.DEFINE_list("levels", ["1", "2", "3"], "Of mild (1), medium (2), strong (3).")
flags.DEFINE_integer(
    "queries", 0, "Take so many of the test queries; 0: all.", lower_bound=0
)
flags.DEFINE_boolean("database", False, "Perturb the database too.")
flags.DEFINE_integer("noise_seed", 0, "Seed of all perturbations.", lower_bound=0)


def database_codes(experiment, directory: pathlib.Path) -> np.ndarray:
    """The packed codes of a cell's clean database, as its evaluation kept them."""
    path = directory / "codes.npz"
    expected = experiment.collection.ids[experiment.split.database]
    if not path.is_file():
        raise ValueError(
            f"{path} is missing. Make it again: python -m modal_aware_jax.main "
            f"--mode=evaluate --config=... --workdir={directory}"
        )
    with np.load(path, allow_pickle=False) as kept:
        if not np.array_equal(kept["database_ids"], expected):
            raise ValueError(f"{path} holds the codes of another split or collection.")
        return kept["database"]


def run(args) -> None:
    """Measures what is not yet measured, and writes the report."""
    settings = cli.needed_config(args)
    workdir = pathlib.Path(args.workdir or "runs/compare").expanduser()
    levels = [_level(text) for text in args.levels or [""]]
    cells = chosen_cells(
        settings,
        workdir,
        methods=args.methods,
        bits=args.bits,
        seeds=[_seed(text) for text in args.seeds],
    )
    directory = workdir / "robustness"
    directory.mkdir(parents=True, exist_ok=True)
    number = next(iter(cells.values())).result["num_queries"]
    number = args.queries if args.queries < number else 0  # 0: all
    what = {
        "noise_seed": args.noise_seed,
        "queries": number,
        "database": args.database,
    }
    runs = {cell: fingerprint(cell_config(settings, cell)) for cell in cells}
    kept = Kept(directory / "measured.jsonl", what, runs)
    wanted = conditions(levels)
    waiting = {
        cell: [c for c in wanted if (cell, c) not in kept.rows] for cell in cells
    }
    if any(waiting.values()):
        _measure_waiting(settings, workdir, waiting, kept, args)
    rows = [
        {**kept.rows[cell, condition], "method": build.METHODS[cell.method].title}
        for cell in cells
        for condition in wanted
    ]
    side = "queries and database" if args.database else "queries; the database is clean"
    some = f"{number} test queries" if number else "all test queries"
    text = write_robustness(
        directory,
        rows,
        method=rows[0]["method"],
        doses={name: (row.unit, row.doses) for name, row in LEVELS.items()},
        note=(
            f"Perturbed: {side}. {some}, {next(iter(cells)).bits} bits, training "
            f"seeds {sorted({cell.seed for cell in cells})}, seed of the perturbations "
            f"{args.noise_seed}, MAP with ties 'expected'."
        ),
    )
    print(text)
    print(f"The figure is {directory / 'robustness.png'}")


class Kept:
    """Rows that were measured, in a file that grows by one line each.

    Args:
      path: of the file.
      what: the settings that rows must share to be taken.
      runs: the fingerprint of each cell's config; rows of another are not taken.

    Attributes:
      rows: by (cell, condition).
    """

    def __init__(self, path: pathlib.Path, what: dict, runs: dict[Cell, str]):
        self.path, self.what, self.runs, self.rows = path, what, runs, {}
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # a last line cut short by a crash
            if row.pop("what") == what and row.pop("run") == runs.get(_cell(row)):
                if "map_unseen" in row:  # an earlier version did not measure it
                    self._take(row)

    def add(self, row: dict) -> None:
        """Takes a row, on disk before it returns."""
        with open(self.path, "a", encoding="utf-8") as file:
            made = {"what": self.what, "run": self.runs[_cell(row)]}
            file.write(json.dumps({**row, **made}) + "\n")
        self._take(row)

    def _take(self, row):
        condition = Condition(*(row[name] for name in Condition._fields))
        self.rows[_cell(row), condition] = row


def _cell(row):
    return Cell(*(row[name] for name in Cell._fields))


def _measure_waiting(settings, workdir, waiting, kept, args):
    pairs = build.collection(settings.data)
    if not pairs.labels.any():
        raise ValueError(
            f"Robustness is told by the fall in MAP by labels, and {pairs.name} has "
            "none. Compare collections with labels."
        )
    readers, databases, experiment = {}, {}, None
    of_method = {}  # one compiled program for all seeds of a method
    for cell, missing in waiting.items():
        if missing:
            experiment = open_cell(settings, cell, workdir, pairs)
            readers[cell] = Reader(experiment, of_method.get(cell.method))
            of_method[cell.method] = readers[cell]
            if not args.database:
                databases[cell] = database_codes(experiment, workdir / cell.folder)
    queries = experiment.split.query
    if args.queries and args.queries < len(queries):
        queries = queries[np.linspace(0, len(queries) - 1, args.queries).astype(int)]
    perturbed = Perturbed(
        experiment, readers, batch_size=experiment.batch_size, seed=args.noise_seed
    )
    wanted = dict.fromkeys(c for missing in waiting.values() for c in missing)
    for row in measure(
        perturbed,
        list(wanted),
        queries=queries,
        clean_database=None if args.database else databases,
    ):
        kept.add(row)


def _seed(text):
    if not text.isdecimal():
        raise ValueError(
            f"--seeds are whole numbers from 0, such as 0,1, not {text!r}."
        )
    return int(text)


def _level(text):
    if text not in ("1", "2", "3"):
        raise ValueError(f"--levels are of 1 (mild), 2 and 3 (strong), not {text!r}.")
    return int(text)


if __name__ == "__main__":
    cli.start(run)
