"""A convolution read as a sum over its kernel's elements ("taps").

XLA's CPU backend is 10 to 100 times slower than its hardware for two kinds of
convolution (`depthwise.py`, `small_maps.py`). Both are fast as a sum over the nine
elements of the kernel, each meeting a shifted copy of the input.
"""

import jax
from jax import lax


def explicit_padding(shape, kernel_shape, strides, padding):
    """((top, bottom), (left, right)) of [B, H, W, C] for any of lax's spellings."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(shape[1:3], kernel_shape[:2], strides, padding)
    return tuple((int(low), int(high)) for low, high in padding)


def output_size(shape, kernel_shape, strides, padding):
    """Height and width of the convolution's output maps."""
    return tuple(
        (size + low + high - kernel) // stride + 1
        for size, kernel, stride, (low, high) in zip(
            shape[1:3], kernel_shape[:2], strides, padding, strict=True
        )
    )


def tap(x: jax.Array, offset, kernel_shape, strides, padding, fill=0) -> jax.Array:
    """What the kernel element at `offset` meets at each output position.

    Args:
      x: maps [B, H, W, C].
      offset: row and column inside the kernel.
      kernel_shape: height and width of the kernel, first.
      strides: of rows and columns.
      padding: explicit, ((top, bottom), (left, right)).
      fill: what the padding is made of.

    Returns:
      [B, h, w, C]: x shifted, filled up where it meets the padding, and strided.
    """
    sizes = output_size(x.shape, kernel_shape, strides, padding)
    borders = [(0, 0, 0)]
    for at, size, out, stride, (low, _) in zip(
        offset, x.shape[1:3], sizes, strides, padding, strict=True
    ):
        before = low - at
        borders.append((before, (out - 1) * stride + 1 - size - before, 0))
    x = lax.pad(x, x.dtype.type(fill), [*borders, (0, 0, 0)])
    return x[:, :: strides[0], :: strides[1]]


def spread(g: jax.Array, offset, shape, strides, padding) -> jax.Array:
    """The transpose of `tap`: puts each output position back where it came from.

    Args:
      g: a gradient of the output maps [B, h, w, C].
      offset, strides, padding: as in `tap`.
      shape: of the input maps.

    Returns:
      [B, H, W, C], zero where this kernel element meets nothing.
    """
    borders = [(0, 0, 0)]
    for at, size, out, stride, (low, _) in zip(
        offset, shape[1:3], g.shape[1:3], strides, padding, strict=True
    ):
        before = at - low
        after = size - ((out - 1) * stride + 1) - before
        borders.append((before, after, stride - 1))
    return lax.pad(g, g.dtype.type(0), [*borders, (0, 0, 0)])
