"""How long methods take to encode: medians of alternating calls."""

import statistics
import time
from collections.abc import Callable


def alternating_medians(
    calls: dict[str, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each call; all are called once a round, after a first one.

    Whatever else the machine does at a time so meets all calls alike.

    Args:
      calls: by name; each returns when its work is done.
      rounds: how often each is timed.
      clock: gives seconds.
    """
    for call in calls.values():
        call()  # compiles
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            call()
            seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def latency_rows(medians: dict[int, dict[str, float]]) -> list[dict]:
    """A row a method: milliseconds and pairs a second at each batch size.

    Args:
      medians: seconds by batch size and method.

    >>> latency_rows({1: {"ours": 0.01}, 100: {"ours": 0.5}})[0]["pairs/s at 100"]
    200.0
    """
    names = list(next(iter(medians.values())))
    return [
        {
            "method": name,
            **{f"ms at {size}": 1e3 * by[name] for size, by in medians.items()},
            **{f"pairs/s at {size}": size / by[name] for size, by in medians.items()},
        }
        for name in names
    ]


def latency_markdown(rows: list[dict], *, note: str) -> str:
    """The rows as Markdown below a note on what was timed and where."""
    header = list(rows[0])
    lines = [
        note,
        "",
        f"| {' | '.join(header)} |",
        "|---|" + "---:|" * (len(header) - 1),
    ]
    for row in rows:
        cells = [
            f"{value:.1f}" if isinstance(value, float) else value
            for value in row.values()
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
