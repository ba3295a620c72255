"""3x3 convolution of maps smaller than 3x3 without XLA's slow CPU path.

On CPU, XLA runs a convolution, or the gradient of one, 10 to 60 times slower than it
should once its input or output map is smaller than the kernel. ResNet-18's last stage
meets such maps at 64 pixels. As one matrix product of patches they are fast
(`benchmarks/cpu_rules.py`); larger maps gain nothing by it.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax

from modal_aware_jax.cpu.taps import explicit_padding, output_size, tap

MIN_FEATURES = 64  # of wide convolutions, which have rules of their own


def small_map_conv(x, kernel, strides, padding, **options):
    """Drop-in for `lax.conv_general_dilated` in `nnx.Conv`.

    Larger maps, and convolutions with groups, dilation, precision or sharding, are
    passed on unchanged.

    Args:
      x: maps [B, H, W, C].
      kernel: [kh, kw, C, features].
      strides: of rows and columns.
      padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).
      **options: the other arguments that `nnx.Conv` passes.

    Returns:
      Maps [B, h, w, features].

    >>> from flax import nnx
    >>> conv = nnx.Conv(8, 4, (3, 3), conv_general_dilated=small_map_conv,
    ...                 rngs=nnx.Rngs(0))
    >>> conv(jnp.ones((1, 2, 2, 8))).shape
    (1, 2, 2, 4)
    """
    if x.ndim == 4 and is_plain(x, kernel, **options):
        strides = tuple(strides)
        padding = explicit_padding(x.shape, kernel.shape, strides, padding)
        out = output_size(x.shape, kernel.shape, strides, padding)
        smallest = min(*x.shape[1:3], *out)
        if 1 <= smallest < max(kernel.shape[:2]) and kernel.shape[:2] != (1, 1):
            return _small(x, kernel, strides, padding)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def is_plain(
    x, kernel, *, feature_group_count=1, lhs_dilation=None, rhs_dilation=None, **others
):
    others.pop("dimension_numbers", None)  # nnx.Conv always means NHWC, HWIO
    return (
        feature_group_count == 1
        and x.shape[-1] == kernel.shape[2]
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and all(value is None for value in others.values())
    )


def is_wide(x, kernel, **options):
    """Whether a convolution is plain, float32, of a known batch and many channels."""
    return (
        x.ndim == 4
        and isinstance(x.shape[0], int)  # an exported batch may be any
        and x.dtype == kernel.dtype == jnp.float32
        and min(kernel.shape[2:]) >= MIN_FEATURES
        and is_plain(x, kernel, **options)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _small(x, kernel, strides, padding):
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _patch_product(x, kernel, strides, padding),
        default=lambda x, kernel: native_conv(x, kernel, strides, padding),
    )


def _forward(x, kernel, strides, padding):
    return _small(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, residuals, g):
    def gradients(f):
        def both(x, kernel, g):
            return jax.vjp(lambda *a: f(*a, strides, padding), x, kernel)[1](g)

        return both

    return lax.platform_dependent(
        *residuals, g, cpu=gradients(_patch_product), default=gradients(native_conv)
    )


_small.defvjp(_forward, _backward)


def native_conv(x, kernel, strides, padding):
    """XLA's own convolution of [B, H, W, C] with [kh, kw, C, features]."""
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _patch_product(x, kernel, strides, padding):
    """One matrix product of all patches, [B * h * w, kh * kw * C] @ [.., features]."""
    offsets = itertools.product(*map(range, kernel.shape[:2]))
    patches = jnp.concatenate(
        [tap(x, offset, kernel.shape, strides, padding) for offset in offsets], axis=-1
    )  # [B, h, w, kh * kw * C]
    return jnp.einsum("bhwp,pf->bhwf", patches, kernel.reshape(-1, kernel.shape[-1]))
