"""Finished cells of a comparison, opened again with their weights."""

import pathlib
from collections.abc import Iterable, Sequence

from modal_aware_jax import build
from modal_aware_jax.compare.cells import Cell, Finished, cell_config, find_cells
from modal_aware_jax.modes.evaluate import load_run


def chosen_cells(
    config,
    workdir: pathlib.Path,
    *,
    methods: Sequence[str] = (),
    bits: int | None = None,
    seeds: Iterable[int] = (),
    codes: bool = True,
) -> dict[Cell, Finished]:
    """The finished cells of a config in a workdir, by method, code length and seed.

    Args:
      config: of any one cell.
      workdir: of the comparison.
      methods: in this order; empty: all that are there, in the order of the task.
      bits: None: the length that most cells have, the longest of several.
      seeds: empty: all.
      codes: whether cells without codes of pairs are refused.
    """
    task = build.task_of(config)
    if codes and not task.code_of_pair:
        raise ValueError(
            "Robustness is told by the codes of pairs of finished cells; the task "
            f"{task.name} has none. `python -m modal_aware_jax.compare` reports on it."
        )
    found, left_out = find_cells(config, workdir)
    for message in left_out:
        print(f"Left out: {message}")
    lengths = [cell.bits for cell in found]
    if bits is None and lengths:
        bits = max(set(lengths), key=lambda length: (lengths.count(length), length))
    order = list(methods) or list(task.methods)
    seeds = set(seeds)
    kept = [
        cell
        for cell in found
        if cell.bits == bits
        and cell.method in order
        and (not seeds or cell.seed in seeds)
    ]
    missing = [name for name in methods if name not in {cell.method for cell in kept}]
    if missing or not kept:
        what = f" of {', '.join(missing)}" if missing else ""
        what += f" at {bits} bits" if bits is not None else ""
        raise ValueError(
            f"{workdir} has no finished cell{what} with this config. "
            "Run `python -m modal_aware_jax.compare` first, with the same --config."
        )
    kept.sort(key=lambda cell: (order.index(cell.method), cell.seed))
    return {cell: found[cell] for cell in kept}


def open_cell(config, cell: Cell, workdir: pathlib.Path, pairs) -> build.Experiment:
    """The experiment of a cell with the weights of its last checkpoint.

    Args:
      config: of any one cell.
      cell: a finished one.
      workdir: of the comparison.
      pairs: the collection as its source gives it.
    """
    own = cell_config(config, cell)
    with own.unlocked():  # all cells alike, so that they share the maps of an image
        own.training.cached_means = False
    experiment = build.experiment(own, pairs)
    load_run(experiment, workdir / cell.folder)
    return experiment
