"""3x3 convolution with 2.25 times fewer products, where a CPU gains by it.

Winograd's F(2x2, 3x3) (arXiv:1509.09308, section 4.1) reads each 2x2 patch of the
output from the 4x4 patch of the input that it depends on. Written d, g and y, with k
the 3x3 kernel,

    y = A^T [(G k G^T) * (B^T d B)] A

elementwise in the 16 positions and a matrix product over the channels: 16 products of
[B h w / 4, C] and [C, features] in place of 9 four times as long, and the gradients
are of the same form. XLA's CPU backend does those products at nearly full speed; the
transforms are sums of shifted maps that cost the rest of what is gained where channels
are few (`benchmarks/cpu_rules.py`). In float32 the result is as exact as the direct
sum; in bfloat16 it would not be.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from modal_aware_jax.backbones.small_maps import is_plain, small_map_conv
from modal_aware_jax.backbones.taps import explicit_padding

B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
MIRRORED = 3, 1, 2, 0  # the rows of G for a kernel in reverse

MIN_FEATURES = 64


def winograd_conv(x, kernel, strides, padding, **options):
    """Drop-in for `lax.conv_general_dilated` in `nnx.Conv`.

    Applies on CPU to float32 convolutions 3x3 of stride 1 with one pixel of padding
    and at least 64 channels on both sides; all others go to `small_map_conv`.

    Args:
      x: maps [B, H, W, C].
      kernel: [kh, kw, C, features].
      strides: of rows and columns.
      padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).
      **options: the other arguments that `nnx.Conv` passes.

    Returns:
      Maps [B, h, w, features].

    >>> from flax import nnx
    >>> conv = nnx.Conv(128, 128, (3, 3), conv_general_dilated=winograd_conv,
    ...                 rngs=nnx.Rngs(0))
    >>> conv(jnp.ones((1, 7, 7, 128))).shape
    (1, 7, 7, 128)
    """
    if _gains(x, kernel, strides, padding, options):
        return _conv(x, kernel)
    return small_map_conv(x, kernel, strides, padding, **options)


def _gains(x, kernel, strides, padding, options):
    return (
        x.ndim == 4
        and kernel.shape[:2] == (3, 3)
        and x.dtype == kernel.dtype == jnp.float32
        and min(kernel.shape[2:]) >= MIN_FEATURES
        and min(x.shape[1:3]) > 3
        and tuple(strides) == (1, 1)
        and explicit_padding(x.shape, kernel.shape, strides, padding) == ((1, 1),) * 2
        and is_plain(x, kernel, **options)
    )


@jax.custom_vjp
def _conv(x, kernel):
    return lax.platform_dependent(x, kernel, cpu=_winograd, default=_native)


def _forward(x, kernel):
    return _conv(x, kernel), (x, kernel)


def _backward(residuals, g):
    # Without the barrier XLA would keep the forward pass's patches for the kernel's
    # gradient: four times the memory of the maps.
    *residuals, g = lax.optimization_barrier((*residuals, g))
    return lax.platform_dependent(
        *residuals, g, cpu=_winograd_gradients, default=_native_gradients
    )


_conv.defvjp(_forward, _backward)


def _native(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _native_gradients(x, kernel, g):
    return jax.vjp(_native, x, kernel)[1](g)


def _winograd(x, kernel):
    factors = _sandwich(G, kernel)
    products = [
        [patches @ factor for patches, factor in zip(*rows, strict=True)]
        for rows in zip(_patches(x), factors, strict=True)
    ]
    return _join(products, x.shape)


def _winograd_gradients(x, kernel, g):
    return _gradient_of_maps(kernel, g), _gradient_of_kernel(x, g)


def _gradient_of_maps(kernel, g):
    """The convolution of g with the kernel turned around and transposed."""
    factors = _sandwich(G, kernel)
    patches = _patches(g)
    products = [
        [patches[i][j] @ factors[MIRRORED[i]][MIRRORED[j]].T for j in range(4)]
        for i in range(4)
    ]
    return _join(products, g.shape)


def _gradient_of_kernel(x, g):
    """Every transform and product of the forward pass transposed."""
    patches = _patches(x)
    cotangents = _sandwich(A_T.T, _slices(g, 0, 2))
    products = [
        [patch.T @ _flat(cotangent) for patch, cotangent in zip(*rows, strict=True)]
        for rows in zip(patches, cotangents, strict=True)
    ]
    return jnp.stack([jnp.stack(row) for row in _sandwich(G.T, products)])


def _patches(x):
    """B^T d B of all 4x4 patches d of [B, H, W, C], a 4x4 grid of [B h w, C]."""
    grid = _sandwich(B_T, _slices(x, 1, 4))
    return lax.optimization_barrier([[_flat(patch) for patch in row] for row in grid])


def _slices(x, before, size):
    """Element (i, j) of each patch, a grid of [B, h, w, C] for h x w patches.

    Patches of `size` x `size` begin every two pixels, the first `before` the map.
    """
    counts = _patch_counts(x.shape)
    borders = [
        (before, 2 * (count - 1) + size - before - length, 0)
        for count, length in zip(counts, x.shape[1:3], strict=True)
    ]
    x = lax.pad(x, x.dtype.type(0), [(0, 0, 0), *borders, (0, 0, 0)])
    rows, columns = (2 * count - 1 for count in counts)
    return [
        [x[:, i : i + rows : 2, j : j + columns : 2] for j in range(size)]
        for i in range(size)
    ]


def _patch_counts(shape):
    """Rows h and columns w of the 2x2 patches that cover [B, H, W, C]."""
    return tuple(-(-size // 2) for size in shape[1:3])


def _flat(maps):
    return maps.reshape(-1, maps.shape[-1])


def _join(products, shape):
    """A^T y A of a 4x4 grid of [B h w, features], cut to the H x W of a shape."""
    (h, w), features = _patch_counts(shape), products[0][0].shape[-1]
    grid = [[y.reshape(shape[0], h, w, features) for y in row] for row in products]
    rows = [jnp.stack(row, axis=3) for row in _sandwich(A_T, grid)]
    maps = jnp.stack(rows, axis=2)  # [B, h, 2, w, 2, features]
    maps = maps.reshape(shape[0], 2 * h, 2 * w, features)
    return maps[:, : shape[1], : shape[2]]


def _sandwich(matrix, grid):
    """matrix X matrix^T of a grid X of arrays, its many zeros and ones left out."""
    columns = zip(*grid, strict=True)
    half = [[_combine(row, column) for row in matrix] for column in columns]
    return [[_combine(row, line) for row in matrix] for line in zip(*half, strict=True)]


def _combine(weights, arrays):
    terms = [
        array if weight == 1 else array.dtype.type(weight) * array
        for weight, array in zip(weights, arrays, strict=True)
        if weight != 0
    ]
    return sum(terms[1:], terms[0])
