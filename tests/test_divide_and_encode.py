"""The divide-and-encode head against loops over its slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from modal_aware_jax.hashing.divide_and_encode import (
    DivideAndEncodeHead,
    divide_and_encode,
    piecewise_threshold,
)


def test_each_bit_reads_its_own_slice():
    rng = np.random.default_rng(0)
    features, kernel, bias = (
        rng.normal(size=(2, 12)),
        rng.normal(size=(3, 4)),
        np.ones(3),
    )
    expected = np.ones((2, 3))
    for row, bit, i in np.ndindex(2, 3, 4):
        expected[row, bit] += features[row, 4 * bit + i] * kernel[bit, i]
    bits = divide_and_encode(features, kernel, bias)
    np.testing.assert_allclose(bits, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        jax.jit(divide_and_encode)(features, kernel, bias), bits, rtol=1e-6
    )


def test_a_slice_moves_its_bit_alone():
    jacobian = jax.jacobian(divide_and_encode)(
        jnp.ones((1, 6)), jnp.ones((3, 2)), jnp.zeros(3)
    )
    np.testing.assert_array_equal(jacobian[0, :, 0], np.kron(np.eye(3), [1, 1]))


def test_gradient_equals_finite_differences():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        arrays = [jnp.asarray(rng.normal(size=s)) for s in ((2, 6), (3, 2), (3,))]
        check_grads(jax.jit(divide_and_encode), arrays, order=1, modes=["rev"])


def test_piecewise_threshold():
    s = jnp.array([0.0, 0.25, 0.5, 0.75, 1.0, 0.125, 0.875])
    np.testing.assert_array_equal(
        piecewise_threshold(s, 0.25), [0, 0.25, 0.5, 0.75, 1, 0, 1]
    )


def test_head_every_weight_learns():
    head = DivideAndEncodeHead(5, 3, slice_features=4, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(head)
    params = nnx.to_pure_dict(params)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 5)))
    assert head(x).shape == (8, 3)
    shapes = sorted(p.shape for p in jax.tree.leaves(params))
    assert shapes == [(3,), (3, 4), (5, 12), (12,)]

    def loss(params):
        return jnp.sum(jnp.square(nnx.merge(graphdef, params)(x) - 1))

    for gradient in jax.tree.leaves(jax.jit(jax.grad(loss))(params)):
        assert np.isfinite(gradient).all() and (gradient != 0).any()


@pytest.mark.parametrize("scale", [0.0, 1e30])
def test_extremes_stay_finite(scale):
    head = DivideAndEncodeHead(5, 3, rngs=nnx.Rngs(0))
    assert np.isfinite(head(jnp.full((1, 5), scale))).all()


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"K \* S.*\(3, 4\), got \(2, 11\)"):
        divide_and_encode(jnp.ones((2, 11)), jnp.ones((3, 4)), jnp.ones(3))
    with pytest.raises(ValueError, match=r"\[B, 5\], got \(2, 4\)"):
        DivideAndEncodeHead(5, 3, rngs=nnx.Rngs(0))(jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="num_bits >= 1"):
        DivideAndEncodeHead(5, 0, rngs=nnx.Rngs(0))
