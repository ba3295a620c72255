"""A strided convolution whose kernel's gradient needs no transposed maps.

On CPU, XLA computes that gradient as a convolution of maps turned to [C, H, W, B], and
in a network computes what comes before them once more while it writes them, which takes
long over large batches. Here every element of the kernel has a matrix product of its
own: no faster alone (`benchmarks/cpu_rules.py`), and without that second computation.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from modal_aware_jax.cpu.chunks import chunk, in_chunks
from modal_aware_jax.cpu.small_maps import is_wide, native_conv, small_map_conv
from modal_aware_jax.cpu.taps import explicit_padding, output_size, tap


def strided_conv(x, kernel, strides, padding, **options):
    """Drop-in for `lax.conv_general_dilated` in `nnx.Conv`.

    Applies on CPU to float32 convolutions with a stride, a kernel of at most 3x3 and at
    least 64 channels on both sides; all others go to `small_map_conv`.

    Args:
      x: maps [B, H, W, C].
      kernel: [kh, kw, C, features].
      strides: of rows and columns.
      padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).
      **options: the other arguments that `nnx.Conv` passes.

    Returns:
      Maps [B, h, w, features].

    >>> from flax import nnx
    >>> conv = nnx.Conv(64, 128, (3, 3), strides=2, rngs=nnx.Rngs(0),
    ...                 conv_general_dilated=strided_conv)
    >>> conv(jnp.ones((1, 8, 8, 64))).shape
    (1, 4, 4, 128)
    """
    if _gains(x, kernel, strides, options):
        padding = explicit_padding(x.shape, kernel.shape, strides, padding)
        if min(output_size(x.shape, kernel.shape, strides, padding)) >= 3:
            return _conv(x, kernel, tuple(strides), padding)
    return small_map_conv(x, kernel, strides, padding, **options)


def _gains(x, kernel, strides, options):
    return (
        is_wide(x, kernel, **options)
        and max(kernel.shape[:2]) <= 3
        and max(strides) > 1
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x, kernel, strides, padding):
    return native_conv(x, kernel, strides, padding)


def _forward(x, kernel, strides, padding):
    return native_conv(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, residuals, g):
    x, kernel = residuals

    def of_maps(x, kernel, g):
        return jax.vjp(lambda x: native_conv(x, kernel, strides, padding), x)[1](g)[0]

    def of_kernel(x, kernel, g):
        return jax.vjp(lambda k: native_conv(x, k, strides, padding), kernel)[1](g)[0]

    def by_products(x, kernel, g):
        return _gradient_of_kernel(x, g, kernel.shape, strides, padding)

    return of_maps(x, kernel, g), lax.platform_dependent(
        x, kernel, g, cpu=by_products, default=of_kernel
    )


_conv.defvjp(_forward, _backward)


def _gradient_of_kernel(x, g, kernel_shape, strides, padding):
    rows, columns, channels, features = kernel_shape
    h, w = g.shape[1:3]
    x, g = in_chunks(h * w * max(channels, features), x, g)

    def add_chunk(i, sums):
        maps, cotangents = chunk(x, i), chunk(g, i).reshape(-1, features)

        def product(offset):
            taps = tap(maps, offset, kernel_shape, strides, padding)
            return taps.reshape(-1, channels).T @ cotangents

        return {offset: sums[offset] + product(offset) for offset in sums}

    zero = jnp.zeros((channels, features), x.dtype)
    sums = {(r, c): zero for r in range(rows) for c in range(columns)}
    sums = lax.fori_loop(0, x.shape[1], add_chunk, sums)
    return jnp.stack([*sums.values()]).reshape(kernel_shape)
