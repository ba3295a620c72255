"""The training loop: steps, validation, checkpoints, and every way it can stop."""

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from modal_aware_jax.training.checkpoint import Checkpointer
from modal_aware_jax.training.errors import DataError, Interrupted, NonFiniteLoss
from modal_aware_jax.training.metrics import MetricsWriter
from modal_aware_jax.training.monitor import Means, Monitor, is_finite
from modal_aware_jax.training.progress import ProgressBar
from modal_aware_jax.training.signals import StopNow, StopSignals
from modal_aware_jax.training.update import TrainState
from modal_aware_jax.training.workdir import lock_workdir


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
        num_epochs: how long to train.
        steps_per_epoch: after so many steps: validation and a checkpoint.
        validate: `validate(state)` gives a dict of numbers.
        best: the number of `validate` whose best checkpoint is kept.
        ids: the collection's ids: names the rows of a bad batch by its `index`.
        config: JSON, kept in the checkpoints; changes are told when a run goes on.
        place: puts a batch on the devices; JAX's default where None.
        checkpoint_steps: checkpoints inside an epoch too, every so many steps.
        keep: how many of the latest checkpoints stay; at least 2 to survive damage.
        log_steps: steps to a row of metrics.csv.

    Raises:
        Interrupted: SIGTERM or Ctrl-C; the run was saved.
        NonFiniteLoss: names step, batch and last good checkpoint.
        WorkdirInUse, WorkdirError, CheckpointError, DataError: see there.
    """
    first = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        if first:
            workdir = stack.enter_context(lock_workdir(workdir))
        workdir = Path(os.path.abspath(workdir))
        stop = stack.enter_context(StopSignals())
        checkpointer = stack.enter_context(
            Checkpointer(
                workdir / "checkpoints", keep=keep, best=best if validate else None
            )
        )
        iterator = iter(batches)
        if hasattr(iterator, "close"):
            stack.callback(iterator.close)
        run = {"epoch": 0, "best": None, "history": [], "window": None, "sums": None}
        messages = []
        restored = checkpointer.restore(state)
        if restored is not None:
            state, data, run, messages = restored
            iterator.set_state(data)
            messages += [f"Going on from step {int(state.step)} of {workdir}."]
            messages += _config_changes(run.get("config"), config)
        run["config"] = config
        window, sums = Means(run["window"]), Means(run["sums"])
        position = iterator.get_state()
        step = int(state.step)
        saved = (step, run["epoch"]) if restored is not None else None
        num_steps = num_epochs * steps_per_epoch

        bar = stack.enter_context(ProgressBar(num_steps, done=step, label="train"))
        for message in messages:
            bar.print(message)
        if run["epoch"] >= num_epochs:
            bar.print(f"{workdir} holds this run, finished at step {step}.")
            return Fitted(state, run["history"], run["best"])
        writer = None
        if first:
            writer = stack.enter_context(MetricsWriter(workdir, after=step))
        clock = _Clock()

        def last_good():
            with contextlib.suppress(Exception):
                checkpointer.wait()
            if checkpointer.last_good is None:
                return "No checkpoint was saved before."
            path = checkpointer.directory / str(checkpointer.last_good)
            return f"The last good checkpoint is {path}."

        def read(step, values, index):
            if not is_finite(values):
                raise NonFiniteLoss(
                    _non_finite_message(workdir, step, values, index, ids)
                    + f" {last_good()} Lower the learning rate or raise its warm-up, "
                    "then give the command again: it goes on from there."
                )
            window.add(values)
            sums.add(values)
            speed = clock.images_per_second()
            bar.update(step, f"loss {values['loss']:.4f} {speed:.0f} images/s")
            if step % log_steps == 0 and step % steps_per_epoch and writer:
                row = {"epoch": run["epoch"] + 1, **window.take()}
                writer.write(step, {**row, "images_per_second": speed})

        monitor = Monitor(read)

        def save(metrics=None):
            nonlocal saved
            monitor.read_all()
            if saved == (step, run["epoch"]):
                return
            if not _all_finite((state.params, state.stats, state.opt_state)):
                raise NonFiniteLoss(
                    f"The parameters hold an infinity or NaN at step {step}, though "
                    f"the loss is finite. {last_good()}"
                )
            record = {**run, "window": window.sums, "sums": sums.sums}
            checkpointer.save(step, state, data=position, run=record, metrics=metrics)
            saved = step, run["epoch"]

        def interrupt():
            save()
            checkpointer.wait()
            raise Interrupted(
                f"Stopped by {signal.Signals(stop.signum).name} at step {step} of "
                f"{num_steps}; saved in {checkpointer.directory / str(step)}. "
                "The same command goes on from there.",
                stop.signum,
            )

        def fail(work, error):
            if stop.signum is not None:  # Ctrl-C reaches reading processes too
                interrupt()
            save()
            checkpointer.wait()
            raise DataError(
                f"{work} failed: {type(error).__name__}: {error}. The run is saved at "
                f"step {step}: when the cause is mended, the same command goes on "
                "from there."
            ) from error

        for epoch in range(run["epoch"], num_epochs):
            end = (epoch + 1) * steps_per_epoch
            while step < end:
                if stop.signum is not None:
                    interrupt()
                try:
                    batch = next(iterator)
                    position = iterator.get_state()
                except StopIteration:
                    raise ValueError(
                        f"fit: the batches ended after step {step}, of {num_steps}; "
                        "expected a dataset that repeats for ever."
                    ) from None
                except Exception as error:
                    fail(f"Reading the batch of step {step + 1}", error)
                size = len(jax.tree.leaves(batch)[0])
                index = batch.get("index")
                state, metrics = update(state, place(batch) if place else batch, key)
                step += 1
                clock.count(size)
                monitor.add(step, metrics, index)
                if checkpoint_steps and step % checkpoint_steps == 0 and step < end:
                    save()
            monitor.read_all()
            speed = clock.images_per_second()
            scores = {}
            if validate is not None:
                try:
                    with stop.at_once():
                        scores = {k: float(v) for k, v in validate(state).items()}
                except StopNow:
                    interrupt()
                except OSError as error:
                    fail(f"The validation after step {step}", error)
            scores = {f"validation_{name}": value for name, value in scores.items()}
            row = {"epoch": epoch + 1, **window.take(), "images_per_second": speed}
            if writer:
                writer.write(step, {**row, **scores})
            means = sums.take()
            run["epoch"] = epoch + 1
            run["history"] += [{"epoch": epoch + 1, "step": step, **means, **scores}]
            score = scores.get(f"validation_{best}")
            if score is not None and not (
                run["best"] and run["best"]["score"] >= score
            ):
                run["best"] = {"step": step, "epoch": epoch + 1, "score": score}
            save(None if score is None else {best: score})
            numbers = {"loss": means["loss"], **scores}
            text = " ".join(f"{name} {value:.4f}" for name, value in numbers.items())
            bar.print(f"epoch {epoch + 1}/{num_epochs} {text}")
            clock.restart()
        checkpointer.wait()
    return Fitted(state, run["history"], run["best"])


class _Clock:
    """Images per second over the last steps, without validation and checkpoints."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self._marks = [(time.monotonic(), 0)]

    def count(self, images: int) -> None:
        self._marks.append((time.monotonic(), self._marks[-1][1] + images))
        del self._marks[:-50]

    def images_per_second(self) -> float:
        (start, before), (end, after) = self._marks[0], self._marks[-1]
        return (after - before) / max(end - start, 1e-9)


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in leaves]))


def _non_finite_message(workdir, step, values, index, ids) -> str:
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    bad.sort(key=lambda name: name != "loss")  # the loss first
    bad = ", ".join(f"{name} is {values[name]}" for name in bad)
    if index is None:
        return f"Step {step}: {bad}."
    names = [str(i) if ids is None else str(ids[i]) for i in index]
    with contextlib.suppress(OSError):
        (workdir / "non_finite_batch.json").write_text(json.dumps(names))
    return f"Step {step}: {bad}. The batch holds {', '.join(names)}."


def _config_changes(old: dict | None, new: dict | None) -> list[str]:
    old, new = _flat(old or {}), _flat(new or {})
    return [
        f"Changed since the checkpoint: {name}: {old.get(name)} -> {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(config: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
