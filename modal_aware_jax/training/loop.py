"""The training loop: steps, validation, checkpoints, and every way it can stop."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax

from modal_aware_jax.training.run import Run
from modal_aware_jax.training.update import TrainState


class Fitted(NamedTuple):
    """What `fit` returns.

    Attributes:
        state: the state after the last step.
        history: a dict an epoch: epoch, step, mean loss, validation scores.
        best: step, epoch and score of the best validation; None without one.
    """

    state: TrainState
    history: list[dict]
    best: dict | None


def fit(
    update: Callable,
    state: TrainState,
    batches: Iterable[dict],
    *,
    workdir: str | os.PathLike,
    key: jax.Array,
    num_epochs: int,
    steps_per_epoch: int,
    validate: Callable[[TrainState], dict[str, float]] | None = None,
    best: str = "map",
    ids: Sequence[str] | None = None,
    config: dict | None = None,
    place: Callable[[dict], dict] | None = None,
    checkpoint_steps: int | None = None,
    keep: int = 2,
    log_steps: int = 20,
) -> Fitted:
    """Trains to the end, from the last checkpoint in `workdir` where there is one.

    An interrupted run that is started again gives the parameters of one that never
    stopped, bit for bit. In the workdir: `checkpoints/`, `metrics.csv`,
    `tensorboard/`.

    Args:
        update: `make_update`'s; donates its state.
        state: the state to start from; its arrays are used up.
        batches: endless; `iter(batches)` has `get_state` and `set_state`.
        workdir: the run's directory, of one process at a time.
        key: one key for the whole run.
        num_epochs: how long to train; with 0 the state is saved as it is.
        steps_per_epoch: after so many steps: validation and a checkpoint.
        validate: `validate(state)` gives a dict of numbers.
        best: the number of `validate` whose best checkpoint is kept.
        ids: the collection's ids: names the rows of a bad batch by its `index`.
        config: JSON, kept in the checkpoints; changes are told when a run goes on.
        place: puts a batch on the devices; JAX's default where None.
        checkpoint_steps: checkpoints inside an epoch too, every so many steps.
        keep: how many of the latest checkpoints stay, 2 or more.
        log_steps: steps to a row of metrics.csv.

    Raises:
        Interrupted: SIGTERM or Ctrl-C; the run was saved.
        NonFiniteLoss: names step, batch and last good checkpoint.
        WorkdirInUse, WorkdirError, CheckpointError, DataError: see there.
    """
    with Run(
        state,
        batches,
        workdir=workdir,
        num_steps=num_epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        best=best if validate else None,
        ids=ids,
        config=config,
        keep=keep,
        log_steps=log_steps,
    ) as run:
        while run.epoch < num_epochs:
            end = (run.epoch + 1) * steps_per_epoch
            while run.step < end:
                batch = run.next_batch()
                placed = batch if place is None else place(batch)
                state, metrics = update(run.state, placed, key)
                run.advance(state, metrics, batch)
                if checkpoint_steps and run.step % checkpoint_steps == 0:
                    if run.step < end:  # the epoch's own comes after its validation
                        run.save()
            run.end_epoch(validate)
        if not num_epochs:
            run.save()
        run.finish()
    return Fitted(run.state, run.history, run.best)
