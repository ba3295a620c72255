"""Finished cells in one small file, to be carried elsewhere and added to."""

import json
import pathlib
import zipfile

import numpy as np

from modal_aware_jax.compare.cells import (
    Cell,
    Finished,
    cell_config,
    record_of,
    write_cell,
)

SCORES = "average_precision"
PLACES = {SCORES: (), f"{SCORES}_unseen": ("unseen",), f"{SCORES}_seen": ("seen",)}


def write_records(path: pathlib.Path, finished: dict[Cell, Finished], config) -> None:
    """Writes all that a report needs of finished cells: an `.npz` of some kB a cell.

    In it `average_precision`, float32 [cells, Q], over the whole database, the same
    over its parts as `average_precision_unseen` and `_seen`, and `cells`, a JSON list
    with method, bits, seed, the hash of the config and all other results of each row.
    With the first anyone can compare a method of their own, query by query. Cells that
    were scored without parts have NaN there.

    Args:
      path: of the file.
      finished: cells that ask the same Q queries.
      config: of any one cell.
    """
    rows, scores = [], {name: [] for name in PLACES}
    for cell, one in sorted(finished.items()):
        record = record_of(cell_config(config, cell), one)
        whole = len(record["result"][SCORES])
        for name, place in PLACES.items():
            part = _part(record["result"], place)
            own = np.full(whole, np.nan) if part is None else part.pop(SCORES)
            scores[name].append(np.float32(own))
        rows.append({**cell._asdict(), **record})
    scores = {name: np.stack(some) for name, some in scores.items()}
    if all(np.isnan(some).all() for name, some in scores.items() if PLACES[name]):
        scores = {SCORES: scores[SCORES]}
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez_compressed(file, cells=json.dumps(rows), **scores)
    partial.replace(path)


def unpack_records(path: pathlib.Path, workdir: pathlib.Path) -> int:
    """Marks the cells of a file as finished in a workdir, where they are not yet.

    They have no checkpoint and no codes there: a report needs neither.

    Returns:
      How many were added.

    Raises:
      ValueError: the file is none of `write_records`.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            rows = json.loads(str(stored["cells"]))
            scores = {n: stored[n].tolist() for n in PLACES if n in stored.files}
            scores[SCORES]  # needed; those of the parts are not
        cells = [Cell(*(row.pop(name) for name in Cell._fields)) for row in rows]
        for name, of_cells in scores.items():
            for row, own in zip(rows, of_cells, strict=True):
                part = _part(row["result"], PLACES[name])
                if part is not None:
                    part[SCORES] = own
    except (
        *(OSError, EOFError, zipfile.BadZipFile),
        *(ValueError, KeyError, TypeError),
    ) as error:
        raise ValueError(
            f"{path} holds no finished cells ({type(error).__name__}: {error}). "
            "--records takes the report/cells.npz of a comparison."
        ) from None
    added = 0
    for cell, row in zip(cells, rows, strict=True):
        directory = workdir / cell.folder
        if not (directory / "cell.json").exists():
            write_cell(directory, row)
            added += 1
    return added


def _part(result, place):
    """The result itself, or that of a part of the database; None where it has none."""
    return result.get(place[0]) if place else result
