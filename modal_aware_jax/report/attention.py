"""Attention drawn over photographs: what each network looks at, side by side."""

import numpy as np
from PIL import Image

from modal_aware_jax.report.styles import line_style


def overlay(photo: np.ndarray, weights: np.ndarray, colours) -> np.ndarray:
    """Weights of positions as colours over a greyed photograph.

    Args:
        photo: uint8 [H, W, 3].
        weights: [h, w]; the smallest and the largest take the ends of the colours.
        colours: matplotlib's map from 0..1 to colours.

    Returns:
        uint8 [H, W, 3].
    """
    low, high = float(weights.min()), float(weights.max())
    unit = (weights - low) / (high - low) if high > low else np.zeros_like(weights)
    size = photo.shape[1], photo.shape[0]
    large = Image.fromarray(unit.astype(np.float32)).resize(
        size, Image.Resampling.BICUBIC
    )
    tint = colours(np.clip(np.asarray(large), 0, 1))[..., :3] * 255
    grey = photo.mean(axis=-1, keepdims=True)
    return (0.45 * grey + 0.55 * tint).clip(0, 255).astype(np.uint8)


def draw_attention(
    photos: np.ndarray, captions: list[str], networks: dict, path, *, title: str
) -> None:
    """A row a photograph; for each network where it looks, and the gates of channels.

    "positions" are the kernel network's weights of positions, "channels" the mean size
    of the maps behind the gates; below each the range that the colours span. The last
    column has the gates in descending order.

    Args:
        photos: uint8 [n, H, W, 3].
        captions: the text that was read with each.
        networks: {name: `models.attention.BlockAttention` of NumPy arrays}.
        path: of the PNG.
        title: of the figure.
    """
    import matplotlib
    from matplotlib.figure import Figure

    colours = matplotlib.colormaps["viridis"]
    columns = []
    for name, found in networks.items():
        if found.positions is not None:
            columns.append((f"{name}:\npositions", found.positions))
        if found.gated is not None:
            columns.append((f"{name}:\nchannels", found.gated))
    gates = {n: f.gates for n, f in networks.items() if f.gates is not None}
    width = 2 + len(columns)
    figure = Figure(
        figsize=(1.75 * width + 0.6, 1.95 * len(photos) + 0.7),
        dpi=120,
        layout="constrained",
    )
    figure.suptitle(title, fontsize="medium")
    grid = figure.subplots(
        len(photos), width, squeeze=False, width_ratios=[*[1] * (width - 1), 1.25]
    )
    for row, photo in enumerate(photos):
        _show(grid[row, 0], photo, _short(captions[row]))
        for axes, (name, weights) in zip(grid[row, 1:-1], columns, strict=True):
            own = np.asarray(weights[row], float)
            span = f"{own.min():.3g} to {own.max():.3g}"
            _show(axes, overlay(photo, own, colours), span)
            if row == 0:
                axes.set_title(name, fontsize="small")
        axes = grid[row, -1]
        for number, (name, values) in enumerate(gates.items()):
            style = {**line_style(number, name), "marker": None}
            axes.plot(np.sort(np.asarray(values[row]))[::-1], **style)
        axes.tick_params(labelsize="x-small")
        if row == 0:
            axes.set_title("gates, sorted", fontsize="small")
            if gates:
                axes.legend(fontsize="x-small")
    grid[-1, -1].set_xlabel("channel", fontsize="x-small")
    figure.savefig(path, format="png")


def _show(axes, picture, text):
    axes.imshow(picture)
    axes.set_xlabel(text, fontsize="x-small")
    axes.set_xticks([])
    axes.set_yticks([])


def _short(caption, length=30):
    """A caption for below a thumbnail: two short lines at most."""
    words, lines = caption.replace("$", r"\$").split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > length and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word[:length]}".strip()
    more = "…" if len(lines) > 2 else ""
    return "\n".join(lines[:2]) + more
