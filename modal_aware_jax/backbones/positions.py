"""Position embeddings of an image's patches, carried over to other image sizes."""

import jax
import jax.numpy as jnp
import numpy as np


def resize_positions(
    positions: jax.Array, old: tuple[int, int], new: tuple[int, int]
) -> jax.Array:
    """Bicubic interpolation of a grid of embeddings.

    The kernel is PyTorch's, Keys' with a = -0.75, without a low-pass where the grid
    shrinks, so that pretrained weights give what the transformers library gives;
    `jax.image.resize` has a = -0.5.

    Args:
      positions: [h * w, D], row by row.
      old: (h, w).
      new: (h', w') of the image's patches.

    Returns:
      [h' * w', D].

    >>> resize_positions(jnp.ones((4, 3)), (2, 2), (3, 5)).shape
    (15, 3)
    """
    if old == new:
        return positions
    rows, columns = (
        cubic_weights(before, after) for before, after in zip(old, new, strict=True)
    )
    grid = positions.reshape(*old, -1)  # [h, w, D]
    precise = jax.lax.Precision.HIGHEST  # a few thousand products: never the bottleneck
    grid = jnp.einsum("ah,hwd->awd", rows, grid, precision=precise)
    grid = jnp.einsum("bw,awd->abd", columns, grid, precision=precise)
    return grid.reshape(new[0] * new[1], -1)


def cubic_weights(old: int, new: int, a: float = -0.75) -> np.ndarray:
    """Weights [new, old] of a cubic interpolation between points, float32.

    R. Keys: Cubic convolution interpolation for digital image processing, IEEE
    Transactions on Acoustics, Speech, and Signal Processing 29(6), 1981. Points lie in
    the middle of their cells; beyond the ends the last point is repeated.

    >>> cubic_weights(2, 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    at = (np.arange(new) + 0.5) * (old / new) - 0.5
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        index = np.floor(at) + tap
        x = np.abs(at - index)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        column = np.clip(index, 0, old - 1).astype(int)
        np.add.at(weights, (np.arange(new), column), np.where(x <= 1, near, far))
    return weights.astype(np.float32)
