"""All cells of a comparison in one view, in place of a bar for every one of them."""

import statistics
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from modal_aware_jax.tasks.task import Mean
from modal_aware_jax.training import progress


class CellsView:
    """Two bars on a terminal, cells and the steps of the present one; lines elsewhere.

    While it is entered, every `ProgressBar` shows itself here.

    Args:
      total: number of cells.
      done: how many were finished before.
      seconds: what finished cells took, for the time left; None where not known.
      score: what is told of a finished cell.
    """

    def __init__(self, total: int, done: int, seconds, score: Mean):
        self.total, self.done, self._score = total, done, score
        self._seconds = [second for second in seconds if second]
        self._training = None  # when it began, and the share that was done before
        self._share = 0.0
        self._cell, self._number, self._epoch = None, done, ""
        self._bars = None
        console = Console(file=sys.stdout)
        if console.is_terminal or console.is_jupyter:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                console=console,
                refresh_per_second=4,
            )
            self._all = self._bars.add_task("cells", total=total, text="")
            self._one = self._bars.add_task("", total=None, text="")

    def __enter__(self):
        self._token = progress.VIEW.set(self)
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_):
        progress.VIEW.reset(self._token)
        if self._bars is not None:
            self._bars.stop()

    def start(self, cell) -> None:
        """A cell begins."""
        self._cell, self._number, self._epoch = cell, self.done + 1, ""
        if self._bars is None:
            self._print(f"starts{self._left_text()}")
        self._show()

    def finish(self, finished) -> None:
        """The present cell is finished."""
        self.done += 1
        if finished.seconds:
            self._seconds.append(finished.seconds)
        score = f"{self._score.title} {self._score.of(finished.result):.4f}"
        self._training = None
        text = f"{score} in {finished.seconds or 0:.0f} s{self._left_text()}"
        self._print(text)
        self._show()

    def fail(self, error) -> None:
        """The present cell has failed."""
        self.done += 1
        self._training = None
        self._print(f"failed: {error}")
        self._show()

    def skip(self) -> None:
        """The present cell is in the hands of another process."""
        self.done += 1
        self._print("another process runs it")
        self._show()

    def step(self, label: str, done: int, total: int, text: str) -> None:
        """What a bar of the present cell has to show."""
        if label == "train":
            self._share = done / total
            if self._training is None:
                self._training = time.monotonic(), self._share
        if self._bars is not None:
            shown = "  ".join(filter(None, (text, self._epoch)))
            self._bars.update(
                self._one,
                description=f"{self._cell}: {label}",
                completed=done,
                total=total,
                text=shown,
            )
            self._show()

    def message(self, text: str) -> None:
        """A line of the present cell: the end of an epoch, where a run goes on."""
        if text.startswith("epoch "):
            self._epoch = text
            if self._bars is not None:
                return
        self._print(text + self._left_text())

    def seconds_left(self) -> float | None:
        """From the cells that are finished, else from the part of the present one.

        A cell's time is that of its training: maps are computed once for all cells.
        """
        spent = before = 0.0
        if self._training is not None:
            begun, before = self._training
            spent = time.monotonic() - begun
        if self._seconds:
            each = statistics.mean(self._seconds)
        elif spent and self._share - before > 0.05:
            each = spent / (self._share - before)
        else:
            return None
        return max(0.0, (self.total - self.done - before) * each - spent)

    def _left_text(self):
        left = self.seconds_left()
        if left is None:
            return ""
        minutes = round(left / 60)
        return f" ({minutes // 60}:{minutes % 60:02} h left)"

    def _print(self, text):
        line = f"[{self._number}/{self.total}] {self._cell}: {text}"
        if self._bars is None:
            print(line, flush=True)
        else:
            self._bars.print(line, markup=False, highlight=False)

    def _show(self):
        if self._bars is not None:
            text = self._left_text().strip()
            self._bars.update(self._all, completed=self.done, text=text)
