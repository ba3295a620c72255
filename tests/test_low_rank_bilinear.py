"""MLB and MFB against loops over their bilinear forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modal_aware_jax.fusion import FactorizedBilinear, LowRankBilinear
from modal_aware_jax.fusion.low_rank_bilinear import factorized_bilinear

MODULES = [LowRankBilinear, FactorizedBilinear]


def inputs(rows=3):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(rows, 4)), rng.normal(size=(rows, 2))
    return jnp.asarray(a), jnp.asarray(b)


def arrays(module):
    """Kernels of the two maps as NumPy, their biases set to something not zero."""
    for layer in (module.a_dense, module.b_dense):
        layer.bias[...] = jnp.linspace(-1, 1, layer.bias[...].size)
    return [
        np.asarray(x[...])
        for layer in (module.a_dense, module.b_dense)
        for x in (layer.kernel, layer.bias)
    ]


def test_factorized_bilinear_by_hand():
    a, b = jnp.array([[1.0, 2.0, 3.0, 4.0]]), jnp.array([[5.0, -6.0, 7.0, 0.5]])
    np.testing.assert_array_equal(factorized_bilinear(a, b, 2), [[5 - 12, 21 + 2]])
    np.testing.assert_array_equal(factorized_bilinear(a, b, 1), a * b)
    with pytest.raises(ValueError, match=r"\[B, D \* 3\]"):
        factorized_bilinear(a, b, 3)


def test_mlb_equals_loops():
    module = LowRankBilinear(4, 2, 3, rank=5, rngs=nnx.Rngs(0))
    u, u_bias, v, v_bias = arrays(module)
    p = np.asarray(module.out.kernel[...])
    a, b = inputs()
    expected = np.zeros((3, 3))
    for row, column, r in np.ndindex(3, 3, 5):
        left = math.tanh(float(np.asarray(a[row]) @ u[:, r]) + u_bias[r])
        right = math.tanh(float(np.asarray(b[row]) @ v[:, r]) + v_bias[r])
        expected[row, column] += p[r, column] * left * right
    np.testing.assert_allclose(module(a, b), expected, rtol=1e-4, atol=1e-5)


def test_mfb_is_a_normalised_sum_of_bilinear_forms():
    module = FactorizedBilinear(4, 2, 3, rank=2, rngs=nnx.Rngs(0))
    u, u_bias, v, v_bias = arrays(module)
    a, b = inputs()
    for row, fused in enumerate(np.asarray(module(a, b))):
        x, y = np.asarray(a[row]), np.asarray(b[row])
        z = [
            sum(
                (x @ u[:, i] + u_bias[i]) * (y @ v[:, i] + v_bias[i])
                for i in (2 * column, 2 * column + 1)
            )
            for column in range(3)
        ]
        z = [math.copysign(math.sqrt(abs(value)), value) for value in z]
        length = math.sqrt(sum(value**2 for value in z))
        np.testing.assert_allclose(fused, [value / length for value in z], atol=1e-5)


@pytest.mark.parametrize("module", MODULES)
def test_every_weight_learns_and_jit_agrees(module):
    unit = module(4, 2, 3, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(unit)
    params = nnx.to_pure_dict(params)
    a, b = inputs()

    def loss(params):
        return jnp.sum(jnp.square(nnx.merge(graphdef, params)(a, b) - 1))

    for gradient in jax.tree.leaves(jax.jit(jax.grad(loss))(params)):
        assert np.isfinite(gradient).all() and (gradient != 0).any()
    again = jax.jit(lambda p: nnx.merge(graphdef, p)(a, b))(params)
    np.testing.assert_allclose(again, unit(a, b), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e12])
def test_extremes_stay_finite(module, scale):
    unit = module(4, 2, 3, rngs=nnx.Rngs(0))
    a, b = inputs()
    gradient = jax.grad(lambda a: unit(a, b).sum())(scale * a)
    assert np.isfinite(unit(scale * a, b)).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize("module", MODULES)
def test_wrong_shapes_are_named(module):
    a, b = inputs()
    with pytest.raises(ValueError, match=rf"{module.__name__}.*\(3, 2\) and \(3, 4\)"):
        module(4, 2, 3, rngs=nnx.Rngs(0))(b, a)
