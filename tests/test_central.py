"""CSQ against a double loop, and the tables it draws items to."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from modal_aware_jax.losses import central
from modal_aware_jax.losses.central import hash_centers, item_centers, tie_bits

csq = jax.jit(central.csq)


def batch(items=6, bits=8, num_labels=4, seed=0):
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(items, bits))
    labels = (rng.random((items, num_labels)) < 0.5).astype(np.uint8)
    return u, labels, hash_centers(num_labels, bits, 0), tie_bits(bits, 0)


def loop_csq(u, labels, centers, ties, weight):
    entropy = quantization = 0.0
    for row, own in zip(u, labels, strict=True):
        for bit, x in enumerate(row):
            total = sum(centers[label][bit] for label in np.flatnonzero(own))
            target = (1 if total > 0 else -1) if total else ties[bit]
            p = (math.tanh(x) + 1) / 2
            entropy -= math.log(p) if target > 0 else math.log(1 - p)
            quantization += (abs(math.tanh(x)) - 1) ** 2
    return (entropy + weight * quantization) / u.size


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_double_loop(seed):
    u, labels, centers, ties = batch(seed=seed)
    for weight in (1e-4, 1.0):
        np.testing.assert_allclose(
            csq(u, labels, centers, ties, quantization_weight=weight),
            loop_csq(u, labels, centers, ties, weight),
            rtol=1e-5,
        )


def test_hand_value():
    # tanh 0 = 0: every bit costs log 2, and is a whole unit from ±1.
    value = csq(jnp.zeros((3, 4)), np.eye(3), hash_centers(3, 4, 0), tie_bits(4, 0))
    np.testing.assert_allclose(value, math.log(2) + 1e-4, rtol=1e-6)


def test_saturated_codes_cost_in_proportion_to_u():
    # Where tanh is 1 to the last digit, log(1 − p) would be log 0.
    centers, ties = np.ones((1, 4)), np.ones(4)
    u = jnp.full((2, 4), -50.0)
    loss, gradient = jax.value_and_grad(csq)(u, np.ones((2, 1)), centers, ties)
    assert loss == 100.0
    np.testing.assert_allclose(gradient, np.full((2, 4), -2 / 8), rtol=1e-6)


def test_gradient_equals_finite_differences():
    u, labels, centers, ties = batch()
    with jax.enable_x64(True):
        check_grads(
            lambda u: csq(u, labels, centers, ties, quantization_weight=0.3),
            (jnp.asarray(u),),
            order=1,
            modes=["rev"],
        )


def test_item_centers_break_ties_by_the_fixed_bits():
    centers = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [-1, 1, -1, 1]])
    labels = np.array([[0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]], np.uint8)
    expected = [[1, 1, -1, -1], [1, 1, -1, 1], [1, 1, -1, 1], [-1, 1, -1, 1]]
    for ties in ([-1, 1, -1, 1], [0, 1, 0, 1]):
        got = item_centers(labels, centers, np.array(ties))
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("num_labels, num_bits", [(24, 16), (24, 32), (21, 64)])
def test_hadamard_centers(num_labels, num_bits):
    centers = hash_centers(num_labels, num_bits, seed=3)
    scipy = pytest.importorskip("scipy.linalg").hadamard(num_bits)
    both = np.concatenate([scipy, -scipy])[:num_labels]
    np.testing.assert_array_equal(centers, both)


def test_hadamard_centers_differ_in_half_of_the_bits_or_in_all():
    centers = hash_centers(32, 16, seed=0)
    different = (16 - centers @ centers.T) / 2
    assert set(different[~np.eye(32, dtype=bool)]) == {8, 16}


@pytest.mark.parametrize("num_labels, num_bits", [(24, 48), (255, 64), (3, 7)])
def test_random_centers_are_balanced_and_apart(num_labels, num_bits):
    centers = hash_centers(num_labels, num_bits, seed=0)
    assert centers.shape == (num_labels, num_bits) and centers.dtype == np.float32
    np.testing.assert_array_equal(np.abs(centers), 1)
    np.testing.assert_array_equal(centers.sum(axis=1), num_bits % 2)
    different = (num_bits - centers @ centers.T) / 2
    assert different[~np.eye(num_labels, dtype=bool)].min() >= num_bits / 5
    np.testing.assert_array_equal(centers, hash_centers(num_labels, num_bits, seed=0))
    assert (centers != hash_centers(num_labels, num_bits, seed=1)).any()


def test_tie_bits_are_fixed_by_the_seed():
    bits = tie_bits(256, seed=5)
    np.testing.assert_array_equal(np.abs(bits), 1)
    assert 64 < (bits > 0).sum() < 192
    np.testing.assert_array_equal(bits, tie_bits(256, seed=5))
    assert (bits != tie_bits(256, seed=6)).any()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e6])
def test_extremes_stay_finite_and_jit_agrees(scale):
    u, labels, centers, ties = batch()
    labels = np.zeros_like(labels)
    u = jnp.asarray(scale * u, jnp.float32)
    value, gradient = jax.value_and_grad(csq)(u, labels, centers, ties)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    eager = central.csq(u, labels, centers, ties)
    np.testing.assert_allclose(eager, value, rtol=1e-6)


def test_dtype_is_kept():
    u, *rest = batch()
    assert csq(jnp.asarray(u, jnp.bfloat16), *rest).dtype == jnp.bfloat16
    with jax.enable_x64(True):
        assert csq(jnp.asarray(u), *rest).dtype == jnp.float64


def test_wrong_shapes_are_named():
    u, labels, centers, ties = batch()
    with pytest.raises(ValueError, match=r"csq.*\(6, 8\) and \(5, 4\)"):
        csq(u, labels[:5], centers, ties)
    with pytest.raises(ValueError, match=r"centers \[L, K\] = \(4, 8\).*\(3, 8\)"):
        csq(u, labels, centers[:3], ties)
    with pytest.raises(ValueError, match="num_bits >= 1"):
        hash_centers(3, 0, seed=0)
