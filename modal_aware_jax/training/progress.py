"""What a waiting user sees: a bar on a terminal, plain lines anywhere else."""

import contextvars
import sys
import time

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

# A view of several runs, in which the bars of each of them show themselves: an object
# with `step(label, done, total, text)` and `message(text)`.
VIEW = contextvars.ContextVar("VIEW", default=None)


class ProgressBar:
    """Counts steps, with a text such as the loss and the images per second.

    Of several processes the first one shows it.

    Args:
        total: the number of steps of the whole run.
        done: the steps done before.
        label: what stands at the left of the bar.
        every: seconds between two lines where there is no terminal.

    >>> with ProgressBar(3, label="train", every=0) as bar:
    ...     bar.update(3, "loss 0.5")
    train 3/3 loss 0.5
    """

    def __init__(self, total: int, *, done: int = 0, label: str, every: float = 15.0):
        # In a notebook a bar would need ipywidgets, and warns without; nor is it a
        # terminal, though its kernel asks rich for colours: plain lines do.
        self._console = Console(file=sys.stdout, force_jupyter=False)
        self._label, self._total, self._done, self._every = label, total, done, every
        self._start, self._first = None, done
        self._shown = time.monotonic() - every
        self._bar, self._view = None, VIEW.get()
        self._silent = jax.process_index() > 0
        if self._silent:
            return
        if self._view is not None:
            return
        if self._console.is_terminal and sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                console=self._console,
                refresh_per_second=4,
                speed_estimate_period=120,
            )
            self._task = self._bar.add_task(label, total=total, completed=done, text="")

    def __enter__(self):
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, text: str = "", *, show: bool = False) -> None:
        """Moves to `done` steps; `show` prints the plain line at once."""
        now = time.monotonic()
        if self._start is None and done > self._done:
            self._start, self._first = now, done  # what came before was compiling
        self._done = done
        if self._view is not None:
            self._view.step(self._label, done, self._total, text)
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=text)
            return
        if self._silent:
            return
        if show or now - self._shown >= self._every or done == self._total:
            self._shown = now
            left = self._time_left(now)
            print(f"{self._label} {done}/{self._total} {text}{left}", flush=True)

    def advance(self, count: int) -> None:
        """Moves on by `count`."""
        self.update(self._done + count)

    def print(self, message: str) -> None:
        """A line of its own, above the bar."""
        if self._view is not None:
            self._view.message(message)
        elif self._bar is not None:
            self._bar.print(message, markup=False, highlight=False)
        elif not self._silent:
            print(message, flush=True)

    def _time_left(self, now: float) -> str:
        if self._start is None or self._done in (self._first, self._total):
            return ""
        each = (now - self._start) / (self._done - self._first)
        minutes, seconds = divmod(round(each * (self._total - self._done)), 60)
        hours, minutes = divmod(minutes, 60)
        return f" {hours}:{minutes:02}:{seconds:02} left"
