"""A cross-modal graph drawn over a photograph and its words, and its edges as a table.

Edges are those of `CrossModalGraph.edge_weights`, of one pair: row u says how much node
u reads of each node, the M patches first, row by row, and then the S words. Weights of
patches in a word's row need not sum to 1: the rest is what it reads of the words.
"""

import csv
import os
import textwrap
from collections.abc import Sequence

import numpy as np

from modal_aware_jax.report.attention import overlay
from modal_aware_jax.report.styles import COLOURS, legend_text

COLUMNS = ("layer", "head", "reader", "reader_kind", "source", "source_kind", "weight")
WORDS_IN_A_ROW = 6


def words_and_patches(
    edges: Sequence[np.ndarray],
    num_patches: int,
    *,
    layer: int | None = None,
    head: int | None = None,
    reader: str = "word",
) -> np.ndarray:
    """Edges between words and patches, float64 [S, M].

    Args:
      edges: of each layer, [n, n] or of several heads [heads, n, n], n = M + S.
      num_patches: M.
      layer: from 0; None for the mean over layers.
      head: from 0; None for the mean over heads.
      reader: 'word' for how much each word reads of each patch, 'patch' for how much
        each patch reads of each word; both by word and patch.

    Raises:
      ValueError: there is no such layer, head or reader, or edges do not fit.

    Example:
      >>> edges = np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25]])
      >>> words_and_patches([edges], 2).tolist()
      [[0.5, 0.25]]
      >>> words_and_patches([edges], 2, reader="patch").tolist()
      [[0.7, 0.4]]
    """
    table = _by_layer_and_head(edges, num_patches, "words_and_patches")
    for name, chosen, axis in (("layer", layer, 0), ("head", head, 1)):
        count = table.shape[axis]
        if chosen is not None and not 0 <= chosen < count:
            raise ValueError(
                f"words_and_patches: {name} {chosen} of {count}: the first is 0, and "
                "None takes the mean."
            )
        kept = slice(None) if chosen is None else slice(chosen, chosen + 1)
        table = table[kept] if axis == 0 else table[:, kept]
    weights = table.mean(axis=(0, 1))  # [n, n]
    if reader == "word":
        return weights[num_patches:, :num_patches]
    if reader == "patch":
        return weights[:num_patches, num_patches:].T
    raise ValueError(
        f"words_and_patches: reader must be 'word' or 'patch', got {reader!r}."
    )


def edge_rows(
    edges: Sequence[np.ndarray], grid: tuple[int, int], words: Sequence[str]
) -> list[dict]:
    """All edges as rows of a table, those of weight 0 left out.

    Args:
      edges: as in `words_and_patches`.
      grid: rows and columns of the patches.
      words: S texts.

    Returns:
      Dicts of `COLUMNS`: layers and heads from 0; a patch is 'row,column' from 0, a
      word 'position:word'.

    Example:
      >>> edges = np.array([[0.0, 1.0], [0.25, 0.75]])
      >>> [list(row.values()) for row in edge_rows([edges], (1, 1), ["sea"])][0]
      [0, 0, '0,0', 'patch', '0:sea', 'word', 1.0]
    """
    patches = [f"{row},{column}" for row, column in np.ndindex(*grid)]
    names = patches + [f"{i}:{word}" for i, word in enumerate(words)]
    kinds = ["patch"] * len(patches) + ["word"] * len(words)
    table = _by_layer_and_head(edges, len(patches), "edge_rows", len(names))
    rows = []
    for layer, head, u, v in np.argwhere(table > 0).tolist():
        weight = float(table[layer, head, u, v])
        told = layer, head, names[u], kinds[u], names[v], kinds[v], weight
        rows.append(dict(zip(COLUMNS, told, strict=True)))
    return rows


def write_edges(
    path: str | os.PathLike,
    edges: Sequence[np.ndarray],
    grid: tuple[int, int],
    words: Sequence[str],
) -> None:
    """Writes `edge_rows` as CSV, weights with six digits."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in edge_rows(edges, grid, words):
            writer.writerow({**row, "weight": f"{row['weight']:.6g}"})


def draw_graph(
    photo: np.ndarray,
    grid: tuple[int, int],
    words: Sequence[str],
    weights: np.ndarray,
    path: str | os.PathLike,
    *,
    title: str = "",
    patches_of_a_word: int = 2,
) -> None:
    """Draws which patches belong to which words: lines from each, and heat for each.

    Above, the photograph with its patches outlined, the words beside it, and a line
    from each word to its strongest patches, as strong as the edge is among all drawn.
    Below, for each word its weights over the photograph; the colours of each span its
    own range, which is told.

    Args:
      photo: uint8 [H, W, 3].
      grid: rows and columns of the patches, M together.
      words: S texts.
      weights: [S, M], as `words_and_patches` gives them.
      path: of the PNG.
      title: of the figure.
      patches_of_a_word: so many lines from each word.
    """
    import matplotlib
    from matplotlib.figure import Figure

    weights = np.asarray(weights, float)
    if weights.shape != (len(words), grid[0] * grid[1]) or not weights.size:
        raise ValueError(
            f"draw_graph: expected weights [{len(words)}, {grid[0] * grid[1]}] of "
            f"{len(words)} words and {grid[0]} x {grid[1]} patches, got "
            f"{weights.shape}. words_and_patches gives them."
        )
    rows = -(-len(words) // WORDS_IN_A_ROW)
    tall = max(3.4, 0.24 * len(words) + 0.4)
    figure = Figure(figsize=(8, tall + 1.55 * rows), dpi=110, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[tall, 1.55 * rows])
    if title:
        lines = textwrap.wrap(legend_text(title), 90)
        above.suptitle("\n".join(lines[:3]), fontsize="medium")
    _draw_lines(above.subplots(), photo, grid, words, weights, patches_of_a_word)
    colours = matplotlib.colormaps["viridis"]
    cells = below.subplots(rows, WORDS_IN_A_ROW, squeeze=False)
    for number, axes in enumerate(cells.flat):
        axes.set_axis_off()
        if number < len(words):
            own = weights[number].reshape(grid)
            axes.imshow(overlay(photo, own, colours))
            span = f"{own.min():.2g} to {own.max():.2g}"
            text = f"{legend_text(words[number])}\n{span}"
            axes.set_title(text, fontsize="x-small")
    figure.savefig(path, format="png")


def _draw_lines(axes, photo, grid, words, weights, patches_of_a_word):
    """The photograph, its patches, and lines from the words beside it."""
    height, width = photo.shape[:2]
    axes.imshow(photo, extent=(0, width, height, 0))
    down, across = height / grid[0], width / grid[1]
    for row in range(1, grid[0]):
        axes.axhline(row * down, 0, 1, color="white", linewidth=0.4, alpha=0.6)
    for column in range(1, grid[1]):
        axes.axvline(column * across, color="white", linewidth=0.4, alpha=0.6)
    strongest = weights.max() or 1.0
    left = 1.25 * width
    for number, (word, own) in enumerate(zip(words, weights, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        y = height * (number + 0.5) / len(words)
        axes.text(left, y, legend_text(word), va="center", color=colour, fontsize=9)
        for patch in np.argsort(-own, kind="stable")[:patches_of_a_word]:
            row, column = divmod(int(patch), grid[1])
            share = own[patch] / strongest
            style = {"color": colour, "alpha": 0.15 + 0.85 * share, "clip_on": False}
            x = (column + 0.5) * across
            axes.plot(
                [x, left - 0.02 * width],
                [(row + 0.5) * down, y],
                linewidth=0.4 + 2.2 * share,
                **style,
            )
            corner = column * across, row * down
            axes.add_patch(_outline(corner, across, down, style))
    axes.set_xlim(0, 2 * width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()


def _outline(corner, across, down, style):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, across, down, fill=False, linewidth=1.6, **style)


def _by_layer_and_head(edges, num_patches, caller, num_nodes=None):
    """Edges [layers, heads, n, n]; ValueError where they do not fit."""
    layers = [np.asarray(layer, float) for layer in edges]
    layers = [layer[None] if layer.ndim == 2 else layer for layer in layers]
    shapes = {layer.shape for layer in layers}
    shape = shapes.pop() if len(shapes) == 1 else ()
    if (
        len(shape) != 3
        or shape[1] != shape[2]
        or shape[1] < num_patches
        or num_nodes not in (None, shape[1])
    ):
        wanted = f"{num_nodes} nodes" if num_nodes else f"{num_patches} patches first"
        raise ValueError(
            f"{caller}: expected edges [n, n] or [heads, n, n] of each layer, with "
            f"{wanted}, got {[np.shape(layer) for layer in edges]}. Take one pair of "
            "a batch, without padding."
        )
    return np.stack(layers)  # [layers, heads, n, n]
