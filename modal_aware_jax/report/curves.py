"""Precision–recall by Hamming radius or rank, precision at N, cumulative match: PNG.

matplotlib is imported when a figure is drawn; no window, no global state.
"""

import numpy as np

from modal_aware_jax.report.styles import MANY, legend_beside, line_style


def _figure(xlabel, ylabel, title):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure, axes, count, path):
    if count > 1:  # several curves are there to be told apart
        drawn = np.concatenate([line.get_ydata() for line in axes.lines])
        low, high = (drawn.min(), drawn.max()) if drawn.size else (0.0, 1.0)
        low, high = np.floor(20 * low - 0.2) / 20, np.ceil(20 * high + 0.2) / 20
        axes.set_ylim(max(low, 0.0), min(high, 1.02))
    if count > MANY:  # beside the curves, not over them
        figure.set_figwidth(8.4)
        legend_beside(figure, count)
    elif count > 1:
        axes.legend(fontsize="small", framealpha=0.8)
    figure.savefig(path, format="png")


def _styles(results):
    """(name, result, line style) of each method."""
    for i, (name, result) in enumerate(results.items()):
        yield name, result, line_style(i, name)


def draw_precision_recall(results: dict, path) -> None:
    """Precision over recall, one point a Hamming radius 0..K, pooled over queries.

    Radii that retrieve nothing relevant for any query, so that recall is 0, have no
    point.

    Args:
        results: evaluations by name, with radius_precision and radius_recall [K + 1].
        path: of the PNG.
    """
    figure, axes = _figure("recall", "precision", "Precision–recall by Hamming radius")
    for _, result, style in _styles(results):
        precision = np.asarray(result["radius_precision"])
        recall = np.asarray(result["radius_recall"])
        found = recall > 0
        some = max(1, found.sum() // 12)  # a marker at every radius hides the lines
        axes.plot(recall[found], precision[found], markevery=some, **style)
    axes.set_xlim(0, 1.02)
    _save(figure, axes, len(results), path)


def draw_precision_at(results: dict, path) -> None:
    """Precision at N over N, on a logarithmic axis.

    Args:
        results: evaluations by name, with precision_at {N: value}.
        path: of the PNG.
    """
    figure, axes = _figure("N, nearest items", "precision", "Precision at N")
    for _, result, style in _styles(results):
        ns = sorted(result["precision_at"])
        axes.plot(ns, [result["precision_at"][n] for n in ns], **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    _save(figure, axes, len(results), path)


def draw_precision_recall_by_rank(curves: dict, path, title: str) -> None:
    """Precision over recall, one point a rank.

    Args:
        curves: (precision [R], recall [R]) by name.
        path: of the PNG.
        title: of the figure.
    """
    figure, axes = _figure("recall", "precision", title)
    for i, (name, (precision, recall)) in enumerate(curves.items()):
        axes.plot(recall, precision, **line_style(i, name))
    axes.set_xlim(0, 1.02)
    _save(figure, axes, len(curves), path)


def draw_cumulative_match(curves: dict, path, title: str) -> None:
    """Share of the queries whose first right item is among the first k, over k.

    Args:
        curves: [R] by name, of the ranks 1 to R.
        path: of the PNG.
        title: of the figure.
    """
    figure, axes = _figure("rank k", "found by rank k", title)
    for i, (name, curve) in enumerate(curves.items()):
        axes.plot(np.arange(1, len(curve) + 1), curve, **line_style(i, name))
    axes.set_xlim(0.5, max(len(curve) for curve in curves.values()) + 0.5)
    _save(figure, axes, len(curves), path)
