"""The contrastive loss against a double loop."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from modal_aware_jax.losses.contrastive import contrastive as eager

contrastive = jax.jit(eager)


def batch(items=7, seed=0):
    rng = np.random.default_rng(seed)
    h = np.tanh(rng.normal(size=(items, 5)))
    return h, (rng.random((items, 4)) < 0.35).astype(np.uint8)


def loop(h, labels, margin):
    terms = []
    for a, own in zip(h, labels, strict=True):
        for b, theirs in zip(h, labels, strict=True):
            d = math.dist(a, b)
            terms.append(d**2 if any(own & theirs) else max(0.0, margin - d) ** 2)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_double_loop(seed):
    h, labels = batch(seed=seed)
    for margin in (0.5, 2.0):
        np.testing.assert_allclose(
            contrastive(h, labels, margin=margin), loop(h, labels, margin), rtol=1e-5
        )


def test_hand_value():
    # Four pairs: two of an item with itself at 0, two at distance 5.
    h = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    assert contrastive(h, jnp.eye(2), margin=7.0) == 2 * (7 - 5) ** 2 / 4
    assert contrastive(h, jnp.ones((2, 1))) == 2 * 25 / 4
    # Without labels an item is not even similar to itself: the margin, squared.
    assert contrastive(h[:1], jnp.zeros((1, 2))) == 4


def test_gradient_equals_finite_differences():
    h, labels = batch()
    labels[:, 0] = 1  # every item similar to itself: no kink at distance 0
    labels[:3, 0] = 0
    labels[:3, 1] = 1
    with jax.enable_x64(True):
        check_grads(
            lambda h: contrastive(h, labels), (jnp.asarray(h),), order=1, modes=["rev"]
        )


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-19, 1.0, 1e6])
@pytest.mark.parametrize("labels", [np.zeros((3, 2)), np.ones((3, 2)), np.eye(3)])
def test_gradients_are_finite_and_jit_agrees(scale, labels):
    h = jnp.asarray(scale * batch(items=3)[0], jnp.float32)
    h = h.at[1].set(h[0])
    value, gradient = jax.value_and_grad(contrastive)(h, labels)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    np.testing.assert_allclose(eager(h, labels), value, rtol=1e-6)


def test_order_of_the_batch_is_irrelevant():
    h, labels = batch()
    order = np.random.default_rng(0).permutation(len(h))
    np.testing.assert_allclose(
        contrastive(h[order], labels[order]), contrastive(h, labels), rtol=1e-5
    )


def test_dtype_is_kept():
    h, labels = batch()
    assert contrastive(jnp.asarray(h, jnp.bfloat16), labels).dtype == jnp.bfloat16
    with jax.enable_x64(True):
        assert contrastive(jnp.asarray(h), labels).dtype == jnp.float64


def test_wrong_shapes_are_named():
    h, labels = batch()
    with pytest.raises(ValueError, match=r"contrastive.*\(7, 5\) and \(6, 4\)"):
        contrastive(h, labels[:6])
