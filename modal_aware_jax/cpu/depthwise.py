"""Depthwise convolution without XLA's slow CPU path.

On CPU, XLA runs the two gradients of a depthwise 3x3 convolution as convolutions with
as many groups as channels: [100, 12, 12, 576] takes about two seconds, which makes
MobileNetV2 untrainable there. As nine shifted multiply-adds it is 13 to 36 times
faster (`benchmarks/cpu_rules.py`), and the same numbers up to summation order. Other
platforms keep the native convolution.
"""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
from jax import lax

from modal_aware_jax.cpu.taps import explicit_padding, spread, tap

UNPADDED = ((0, 0), (0, 0))


def depthwise_conv(x, kernel, strides, padding, **options):
    """Drop-in for `lax.conv_general_dilated` in a depthwise `nnx.Conv`.

    Convolutions that are not depthwise, or that ask for dilation, precision or
    sharding, are passed on unchanged.

    Args:
      x: maps [B, H, W, C].
      kernel: [kh, kw, 1, C].
      strides: of rows and columns.
      padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).
      **options: the other arguments that `nnx.Conv` passes.

    Returns:
      Maps [B, h, w, C].

    >>> from flax import nnx
    >>> conv = nnx.Conv(8, 8, (3, 3), feature_group_count=8,
    ...                 conv_general_dilated=depthwise_conv, rngs=nnx.Rngs(0))
    >>> conv(jnp.ones((1, 5, 5, 8))).shape
    (1, 5, 5, 8)
    """
    if not _is_plain_depthwise(x, kernel, **options):
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    strides = tuple(strides)
    return _depthwise(
        x, kernel, strides, explicit_padding(x.shape, kernel.shape, strides, padding)
    )


def _is_plain_depthwise(
    x, kernel, *, feature_group_count=1, lhs_dilation=None, rhs_dilation=None, **others
):
    channels = x.shape[-1]
    others.pop("dimension_numbers", None)  # nnx.Conv always means NHWC, HWIO
    return (
        x.ndim == 4
        and channels == feature_group_count == kernel.shape[-1]
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and all(value is None for value in others.values())
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, strides, padding):
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _shifted_sum(x, kernel, strides, padding),
        default=lambda x, kernel: _native(x, kernel, strides, padding),
    )


def _forward(x, kernel, strides, padding):
    def shifted(x, kernel):
        def half(_, x):
            return None, _shifted_sum(x, kernel, strides, padding)

        return _join(lax.scan(half, None, _halves(x))[1])

    out = lax.platform_dependent(
        x,
        kernel,
        cpu=shifted,
        default=lambda x, kernel: _native(x, kernel, strides, padding),
    )
    return out, (x, kernel)


def _backward(strides, padding, residuals, g):
    def native(x, kernel, g):
        _, vjp = jax.vjp(lambda *a: _native(*a, strides, padding), x, kernel)
        return vjp(g)

    def shifted(x, kernel, g):
        def half(total, x_and_g):
            x, g = x_and_g
            total += _kernel_gradient(x, kernel, g, strides, padding)
            return total, _input_gradient(x, kernel, g, strides, padding)

        zeros = jnp.zeros_like(kernel)
        total, halves = lax.scan(half, zeros, (_halves(x), _halves(g)))
        return _join(halves), total

    return lax.platform_dependent(*residuals, g, cpu=shifted, default=native)


_depthwise.defvjp(_forward, _backward)


def _halves(x):
    """[B, ...] as two halves, [2, B/2, ...]; as one where B is odd.

    The sums run in a loop over these. XLA fuses them with whatever reads them, a ReLU
    and its gradient say, and then computes them once for each reader, ten times in
    all; the result of a loop is computed once. The step of a block is 3 to 5 times
    faster for it. Barriers do not help: XLA removes them first.

    Where the batch is split over devices, a half is half of every device's rows: two
    halves of the whole would have to be sent around.
    """
    devices = _devices_of_a_batch(x.shape[0])
    parts = 2 if x.shape[0] % (2 * devices) == 0 else 1
    x = x.reshape(devices, parts, -1, *x.shape[1:])
    return jnp.moveaxis(x, 1, 0).reshape(parts, -1, *x.shape[3:])


def _join(halves):
    parts, devices = (
        halves.shape[0],
        _devices_of_a_batch(halves.shape[0] * halves.shape[1]),
    )
    x = halves.reshape(parts, devices, -1, *halves.shape[2:])
    return jnp.moveaxis(x, 0, 1).reshape(-1, *halves.shape[2:])


def _devices_of_a_batch(rows):
    """How many devices of the mesh in use share the rows of a batch."""
    devices = jax.sharding.get_abstract_mesh().shape.get("data", 1)
    return devices if rows % devices == 0 else 1


def _native(x, kernel, strides, padding):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _offsets(kernel):
    return itertools.product(range(kernel.shape[0]), range(kernel.shape[1]))


def _wide(*arrays):
    """At least float32: the sums of a bfloat16 convolution are not bfloat16's."""
    return [a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in arrays]


def _shifted_sum(x, kernel, strides, padding):
    wide, weights = _wide(x, kernel)
    if strides == (1, 1):
        wide, padding = _padded(wide, padding), UNPADDED
    total = sum(
        tap(
            wide * weights[i : i + 1, j : j + 1], (i, j), kernel.shape, strides, padding
        )
        for i, j in _offsets(kernel)
    )
    return total.astype(x.dtype)


def _input_gradient(x, kernel, g, strides, padding):
    if strides == (1, 1):  # each pixel met the kernel's elements in reverse
        around = tuple(
            (size - 1 - low, size - 1 - high)
            for size, (low, high) in zip(kernel.shape, padding, strict=False)
        )
        return _shifted_sum(g, kernel[::-1, ::-1], strides, around)
    wide, weights = _wide(g, kernel)
    total = sum(
        spread(wide * weights[i : i + 1, j : j + 1], (i, j), x.shape, strides, padding)
        for i, j in _offsets(kernel)
    )
    return total.astype(x.dtype)


def _kernel_gradient(x, kernel, g, strides, padding):
    wide, wide_g = _wide(x, g)
    products = [
        wide * spread(wide_g, offset, x.shape, strides, padding)
        for offset in _offsets(kernel)
    ]
    # One reduction of nine operands reads x and g once, and first inside each sample:
    # a sample fits the processor's cache, a whole batch does not.
    zeros = [products[0].dtype.type(0)] * len(products)
    sums = lax.reduce(
        products, zeros, lambda a, b: tuple(map(operator.add, a, b)), (1, 2)
    )
    total = jnp.stack([s.sum(0) for s in sums])  # [kh * kw, C]
    return total.reshape(kernel.shape).astype(kernel.dtype)


def _padded(x, padding):
    """Maps [B, H, W, C] with their padding, as an array of its own.

    A pad that XLA fuses with the sum asks at each of the nine taps whether it is
    inside, which is what the sum then spends its time on.
    """
    (top, bottom), (left, right) = padding
    batch, height, width, channels = x.shape
    shape = batch, height + top + bottom, width + left + right, channels
    return lax.dynamic_update_slice(jnp.zeros(shape, x.dtype), x, (0, top, left, 0))
