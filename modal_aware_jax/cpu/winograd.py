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

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from modal_aware_jax.cpu.chunks import chunk, in_chunks, put_chunk
from modal_aware_jax.cpu.small_maps import is_wide, native_conv
from modal_aware_jax.cpu.strided import strided_conv
from modal_aware_jax.cpu.taps import explicit_padding

B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
MIRRORED = 3, 1, 2, 0  # the rows of G for a kernel in reverse


def winograd_conv(x, kernel, strides, padding, **options):
    """Drop-in for `lax.conv_general_dilated` in `nnx.Conv`.

    Applies on CPU to float32 convolutions 3x3 of stride 1 with one pixel of padding
    and at least 64 channels on both sides; all others go to `strided_conv`.

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
    return strided_conv(x, kernel, strides, padding, **options)


def _gains(x, kernel, strides, padding, options):
    return (
        is_wide(x, kernel, **options)
        and kernel.shape[:2] == (3, 3)
        and min(x.shape[1:3]) > 3
        and tuple(strides) == (1, 1)
        and explicit_padding(x.shape, kernel.shape, strides, padding) == ((1, 1),) * 2
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
    return native_conv(x, kernel, (1, 1), ((1, 1), (1, 1)))


def _native_gradients(x, kernel, g):
    return jax.vjp(_native, x, kernel)[1](g)


def _winograd(x, kernel):
    return _convolve(x, _sandwich(G, kernel))


def _winograd_gradients(x, kernel, g):
    # Of the maps: the convolution of g with the kernel turned around and transposed.
    factors = _sandwich(G, kernel)
    mirrored = [[factors[i][j].T for j in MIRRORED] for i in MIRRORED]
    return _convolve(g, mirrored), _gradient_of_kernel(x, g)


def _convolve(x, factors):
    """Convolves [B, H, W, C] with the kernel of a 4x4 grid of [C, features]."""
    _, height, width, _ = x.shape
    features = factors[0][0].shape[-1]
    (x,) = in_chunks(_patch_size(x), x)

    def add_chunk(i, maps):
        products = _products(_patches(chunk(x, i)), factors)
        return put_chunk(maps, _join(products, height, width), i)

    maps = jnp.zeros((*x.shape[:2], height, width, features), x.dtype)
    maps = lax.fori_loop(0, x.shape[1], add_chunk, maps)
    return maps.reshape(-1, height, width, features)


def _gradient_of_kernel(x, g):
    """Every transform and product of the forward pass transposed."""
    x, g = in_chunks(max(_patch_size(x), _patch_size(g)), x, g)

    def add_chunk(i, sums):
        patches = [[patch.T for patch in row] for row in _patches(chunk(x, i))]
        cotangents = _sandwich(A_T.T, _slices(chunk(g, i), 0, 2))
        cotangents = [[_flat(cotangent) for cotangent in row] for row in cotangents]
        return jax.tree.map(jnp.add, sums, _products(patches, cotangents))

    zeros = [[jnp.zeros((x.shape[-1], g.shape[-1]), x.dtype)] * 4] * 4
    products = lax.fori_loop(0, x.shape[1], add_chunk, zeros)
    return jnp.stack([jnp.stack(row) for row in _sandwich(G.T, products)])


def _products(left, right):
    """Matrix products of two grids, element by element."""
    return [
        [a @ b for a, b in zip(*rows, strict=True)]
        for rows in zip(left, right, strict=True)
    ]


def _patches(x):
    """B^T d B of all 4x4 patches d of [B, H, W, C], a 4x4 grid of [B h w, C]."""
    grid = _sandwich(B_T, _slices(x, 1, 4))
    return lax.optimization_barrier([[_flat(patch) for patch in row] for row in grid])


def _slices(x, before, size):
    """Element (i, j) of each patch, a grid of [B, h, w, C] for h x w patches.

    Patches of `size` x `size` begin every two pixels, the first `before` the map.
    """
    counts = _patch_counts(*x.shape[1:3])
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


def _patch_counts(height, width):
    """Rows h and columns w of the 2x2 patches that cover H x W pixels."""
    return -(-height // 2), -(-width // 2)


def _patch_size(x):
    """What the patches of one image have in each position, h w C."""
    return math.prod(_patch_counts(*x.shape[1:3])) * x.shape[-1]


def _flat(maps):
    return maps.reshape(-1, maps.shape[-1])


def _join(products, height, width):
    """A^T y A of a 4x4 grid of [B h w, features] as maps [B, H, W, features]."""
    (h, w), features = _patch_counts(height, width), products[0][0].shape[-1]
    grid = [[y.reshape(-1, h, w, features) for y in row] for row in products]
    rows = [jnp.stack(row, axis=3) for row in _sandwich(A_T, grid)]
    maps = jnp.stack(rows, axis=2)  # [B, h, 2, w, 2, features]
    return maps.reshape(-1, 2 * h, 2 * w, features)[:, :height, :width]


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
