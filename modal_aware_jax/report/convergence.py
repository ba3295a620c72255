"""Validation MAP by epoch: how fast methods learn, as a figure and a table."""

from collections.abc import Sequence

import numpy as np

from modal_aware_jax.report.styles import legend_beside, line_style

Curve = tuple[np.ndarray, np.ndarray]  # epochs [E], MAP [E]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of a method's seeds at the epochs that all of them have.

    >>> epochs, scores = mean_curve([([1, 2], [0.5, 0.6]), ([1, 2, 3], [0.7, 0.8, 1])])
    >>> epochs.tolist(), scores.round(3).tolist()
    ([1, 2], [0.6, 0.7])
    """
    shared = sorted(set.intersection(*(set(map(int, epochs)) for epochs, _ in curves)))
    rows = [dict(zip(map(int, e), s, strict=True)) for e, s in curves]
    means = [np.mean([row[epoch] for row in rows]) for epoch in shared]
    return np.array(shared), np.array(means)


def epochs_to_reach(curve: Curve, share: float = 0.99) -> int:
    """The first epoch whose MAP is this share of the curve's best.

    >>> epochs_to_reach(([1, 2, 3], [0.5, 0.995, 1.0]))
    2
    """
    epochs, scores = (np.asarray(part) for part in curve)
    return int(epochs[np.argmax(scores >= share * scores.max())])


def convergence_markdown(curves: dict[str, Sequence[Curve]]) -> str:
    """A row a method: epochs, the best MAP, and when 99 % of it was reached."""
    lines = [
        "| method | seeds | epochs | best validation MAP | at epoch | 99 % of it at |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, some in curves.items():
        epochs, scores = mean_curve(some)
        best = int(np.argmax(scores))
        lines.append(
            f"| {name} | {len(some)} | {epochs[-1]} | {scores[best]:.4f} | "
            f"{epochs[best]} | {epochs_to_reach((epochs, scores))} |"
        )
    return "\n".join(lines) + "\n"


def draw_convergence(curves: dict[str, Sequence[Curve]], path) -> None:
    """Mean validation MAP over epochs; a band from the lowest to the highest seed.

    Args:
        curves: of the seeds of each method, by name.
        path: of the PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    wide = 7.6 if len(curves) > 4 else 5.6
    figure = Figure(figsize=(wide, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot(
        xlabel="epoch", ylabel="MAP of the validation queries", title="Convergence"
    )
    for number, (name, some) in enumerate(curves.items()):
        epochs, scores = mean_curve(some)
        style = line_style(number, name)
        axes.plot(epochs, scores, **style)
        if len(some) > 1:
            at = [np.isin(e, epochs) for e, _ in some]
            all_seeds = [np.asarray(s)[a] for (_, s), a in zip(some, at, strict=True)]
            low, high = np.min(all_seeds, axis=0), np.max(all_seeds, axis=0)
            axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if len(curves) > 4:
        legend_beside(figure, len(curves))
    else:
        axes.legend(fontsize="small")
    figure.savefig(path, format="png")
