"""The losses of the steps just done, read without making the device wait."""

import collections
from collections.abc import Callable
from typing import Any

import jax

LAG = 2  # steps the host may be ahead of the losses it has read


class Monitor:
    """Reads each step's metrics a little later than they are asked for.

    Reading a number makes the host wait for its step; two steps later the number is
    there, and the device has had work all the time.

    Args:
        read: called with step, metrics as floats, and the batch's note, in the order
            of the steps.
    """

    def __init__(self, read: Callable[[int, dict, Any], None]):
        self._read = read
        self._unread = collections.deque()

    def add(self, step: int, metrics: dict[str, jax.Array], note: Any) -> None:
        """Takes a step's metrics, and reads those of the step before the last."""
        for value in metrics.values():
            value.copy_to_host_async()
        self._unread.append((step, metrics, note))
        self._read_down_to(LAG)

    def read_all(self) -> None:
        """Reads what is left; waits for the device."""
        self._read_down_to(0)

    def _read_down_to(self, count):
        while len(self._unread) > count:
            step, metrics, note = self._unread.popleft()
            values = jax.device_get(metrics)
            self._read(step, {name: float(v) for name, v in values.items()}, note)


class Means:
    """Means of dicts of numbers; `sums` is JSON, to go on after a restart.

    >>> means = Means()
    >>> means.add({"loss": 1.0}); means.add({"loss": 2.0}); means.take()
    {'loss': 1.5}
    """

    def __init__(self, sums: dict | None = None):
        self.sums = sums or {"count": 0}

    def add(self, values: dict[str, float]) -> None:
        self.sums["count"] += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """The means so far; starts anew."""
        sums, self.sums = self.sums, {"count": 0}
        count = sums.pop("count")
        return {name: value / count for name, value in sums.items()}
