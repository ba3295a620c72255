"""Which classes are taken for which: a confusion matrix as a table and as a PNG."""

from collections.abc import Sequence

import numpy as np

from modal_aware_jax.report.styles import label_text

NUMBERS_UP_TO = 20  # classes; cells of more are too small for numbers


def _check(caller, matrix, names):
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape != (len(names), len(names)) or not len(names):
        raise ValueError(
            f"{caller} expects a matrix [C, C] and C class names, got shape "
            f"{matrix.shape} and {len(names)} names."
        )
    return matrix


def confusion_markdown(matrix: np.ndarray, names: Sequence[str]) -> str:
    """The matrix as a table: a row a true class, with its recall at the end.

    Args:
      matrix: [C, C] counts, of `classification.confusion_matrix`.
      names: of the C classes.

    Example:
      >>> print(confusion_markdown([[3, 1], [0, 2]], ["cat", "dog"]), end="")
      | true class | as cat | as dog | recall |
      |---|---:|---:|---:|
      | cat | 3 | 1 | .7500 |
      | dog | 0 | 2 | 1.0000 |
    """
    matrix = _check("confusion_markdown", matrix, names)
    names = [" ".join(name.split()).replace("|", "\\|") for name in names]
    lines = [
        f"| true class | {' | '.join(f'as {name}' for name in names)} | recall |",
        f"|---|{'---:|' * (len(names) + 1)}",
    ]
    for i, (name, row) in enumerate(zip(names, matrix, strict=True)):
        recall = f"{row[i] / row.sum():.4f}".removeprefix("0") if row.sum() else "–"
        lines.append(f"| {name} | {' | '.join(map(str, row))} | {recall} |")
    return "\n".join(lines) + "\n"


def draw_confusion(
    matrix: np.ndarray, names: Sequence[str], path, *, title: str = "Confusion matrix"
) -> None:
    """Cells coloured by the share of their true class, with counts and shares.

    Colour is by row, as otherwise a frequent class hides all others. A class without
    items has an empty row.

    Args:
      matrix: [C, C] counts, a row a true class.
      names: of the C classes.
      path: of the PNG.
      title: above it.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    matrix = _check("draw_confusion", matrix, names)
    count = len(names)
    total = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.maximum(total, 1)

    side = min(3.4 + 0.75 * count, 14.0)
    figure = Figure(figsize=(side + 1, side), dpi=120, layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="predicted class")
    axes.set_ylabel("true class (number of items)")
    drawn = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(
        drawn, shrink=0.8, label="share of the true class", format=PercentFormatter(1)
    )
    labels = [label_text(name) for name in names]
    small = "small" if count <= NUMBERS_UP_TO else "xx-small"
    upright = count <= 6 and max(map(len, labels)) <= 10
    axes.set_xticks(range(count), labels, fontsize=small)
    if not upright:
        for text in axes.get_xticklabels():
            text.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(
        range(count),
        [f"{name} ({n})" for name, n in zip(labels, total[:, 0], strict=True)],
        fontsize=small,
    )
    if count <= NUMBERS_UP_TO:
        for row, column in np.ndindex(count, count):
            if not total[row, 0]:
                continue
            axes.text(
                column,
                row,
                f"{matrix[row, column]}\n{share[row, column]:.0%}",
                ha="center",
                va="center",
                fontsize="small" if count <= 10 else "xx-small",
                color="white" if share[row, column] > 0.55 else "black",
            )
    figure.savefig(path, format="png")
