"""Gated units and the simplest fusions, against loops over single numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from modal_aware_jax.fusion import (
    Concat,
    ElementwiseProduct,
    ElementwiseSum,
    GatedMultimodalUnit,
    MultiGatedUnit,
)
from modal_aware_jax.fusion.gmu import gate_many, gate_two


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def inputs(seed=0, rows=3):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(rows, 4))), jnp.asarray(
        rng.normal(size=(rows, 2))
    )


def row_times(row, kernel, column):
    pairs = zip(row.tolist(), kernel[:, column].tolist(), strict=True)
    return sum(x * w for x, w in pairs)


def test_gmu_equals_the_published_formula_by_loops():
    unit = GatedMultimodalUnit(4, 2, 3, rngs=nnx.Rngs(0))
    a, b = inputs()
    w_a, w_b, w_z = (
        np.asarray(layer.kernel[...])
        for layer in (unit.a_dense, unit.b_dense, unit.gate)
    )
    expected = np.zeros((3, 3))
    for row, column in np.ndindex(3, 3):
        x_a, x_b = np.asarray(a[row]), np.asarray(b[row])
        z = sigmoid(row_times(np.concatenate([x_a, x_b]), w_z, column))
        h_a = math.tanh(row_times(x_a, w_a, column))
        h_b = math.tanh(row_times(x_b, w_b, column))
        expected[row, column] = z * h_a + (1 - z) * h_b
    np.testing.assert_allclose(unit(a, b), expected, rtol=1e-5, atol=1e-6)


def test_gmu_has_three_matrices_and_no_bias_unless_asked():
    def shapes(unit):
        return sorted(x.shape for x in jax.tree.leaves(nnx.state(unit, nnx.Param)))

    unit = GatedMultimodalUnit(4, 2, 3, rngs=nnx.Rngs(0))
    assert shapes(unit) == [(2, 3), (4, 3), (6, 3)]
    unit = GatedMultimodalUnit(4, 2, 3, use_bias=True, rngs=nnx.Rngs(0))
    assert shapes(unit) == [(2, 3), (3,), (3,), (3,), (4, 3), (6, 3)]


def test_gate_hand_values():
    # z = 3/4 of tanh a = 1/2, 1/4 of tanh b = −1/2.
    a, b = jnp.full((1, 1), math.atanh(0.5)), jnp.full((1, 1), math.atanh(-0.5))
    np.testing.assert_allclose(
        gate_two(a, b, jnp.full((1, 1), math.log(3))), 0.25, 1e-6
    )
    both = jnp.stack([a, b], axis=1)
    gates = jnp.array([[[math.log(3)], [0.0]]])  # 3/4 and 1/2
    np.testing.assert_allclose(gate_many(both, gates), 3 / 8 - 1 / 4, rtol=1e-6)


def test_gate_is_a_weighted_mean_and_symmetric():
    a, b, logits = (
        jnp.asarray(np.random.default_rng(s).normal(size=(5, 3))) for s in range(3)
    )
    mixed = gate_two(a, b, logits)
    low, high = (f(jnp.tanh(a), jnp.tanh(b)) for f in (jnp.minimum, jnp.maximum))
    assert (mixed >= low).all() and (mixed <= high).all()
    np.testing.assert_allclose(mixed, gate_two(b, a, -logits), rtol=1e-5, atol=1e-6)


def test_multi_gated_unit_equals_loops():
    unit = MultiGatedUnit((4, 2, 3), 2, rngs=nnx.Rngs(0))
    xs = [*inputs(), jnp.asarray(np.random.default_rng(5).normal(size=(3, 3)))]
    gates = np.asarray(unit.gates.kernel[...])
    expected = np.zeros((3, 2))
    for row, column, m in np.ndindex(3, 2, 3):
        everything = np.concatenate([np.asarray(x[row]) for x in xs])
        z = sigmoid(row_times(everything, gates, 2 * m + column))
        kernel = np.asarray(unit.projections[m].kernel[...])
        h = math.tanh(row_times(np.asarray(xs[m][row]), kernel, column))
        expected[row, column] += z * h
    np.testing.assert_allclose(unit(*xs), expected, rtol=1e-5, atol=1e-6)


def test_concat_sum_and_product():
    a, b = inputs()
    concat = Concat(4, 2)
    assert concat.features == 6
    np.testing.assert_array_equal(concat(a, b), np.hstack([a, b]))

    added = ElementwiseSum(4, 2, 3, rngs=nnx.Rngs(0))
    kernel = np.vstack([added.a_dense.kernel[...], added.b_dense.kernel[...]])
    np.testing.assert_allclose(added(a, b), np.hstack([a, b]) @ kernel, 1e-4, 1e-5)

    product = ElementwiseProduct(4, 2, 3, rngs=nnx.Rngs(0))
    product.b_dense.bias[...] = jnp.ones(3)
    expected = np.zeros((3, 3))
    for row, column in np.ndindex(3, 3):
        left = row_times(
            np.asarray(a[row]), np.asarray(product.a_dense.kernel[...]), column
        )
        right = row_times(
            np.asarray(b[row]), np.asarray(product.b_dense.kernel[...]), column
        )
        expected[row, column] = left * (right + 1)
    np.testing.assert_allclose(product(a, b), expected, rtol=1e-4, atol=1e-5)


MODULES = [GatedMultimodalUnit, ElementwiseSum, ElementwiseProduct]


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
    np.testing.assert_allclose(again, unit(a, b), rtol=1e-6, atol=1e-6)


def test_gradients_equal_finite_differences():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        arrays = tuple(jnp.asarray(rng.normal(size=(2, 3))) for _ in range(3))
        check_grads(jax.jit(gate_two), arrays, order=1, modes=["rev"])
        arrays = tuple(jnp.asarray(rng.normal(size=(2, 3, 2))) for _ in range(2))
        check_grads(jax.jit(gate_many), arrays, order=1, modes=["rev"])


@pytest.mark.parametrize("scale", [0.0, 1e30])
def test_extremes_stay_finite(scale):
    unit = GatedMultimodalUnit(4, 2, 3, rngs=nnx.Rngs(0))
    a, b = (scale * x for x in inputs())
    gradient = jax.grad(lambda a: unit(a, b).sum())(a)
    assert np.isfinite(unit(a, b)).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize("module", [*MODULES, Concat])
def test_wrong_shapes_are_named(module):
    widths = (4, 2) if module is Concat else (4, 2, 3)
    unit = module(*widths, rngs=nnx.Rngs(0))
    a, b = inputs()
    with pytest.raises(ValueError, match=rf"{module.__name__}.*\(3, 2\) and \(3, 4\)"):
        unit(b, a)
    with pytest.raises(ValueError, match="pooled first"):
        unit(a[:, None, None, :], b)


def test_multi_gated_unit_names_wrong_shapes():
    unit = MultiGatedUnit((4, 2), 3, rngs=nnx.Rngs(0))
    a, b = inputs()
    for wrong in ((), (a,), (b, a), (a, b[:2])):
        with pytest.raises(ValueError, match="MultiGatedUnit"):
            unit(*wrong)
    with pytest.raises(ValueError, match="at least one"):
        MultiGatedUnit((), 3, rngs=nnx.Rngs(0))
