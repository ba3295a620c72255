"""From finished cells to a table's rows: means over seeds, leads, published numbers."""

import statistics
from collections.abc import Iterable

import numpy as np

from modal_aware_jax.compare.cells import Cell, Finished
from modal_aware_jax.report.paired_bootstrap import paired_bootstrap
from modal_aware_jax.tasks.task import Lead, Mean, Task

ABLATION = ("modal_aware", "no_kernel", "no_attention", "concat")


def in_order(cells, first: Iterable[str], methods: Iterable[str]) -> list[str]:
    """The methods of cells: those of `first` in its order, then as in `methods`.

    >>> in_order([Cell("image", 8, 0), Cell("gmu", 8, 0)], ["image"], ["gmu", "text"])
    ['image', 'gmu']
    """
    there = {cell.method for cell in cells}
    return [m for m in dict.fromkeys((*first, *methods)) if m in there]


def summarise(
    finished: dict[Cell, Finished], methods, task: Task, *, data=None
) -> list[dict]:
    """One row a code length and method: scores over seeds, and the first method's lead.

    A lead is the mean difference of a score of single items, such as the average
    precision of queries, each first averaged over the seeds that both methods have;
    its interval covers the choice of items, not of seeds.

    Args:
      finished: what is there; methods need not have the same lengths and seeds.
      methods: the rows of each length, the first the one to compare the others with.
      task: of the cells.
      data: the config's section, for published numbers.

    Returns:
      dicts of method, title, bits, seeds (their number); of the task's columns, such as
      map, map_sd (None with one seed) and lead, lead_low, lead_high, lead_seeds, None
      where no cell has them; published, seconds (median of a cell).
    """
    rows, published = [], task.comparison.published
    for bits in sorted({cell.bits for cell in finished}):
        ours = of_method(finished, methods[0], bits)
        for method in methods:
            cells = of_method(finished, method, bits)
            if not cells:
                continue
            base = {} if method == methods[0] else ours
            seconds = [one.seconds for one in cells.values() if one.seconds]
            named = method in task.methods
            row = {
                "method": method,
                "title": task.methods[method].title if named else method,
                "bits": bits,
                "seeds": len(cells),
            }
            for column in task.comparison.columns:
                row |= _values(column, base, cells)
            known = data is not None and published is not None
            row["published"] = published(data, method, bits) if known else None
            row["seconds"] = statistics.median(seconds) if seconds else None
            rows.append(row)
    return rows


def _values(column: Mean | Lead, ours, theirs) -> dict:
    """What a column has to say of the cells `theirs`, and beside `ours`."""
    if isinstance(column, Lead):
        found = lead(ours, theirs, column.items)
        return {f"{column.prefix}{key}": value for key, value in found.items()}
    scores = [column.of(one.result) for one in theirs.values()]
    scores = [score for score in scores if score is not None]
    values = {column.name: float(np.mean(scores)) if scores else None}
    if column.about:
        deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
        values[f"{column.name}_sd"] = deviation
    return values


def of_method(finished, method: str, bits: int) -> dict[int, Finished]:
    """{seed: finished} of one method and code length."""
    return {
        cell.seed: one
        for cell, one in sorted(finished.items())
        if (cell.method, cell.bits) == (method, bits)
    }


def lead(ours: dict[int, Finished], theirs: dict[int, Finished], items) -> dict:
    """By how much ours is ahead, over the seeds of both; None where there are none.

    Args:
      ours, theirs: by seed.
      items: of a `Lead`.
    """
    ours, theirs = (
        {seed: items(one.result) for seed, one in cells.items()}
        for cells in (ours, theirs)
    )
    both = sorted(ours.keys() & theirs.keys())
    seeds = [s for s in both if ours[s] is not None and theirs[s] is not None]
    if not seeds:
        return dict.fromkeys(("lead", "lead_low", "lead_high"), None) | {
            "lead_seeds": 0
        }
    means = (np.mean([cells[s] for s in seeds], axis=0) for cells in (ours, theirs))
    found = paired_bootstrap(*means)
    return {
        "lead": found.mean,
        "lead_low": found.low,
        "lead_high": found.high,
        "lead_seeds": len(seeds),
    }
