"""Counts, latencies and memory in Prometheus's text format."""

import bisect
import pathlib
import resource
import sys
from collections.abc import Callable, Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32)


class Histogram:
    """How many values lie at or below each of some bounds, with count and sum.

    >>> seconds = Histogram("wait_seconds", "Time to wait.", (0.1, 1.0))
    >>> seconds.add(0.5, what="tea")
    >>> print("\\n".join(seconds.lines()))
    # HELP wait_seconds Time to wait.
    # TYPE wait_seconds histogram
    wait_seconds_bucket{what="tea",le="0.1"} 0
    wait_seconds_bucket{what="tea",le="1.0"} 1
    wait_seconds_bucket{what="tea",le="+Inf"} 1
    wait_seconds_sum{what="tea"} 0.5
    wait_seconds_count{what="tea"} 1
    """

    def __init__(self, name: str, about: str, bounds: Sequence[float]):
        self.name, self.about, self.bounds = name, about, tuple(bounds)
        self._rows: dict = {}

    def add(self, value: float, **labels: str) -> None:
        """Counts a value."""
        row = self._rows.setdefault(
            tuple(labels.items()), [[0] * (len(self.bounds) + 1), 0.0]
        )
        row[0][bisect.bisect_left(self.bounds, value)] += 1
        row[1] += value

    def lines(self) -> list[str]:
        """The lines of its text."""
        lines = _head(self.name, self.about, "histogram")
        for labels, (counts, total) in self._rows.items():
            seen = 0
            for bound, count in zip((*self.bounds, "+Inf"), counts, strict=True):
                seen += count
                at = _labels((*labels, ("le", str(bound))))
                lines.append(f"{self.name}_bucket{at} {seen}")
            lines.append(f"{self.name}_sum{_labels(labels)} {total}")
            lines.append(f"{self.name}_count{_labels(labels)} {seen}")
        return lines


class Counter:
    """How often something was."""

    def __init__(self, name: str, about: str):
        self.name, self.about = name, about
        self._rows: dict = {}

    def add(self, **labels: str) -> None:
        """Counts one."""
        key = tuple(labels.items())
        self._rows[key] = self._rows.get(key, 0) + 1

    def lines(self) -> list[str]:
        """The lines of its text."""
        rows = [f"{self.name}{_labels(x)} {count}" for x, count in self._rows.items()]
        return _head(self.name, self.about, "counter") + rows


class Gauge:
    """A value that is asked for when it is read."""

    def __init__(self, name: str, about: str, value: Callable[[], float]):
        self.name, self.about, self.value = name, about, value

    def lines(self) -> list[str]:
        """The lines of its text."""
        return [*_head(self.name, self.about, "gauge"), f"{self.name} {self.value()}"]


def render(metrics) -> str:
    """The text of several metrics."""
    return "\n".join(line for metric in metrics for line in metric.lines()) + "\n"


def resident_bytes() -> int:
    """Memory of this process; where the system does not tell, the most it ever had."""
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def _head(name, about, kind):
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]


def _labels(labels):
    """Labels in braces; what stands in quotes is escaped."""
    if not labels:
        return ""
    escaped = (
        (name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for name, value in labels
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
