"""A run's numbers on disk: metrics.csv and TensorBoard events."""

import csv
import os
from pathlib import Path

import tensorboardX

from modal_aware_jax.training.workdir import explain_write_errors


class MetricsWriter:
    """Appends rows to metrics.csv and the same numbers to TensorBoard.

    A resumed run first drops the rows after the step it goes on from, so that each
    step stands there once. Columns appear with their first number.

    Args:
        workdir: the run's directory.
        after: the step the run goes on from; later rows are dropped.

    >>> import tempfile
    >>> workdir = tempfile.mkdtemp()
    >>> with MetricsWriter(workdir) as writer:
    ...     writer.write(1, {"loss": 0.5})
    >>> read_metrics(workdir)
    [{'step': 1.0, 'loss': 0.5}]
    """

    def __init__(self, workdir: str | os.PathLike, *, after: int = 0):
        self._path = Path(workdir) / "metrics.csv"
        rows = [row for row in read_metrics(workdir) if row["step"] <= after]
        self._columns = list(
            dict.fromkeys(["step", *(name for r in rows for name in r)])
        )
        with explain_write_errors(workdir):
            self._rewrite(rows)
        self._events = tensorboardX.SummaryWriter(
            str(Path(workdir) / "tensorboard"), purge_step=after + 1 if after else None
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._events.close()

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Adds one row: to the CSV at once, for TensorBoard with the next flush."""
        with explain_write_errors(self._path.parent):
            new = [name for name in scalars if name not in self._columns]
            if new:
                self._file.close()
                rows = read_metrics(self._path.parent)
                self._columns += new
                self._rewrite(rows)
            self._writer.writerow(_as_text({"step": step, **scalars}))
            self._file.flush()
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        """Brings TensorBoard's file up to date."""
        with explain_write_errors(self._path.parent):
            self._events.flush()

    def _rewrite(self, rows):
        temporary = self._path.with_suffix(".csv.tmp")
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(_as_text(row) for row in rows)
        temporary.replace(self._path)
        self._file = open(self._path, "a", newline="")
        self._writer = csv.DictWriter(self._file, self._columns)


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv, without their empty cells."""
    path = Path(workdir) / "metrics.csv"
    if not path.exists():
        return []
    rows = []
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            try:
                cells = {name: float(cell) for name, cell in row.items() if cell}
            except (TypeError, ValueError):
                continue  # a last line cut short by a crash
            if "step" in cells:
                rows.append(cells)
    return rows


def _as_text(row):
    return {
        k: str(int(v)) if k in ("step", "epoch") else repr(v) for k, v in row.items()
    }
