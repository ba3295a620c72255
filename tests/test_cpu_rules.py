"""The CPU rules compute what the native operations and their autodiff compute."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from modal_aware_jax.backbones.depthwise import depthwise_conv

NHWC = ("NHWC", "HWIO", "NHWC")


def values_and_gradients(f, *arrays):
    """f(*arrays), then its gradients for one random cotangent."""

    def both(*arrays):
        y, vjp = jax.vjp(f, *arrays)
        g = jax.random.normal(jax.random.key(7), y.shape, y.dtype)
        return y, *vjp(g)

    return jax.jit(both)(*arrays)


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)


def assert_same(ours, theirs, tolerance=2e-6):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max() + 1e-7)


def depthwise_by_loops(x, kernel, stride, padding):
    (top, bottom), (left, right) = padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    h = (x.shape[1] - 3) // stride + 1
    w = (x.shape[2] - 3) // stride + 1
    y = np.zeros((len(x), h, w, x.shape[-1]))
    for r, c in np.ndindex(h, w):
        window = x[:, r * stride : r * stride + 3, c * stride : c * stride + 3]
        y[:, r, c] = (window * kernel[:, :, 0]).sum((1, 2))
    return y


def test_depthwise_equals_loops():
    x, kernel = normal(2, 5, 6, 3), normal(3, 3, 1, 3)
    y = depthwise_conv(x, kernel, (2, 2), [(1, 1), (1, 1)], feature_group_count=3)
    expected = depthwise_by_loops(x, kernel, 2, [(1, 1), (1, 1)])
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(1, 1), (1, 1)]])
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (3, 3)])
def test_depthwise_equals_native_and_its_gradients(stride, padding, size):
    x, kernel = normal(3, *size, 4), normal(3, 3, 1, 4)
    arguments = {"feature_group_count": 4, "dimension_numbers": NHWC}
    ours, theirs = (
        values_and_gradients(
            lambda x, k, f=f: f(x, k, (stride, stride), padding, **arguments), x, kernel
        )
        for f in (depthwise_conv, lax.conv_general_dilated)
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 5)])
def test_depthwise_on_maps_smaller_than_its_kernel(size):
    x, kernel = normal(3, *size, 4), normal(3, 3, 1, 4)
    arguments = {"feature_group_count": 4, "dimension_numbers": NHWC}
    ours, theirs = (
        values_and_gradients(
            lambda x, k, f=f: f(x, k, (2, 2), "SAME", **arguments), x, kernel
        )
        for f in (depthwise_conv, lax.conv_general_dilated)
    )
    assert_same(ours, theirs)


def test_depthwise_in_bfloat16_is_as_exact_as_bfloat16():
    x, kernel = normal(2, 6, 6, 4), normal(3, 3, 1, 4)
    f = functools.partial(
        depthwise_conv, strides=(1, 1), padding="SAME", feature_group_count=4
    )
    exact = values_and_gradients(
        f, *(a.astype(jnp.bfloat16).astype(np.float32) for a in (x, kernel))
    )[0]
    half = f(*(a.astype(jnp.bfloat16) for a in (x, kernel)))
    assert half.dtype == jnp.bfloat16
    assert_same([half], [exact.astype(jnp.bfloat16)])


def test_convolutions_that_are_not_depthwise_pass_through():
    x, kernel = normal(2, 6, 6, 4), normal(3, 3, 4, 5)
    arguments = {"dimension_numbers": NHWC, "out_sharding": None}
    ours = depthwise_conv(x, kernel, (1, 1), "SAME", **arguments)
    assert_same(
        [ours], [lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **arguments)]
    )
    grouped = {"feature_group_count": 4, "dimension_numbers": NHWC}
    dilated = {**grouped, "rhs_dilation": (2, 2)}
    kernel = normal(3, 3, 1, 4)
    ours = depthwise_conv(x, kernel, (1, 1), "SAME", **dilated)
    assert_same(
        [ours], [lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **dilated)]
    )


def test_nnx_conv_takes_the_rule():
    conv, native = (
        nnx.Conv(6, 6, (3, 3), strides=2, feature_group_count=6, rngs=nnx.Rngs(0), **k)
        for k in ({"conv_general_dilated": depthwise_conv}, {})
    )
    x = normal(2, 9, 8, 6)
    assert_same([conv(x)], [native(x)])
