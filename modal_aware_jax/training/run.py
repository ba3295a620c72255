"""A run in its directory: what it holds, how it is kept, and how it stops."""

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modal_aware_jax.training.checkpoint import Checkpointer
from modal_aware_jax.training.errors import DataError, Interrupted, NonFiniteLoss
from modal_aware_jax.training.metrics import MetricsWriter
from modal_aware_jax.training.monitor import Means, Monitor
from modal_aware_jax.training.processes import all_rows, is_first, only_first
from modal_aware_jax.training.progress import ProgressBar
from modal_aware_jax.training.reading import Reading, ReadingFailed, Signalled
from modal_aware_jax.training.signals import StopNow, StopSignals
from modal_aware_jax.training.update import TrainState
from modal_aware_jax.training.workdir import lock_workdir

_CHECKED = ("loss", "gradient_norm")


class Run:
    """The state of `fit`, which gives its arguments; restored on entering.

    Attributes:
        state: the training state; `step` is its step, known to the host.
        epoch: the epochs that are finished, validation included.
        history: a dict for each of them.
        best: step, epoch and score of the best validation so far, or None.
    """

    def __init__(
        self,
        state: TrainState,
        batches: Iterable[dict],
        *,
        workdir: str | os.PathLike,
        num_steps: int,
        steps_per_epoch: int,
        best: str | None,
        ids: Sequence[str] | None,
        config: dict | None,
        keep: int,
        log_steps: int,
    ):
        self.state, self._batches = state, batches
        self._workdir, self._num_steps, self._keep = workdir, num_steps, keep
        self._steps_per_epoch, self._log_steps = steps_per_epoch, log_steps
        self._best_name, self._ids = best, ids
        self._config = json.loads(json.dumps(config))  # as it comes back: no tuples
        self.epoch, self.history, self.best = 0, [], None
        self._saved = None  # step and epoch of the last checkpoint
        self._monitor = Monitor(self._read)

    def __enter__(self) -> "Run":
        with contextlib.ExitStack() as stack:
            lock = lock_workdir(self._workdir)
            only_first(lambda: stack.enter_context(lock) and None)
            self._workdir = Path(os.path.abspath(os.path.expanduser(self._workdir)))
            self._stop = stack.enter_context(StopSignals())
            self._checkpointer = stack.enter_context(
                Checkpointer(
                    self._workdir / "checkpoints", keep=self._keep, best=self._best_name
                )
            )
            iterator = iter(self._batches)
            if hasattr(iterator, "close"):
                stack.callback(iterator.close)
            self._reading = Reading(iterator, self._stop)
            messages = self._restore()
            self._bar = stack.enter_context(
                ProgressBar(self._num_steps, done=self.step, label="train")
            )
            for message in messages:
                self._bar.print(message)
            self._writer = None
            if is_first():
                self._writer = stack.enter_context(
                    MetricsWriter(self._workdir, after=self.step)
                )
            if self.step < self._num_steps:
                self._bar.update(self.step, "compiling", show=True)
            self._clock, self._compiling = _Clock(), True
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def _restore(self) -> list[str]:
        """Takes up the last checkpoint, if any; returns what there is to say."""
        window = sums = None
        messages = []
        restored = self._checkpointer.restore(self.state)
        if restored is not None:
            self.state, position, record, messages = restored
            self._reading.go_on_from(position)
            self.epoch, self.history = record["epoch"], record["history"]
            self.best, window, sums = record["best"], record["window"], record["sums"]
            step = int(self.state.step)
            self._check_epochs(step)
            self._saved = step, self.epoch
            messages += [f"Going on from step {step} of {self._workdir}."]
            messages += _config_changes(record["config"], self._config)
            if step >= self._num_steps and self.epoch * self._steps_per_epoch >= step:
                messages += [f"It is finished: {self._num_steps} steps were asked for."]
        self.step = int(self.state.step)
        self._window, self._sums = Means(window), Means(sums)
        return messages

    def _check_epochs(self, step: int) -> None:
        """Refuses a run whose epochs had more steps than they have now."""
        before = self.history[-1]["step"] if self.history else 0
        now = self.epoch * self._steps_per_epoch
        if before > now or step > now + self._steps_per_epoch:
            place = f"in epoch {self.epoch + 1}"
            if step == before:
                place = f"after epoch {self.epoch}"
            raise ValueError(
                f"The run in {self._workdir} is at step {step}, {place}: its epochs "
                f"had more than the {self._steps_per_epoch} steps that they have now. "
                "Go on with the batch size (config.training.batch_size) and the "
                "training pairs that it began with, or choose another --workdir."
            )

    def next_batch(self) -> dict:
        """The next batch; stops here if a signal came or the reading fails."""
        try:
            return self._reading.next()
        except Signalled as stopped:
            self._interrupt(stopped.signum)
        except ReadingFailed as failed:
            self._fail(f"Reading the batch of step {self.step + 1}", failed.error)
        except StopIteration:
            raise ValueError(
                f"fit: the batches ended after step {self.step}, of {self._num_steps}; "
                "expected a dataset that repeats for ever."
            ) from None

    def advance(self, state: TrainState, metrics: dict, batch: dict) -> None:
        """Takes the outcome of one update."""
        self.state = state
        self.step += 1
        if self._compiling:
            self._compiling = False
            self._clock.restart()
        rows = len(jax.tree.leaves(batch)[0]) * jax.process_count()
        self._monitor.add(self.step, metrics, (rows, batch.get("index")))

    def save(self, metrics: dict | None = None) -> None:
        """Writes a checkpoint in the background, never of a non-finite state."""
        self._monitor.read_all()
        if self._saved == (self.step, self.epoch):
            return
        state = self.state
        if not _all_finite((state.params, state.stats, state.opt_state)):
            raise NonFiniteLoss(
                f"The parameters hold an infinity or NaN at step {self.step}, though "
                f"the loss is finite. {self._last_good()}"
            )
        if self._writer:
            self._writer.flush()
        record = {
            "epoch": self.epoch,
            "history": self.history,
            "best": self.best,
            "window": self._window.sums,
            "sums": self._sums.sums,
            "config": self._config,
        }
        self._checkpointer.save(
            self.step,
            state,
            data=self._reading.position,
            run=record,
            metrics=metrics,
        )
        self._saved = self.step, self.epoch
        self._clock.restart()

    def end_epoch(self, validate: Callable | None) -> None:
        """Validates, writes the epoch's row, and saves."""
        self._monitor.read_all()
        speed = self._clock.images_per_second()
        scores = self._validate(validate) if validate else {}
        self.epoch += 1
        row = {"epoch": self.epoch, **self._window.take()}
        if speed is not None:
            row["images_per_second"] = speed
        if self._writer:
            self._writer.write(self.step, {**row, **scores})
        numbers = {**self._sums.take(), **scores}
        self.history += [{"epoch": self.epoch, "step": self.step, **numbers}]
        score = scores.get(f"validation_{self._best_name}")
        if score is not None and not (self.best and self.best["score"] >= score):
            self.best = {"step": self.step, "epoch": self.epoch, "score": score}
        self.save(None if score is None else {self._best_name: score})
        shown = {"loss": numbers["loss"], **scores}
        text = " ".join(f"{name} {value:.4f}" for name, value in shown.items())
        self._bar.print(
            f"epoch {self.epoch}/{self._num_steps // self._steps_per_epoch} {text}"
        )
        self._clock.restart()

    def finish(self) -> None:
        """Returns when the last checkpoint is on disk."""
        self._checkpointer.wait()

    def _validate(self, validate) -> dict[str, float]:
        # One of several processes must not leave what they do together: there the
        # next step hears of the signal.
        alone = jax.process_count() == 1
        try:
            with self._stop.at_once() if alone else contextlib.nullcontext():
                scores = validate(self.state)
        except StopNow:
            self._interrupt(self._stop.signum)
        except OSError as error:
            work = f"The validation after step {self.step}"
            if alone:
                self._fail(work, error)
            raise DataError(  # the others do not know: nothing can be saved together
                f"{work} failed: {type(error).__name__}: {error}. {self._last_good()} "
                "When the cause is mended, the same command goes on from there."
            ) from error
        return {f"validation_{name}": float(value) for name, value in scores.items()}

    def _read(self, step, values, note) -> None:
        """Called with every step's numbers, a little later than the step."""
        rows, index = note
        self._clock.count(rows)
        checked = [values[name] for name in _CHECKED if name in values]
        if not all(map(math.isfinite, checked)):
            raise NonFiniteLoss(
                f"{self._describe_bad_step(step, values, index)} {self._last_good()} "
                "Lower the learning rate or lengthen its warm-up, then give the "
                "command again: it goes on from there."
            )
        self._window.add(values)
        self._sums.add(values)
        speed = self._clock.images_per_second()
        self._bar.update(step, f"loss {values['loss']:.4f} {speed:.0f} images/s")
        ends_epoch = step % self._steps_per_epoch == 0  # its row has the validation
        if step % self._log_steps == 0 and not ends_epoch and self._writer:
            row = {"epoch": self.epoch + 1, **self._window.take()}
            self._writer.write(step, {**row, "images_per_second": speed})

    def _describe_bad_step(self, step, values, index) -> str:
        bad = [n for n in _CHECKED if n in values and not math.isfinite(values[n])]
        text = f"Step {step}: {', '.join(f'{name} is {values[name]}' for name in bad)}."
        if index is None:
            return text
        index = all_rows(np.asarray(index))
        names = [str(i if self._ids is None else self._ids[i]) for i in index]
        with contextlib.suppress(OSError):
            path = self._workdir / "non_finite_batch.json"
            path.write_text(json.dumps({"step": step, "ids": names}))
        return f"{text} The batch holds {', '.join(names)}."

    def _last_good(self) -> str:
        with contextlib.suppress(Exception):  # the message at hand matters more
            self._checkpointer.wait()
        if self._checkpointer.last_good is None:
            return "No checkpoint was saved before."
        path = self._checkpointer.directory / str(self._checkpointer.last_good)
        return f"The last good checkpoint is {path}."

    def _interrupt(self, signum) -> None:
        self.save()
        self.finish()
        raise Interrupted(
            f"Stopped by {signal.Signals(signum).name} at step {self.step} "
            f"of {self._num_steps}; saved in "
            f"{self._checkpointer.directory / str(self.step)}. The same command goes "
            "on from there.",
            signum,
        )

    def _fail(self, work, error) -> None:
        alone = jax.process_count() == 1
        if alone and self._stop.signum is not None:  # Ctrl-C reaches readers too
            self._interrupt(self._stop.signum)
        self.save()
        self.finish()
        reason = "in another process"
        if error is not None:
            reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{work} failed: {reason}. The run is saved at step "
            f"{self.step}: when the cause is mended, the same command goes on from "
            "there."
        ) from error


class _Clock:
    """Images per second over the last steps, without validation and checkpoints.

    Steps are counted when the device is done with them: it is told of the first few at
    once, which would be any number of images a second.
    """

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self._marks = [(time.monotonic(), 0)]

    def count(self, images: int) -> None:
        self._marks.append((time.monotonic(), self._marks[-1][1] + images))
        del self._marks[:-50]

    def images_per_second(self) -> float | None:
        """None where no step was counted since the start."""
        (start, before), (end, after) = self._marks[0], self._marks[-1]
        return (after - before) / max(end - start, 1e-9) if after > before else None


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in leaves]))


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
            flat[prefix + name] = value
    return flat
