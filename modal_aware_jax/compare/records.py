"""Finished cells in one small file, to be carried elsewhere and added to."""

import json
import pathlib
import zipfile

import numpy as np

from modal_aware_jax.build import task_of
from modal_aware_jax.compare.cells import (
    Cell,
    Finished,
    cell_config,
    fingerprint,
    record_of,
    write_cell,
)


def write_records(path: pathlib.Path, finished: dict[Cell, Finished], config) -> None:
    """Writes all that a report needs of finished cells: an `.npz` of some kB a cell.

    In it the scores of single items, float32 [cells, Q], under the names of the task's
    `Comparison.items`: with them anyone can compare a method of their own, item by
    item. And `cells`, a JSON list with method, bits, seed, the hash of the config and
    all other results of each row. Cells without some of the scores have NaN there.

    Args:
      path: of the file.
      finished: cells that ask the same Q items.
      config: of any one cell.
    """
    items = task_of(config).comparison.items
    needed, *others = items
    rows, scores = [], {name: [] for name in items}
    for cell, one in sorted(finished.items()):
        record = record_of(cell_config(config, cell), one)
        whole = None
        for name, place in items.items():
            own = _take(record["result"], place)
            whole = len(own) if whole is None else whole
            own = np.full(whole, np.nan) if own is None else own
            scores[name].append(np.float32(own))
        rows.append({**cell._asdict(), **record})
    scores = {name: np.stack(some) for name, some in scores.items()}
    if all(np.isnan(scores[name]).all() for name in others):
        scores = {needed: scores[needed]}
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez_compressed(file, cells=json.dumps(rows), **scores)
    partial.replace(path)


def unpack_records(path: pathlib.Path, workdir: pathlib.Path, config) -> int:
    """Marks the cells of a file as finished in a workdir, where they are not yet.

    They have no checkpoint and no codes there: a report needs neither.

    Args:
      path: of the file.
      workdir: of the comparison.
      config: of any one cell.

    Returns:
      How many were added.

    Raises:
      ValueError: the file is none of `write_records`, or holds cells of another config,
        which would keep the folder's own from being run.
    """
    items = task_of(config).comparison.items
    needed = next(iter(items))
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            rows = json.loads(str(stored["cells"]))
            scores = {n: stored[n].tolist() for n in items if n in stored.files}
            scores[needed]  # the others are not
        cells = [Cell(*(row.pop(name) for name in Cell._fields)) for row in rows]
        for name, of_cells in scores.items():
            for row, own in zip(rows, of_cells, strict=True):
                _put(row["result"], items[name], own)
    except (
        *(OSError, EOFError, zipfile.BadZipFile),
        *(ValueError, KeyError, TypeError),
    ) as error:
        raise ValueError(
            f"{path} holds no finished cells ({type(error).__name__}: {error}). "
            "--records takes the report/cells.npz of a comparison."
        ) from None
    others = [
        cell
        for cell, row in zip(cells, rows, strict=True)
        if row.get("fingerprint") != fingerprint(cell_config(config, cell))
    ]
    if others:
        raise ValueError(
            f"{path}: {len(others)} of its {len(cells)} cells are of another config, "
            f"such as [{others[0]}]. Nothing was taken over: give the config and the "
            "changes that they were made with."
        )
    added = 0
    for cell, row in zip(cells, rows, strict=True):
        directory = workdir / cell.folder
        if not (directory / "cell.json").exists():
            write_cell(directory, row)
            added += 1
    return added


def _take(result, place):
    """Takes an array out of a result; None where the part it lies in is not there."""
    *parts, name = place
    for part in parts:
        result = result.get(part)
        if result is None:
            return None
    return result.pop(name)


def _put(result, place, scores):
    """Puts an array back, where the part it lies in is there."""
    *parts, name = place
    for part in parts:
        result = result.get(part)
        if result is None:
            return
    result[name] = scores
