"""Running what is not yet done, cell after cell, each an ordinary run in its folder."""

import contextlib
import gc
import pathlib
import time
from collections.abc import Iterable

import jax

from modal_aware_jax import build, modes
from modal_aware_jax.compare.cells import (
    Cell,
    Finished,
    cell_config,
    read_cell,
    record_of,
    write_cell,
)
from modal_aware_jax.compare.view import CellsView
from modal_aware_jax.modes.encoder import degraded_maps, lower_maps
from modal_aware_jax.training.errors import (
    CheckpointError,
    NonFiniteLoss,
    RunError,
    WorkdirInUse,
)


def run_cells(
    config, cells: Iterable, workdir: pathlib.Path
) -> dict[Cell, Finished | None]:
    """Runs the cells that are not finished.

    A finished cell is never run again, an interrupted one goes on from its checkpoint;
    all share the prepared data and the cached maps. A cell whose loss diverges, or
    whose checkpoint cannot be read, does not stop the others: it is told at the end.
    Several processes may run the same cells: each leaves alone what another has begun.

    Args:
      config: of any one cell; see `cell_config`.
      cells: (method, bits, seed) of each.
      workdir: a cell's run lies in its folder METHOD-BITS-SEED.

    Returns:
      {cell: finished} of the cells asked for; None for those that another process has
      not finished yet.
    """
    cells = list(dict.fromkeys(Cell(*cell) for cell in cells))
    for cell in cells:  # a typing mistake must not show after hours
        build.choose_method(build.task_of(config), cell.method)
    configs = {cell: cell_config(config, cell) for cell in cells}
    done = {cell: read_cell(workdir / cell.folder, configs[cell]) for cell in cells}
    waiting = [cell for cell in cells if done[cell] is None]
    if not waiting:
        return done
    pairs = build.collection(config.data)
    failed = []
    earlier = [done[cell].seconds for cell in cells if done[cell] is not None]
    shown = build.task_of(config).comparison.headline
    with CellsView(len(cells), len(cells) - len(waiting), earlier, shown) as view:
        for cell in waiting:
            view.start(cell)
            folder = workdir / cell.folder
            try:
                finished = read_cell(folder, configs[cell])
                if finished is None:
                    finished = run_cell(configs[cell], pairs, folder)
            except WorkdirInUse:
                view.skip()
                continue
            except (NonFiniteLoss, CheckpointError) as error:
                failed.append((cell, error))
                view.fail(error)
                continue
            done[cell] = finished
            view.finish(finished)
    for cell in waiting:  # what another process has finished meanwhile
        done[cell] = done[cell] or read_cell(workdir / cell.folder, configs[cell])
    if failed:
        told = " ".join(f"[{cell}] {error}" for cell, error in failed)
        error = RunError(
            f"{len(failed)} of {len(cells)} cells failed, the others are finished. "
            f"{told}"
        )
        error.exit_code = failed[0][1].exit_code
        raise error
    return done


def run_cell(config, pairs, directory: pathlib.Path) -> Finished:
    """Trains and evaluates one cell, and marks it as finished."""
    experiment = build.experiment(config, pairs)
    for shared in (lower_maps, degraded_maps):  # by all cells: no part of one's time
        shared(experiment)
    finished = read_cell(directory, config)
    if finished is not None:  # by another process, meanwhile: its time is right
        return finished
    clock = directory / "seconds.txt"
    with timed(clock):
        result = modes.train(experiment, directory)
    finished = Finished(result, _seconds(clock))
    write_cell(directory, record_of(config, finished))
    jax.clear_caches()  # the programs of 90 cells would fill the memory
    gc.collect()
    return finished


@contextlib.contextmanager
def timed(path: pathlib.Path):
    """Adds the seconds spent inside to those in a file, however it is left.

    An interrupted cell so keeps its time; a killed process loses its own part.
    """
    before, start = _seconds(path), time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        path.write_text(f"{before + time.monotonic() - start:.1f}\n")


def _seconds(path):
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return 0.0
