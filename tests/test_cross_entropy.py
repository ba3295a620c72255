"""Cross-entropy against hand values, loops and optax."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from modal_aware_jax.losses.cross_entropy import (
    balanced_weights,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(6, 4)) * 2, jnp.float32)
CLASSES = jnp.array([0, 3, 1, 1, 2, 0])
LABELS = jnp.asarray(RNG.integers(0, 2, (6, 4)))
WEIGHTS = jnp.array([0.5, 1.0, 3.0, 0.0])
MASK = jnp.array([1, 1, 0, 1, 0, 1])


def softmax_by_loops(smoothing, weights, mask):
    total = norm = 0.0
    for i in range(6):
        if not mask[i]:
            continue
        z = np.asarray(LOGITS[i], float).tolist()
        partition = sum(math.exp(x) for x in z)
        loss = 0.0
        for c in range(4):
            q = smoothing / 4 + (1 - smoothing) * (c == int(CLASSES[i]))
            loss -= q * math.log(math.exp(z[c]) / partition)
        total += weights[int(CLASSES[i])] * loss
        norm += weights[int(CLASSES[i])]
    return total / norm


def sigmoid_by_loops(smoothing, weights, mask):
    total = norm = 0.0
    for i, c in np.ndindex(6, 4):
        if not mask[i]:
            continue
        p = 1 / (1 + math.exp(-float(LOGITS[i, c])))
        q = smoothing / 2 + (1 - smoothing) * int(LABELS[i, c])
        total -= weights[c] * (q * math.log(p) + (1 - q) * math.log(1 - p))
        norm += weights[c]
    return total / norm


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("mask", [None, MASK])
def test_equal_loops(smoothing, weights, mask):
    options = {
        "label_smoothing": smoothing,
        "class_weights": weights,
        "mask": mask,
    }
    given = np.ones(4) if weights is None else np.asarray(weights, float)
    kept = np.ones(6) if mask is None else np.asarray(mask)
    found = softmax_cross_entropy(LOGITS, CLASSES, **options)
    np.testing.assert_allclose(found, softmax_by_loops(smoothing, given, kept), 1e-5)
    found = sigmoid_cross_entropy(LOGITS, LABELS, **options)
    np.testing.assert_allclose(found, sigmoid_by_loops(smoothing, given, kept), 1e-5)


def test_equal_optax():
    np.testing.assert_allclose(
        softmax_cross_entropy(LOGITS, CLASSES),
        optax.softmax_cross_entropy_with_integer_labels(LOGITS, CLASSES).mean(),
        rtol=1e-6,
    )
    smooth = optax.smooth_labels(jax.nn.one_hot(CLASSES, 4), 0.2)
    np.testing.assert_allclose(
        softmax_cross_entropy(LOGITS, CLASSES, label_smoothing=0.2),
        optax.softmax_cross_entropy(LOGITS, smooth).mean(),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        sigmoid_cross_entropy(LOGITS, LABELS),
        optax.sigmoid_binary_cross_entropy(LOGITS, LABELS).mean(),
        rtol=1e-6,
    )


def test_hand_values():
    logits = jnp.log(jnp.array([[0.25, 0.75], [0.9, 0.1]]))
    found = softmax_cross_entropy(logits, jnp.array([1, 0]))
    assert float(found) == pytest.approx(-(math.log(0.75) + math.log(0.9)) / 2)
    weights = jnp.array([1.0, 3.0])
    found = softmax_cross_entropy(logits, jnp.array([1, 0]), class_weights=weights)
    assert float(found) == pytest.approx(-(3 * math.log(0.75) + math.log(0.9)) / 4)
    odds = jnp.array([[math.log(3), 0.0]])  # σ = 3/4 and 1/2
    found = sigmoid_cross_entropy(odds, jnp.array([[0, 1]]))
    assert float(found) == pytest.approx((math.log(4) + math.log(2)) / 2)
    unknown = sigmoid_cross_entropy(odds, jnp.array([[0, 1]]), mask=jnp.array([[1, 0]]))
    assert float(unknown) == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("loss", "targets"),
    [(softmax_cross_entropy, CLASSES), (sigmoid_cross_entropy, LABELS)],
)
def test_masked_items_have_no_say_whatever_they_hold(loss, targets):
    bad = jnp.where(MASK[:, None] == 0, jnp.nan, LOGITS)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda z: loss(z, targets, mask=MASK))
    )(bad)
    np.testing.assert_allclose(value, loss(LOGITS, targets, mask=MASK), rtol=1e-6)
    assert (gradient[MASK == 0] == 0).all() and (gradient[MASK == 1] != 0).all()
    kept = np.flatnonzero(np.asarray(MASK))
    np.testing.assert_allclose(value, loss(LOGITS[kept], targets[kept]), rtol=1e-6)
    nobody = jax.value_and_grad(lambda z: loss(z, targets, mask=jnp.zeros(6)))(bad)
    assert nobody[0] == 0 and (nobody[1] == 0).all()


def test_an_item_without_a_class_does_not_count_and_a_class_too_many_is_nan():
    unlabelled = jnp.where(MASK == 1, CLASSES, -1)
    np.testing.assert_array_equal(
        softmax_cross_entropy(LOGITS, unlabelled),
        softmax_cross_entropy(LOGITS, CLASSES, mask=MASK),
    )
    beyond = CLASSES.at[2].set(4)
    assert jnp.isnan(softmax_cross_entropy(LOGITS, beyond))
    weighted = softmax_cross_entropy(LOGITS, beyond, class_weights=WEIGHTS)
    assert jnp.isnan(weighted)


@pytest.mark.parametrize(
    ("loss", "targets"),
    [(softmax_cross_entropy, CLASSES), (sigmoid_cross_entropy, LABELS)],
)
def test_extremes_dtypes_and_gradients(loss, targets):
    value, gradient = jax.value_and_grad(lambda z: loss(z, targets))(1e30 * LOGITS)
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()
    options = {"class_weights": WEIGHTS, "label_smoothing": 0.1, "mask": MASK}
    narrow = jax.jit(lambda z: loss(z, targets, **options))(LOGITS.astype(jnp.bfloat16))
    assert narrow.dtype == jnp.bfloat16
    wide = loss(LOGITS, targets, **options)
    np.testing.assert_allclose(narrow.astype(jnp.float32), wide, rtol=0.02)
    with jax.enable_x64(True):
        exact = jnp.asarray(np.asarray(LOGITS, np.float64))
        check_grads(lambda z: loss(z, targets, **options), (exact,), 1, ["rev"])


def test_balanced_weights_give_every_class_the_same_say():
    counts = jnp.array([6, 2, 0])
    weights = balanced_weights(counts)
    np.testing.assert_allclose(weights * counts, [4, 4, 0])
    assert (balanced_weights(jnp.zeros(3)) == 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: softmax_cross_entropy(LOGITS[0], CLASSES), r"logits \[B, C\].*\(4,\)"),
        (
            lambda: softmax_cross_entropy(LABELS, CLASSES),
            "softmax.* real logits, got i",
        ),
        (lambda: sigmoid_cross_entropy(LABELS, LABELS), "sigmoid.* real logits, got i"),
        (lambda: softmax_cross_entropy(LOGITS, LABELS), "use sigmoid_cross_entropy"),
        (lambda: softmax_cross_entropy(LOGITS, CLASSES * 1.0), "whole numbers, got f"),
        (lambda: sigmoid_cross_entropy(LOGITS, CLASSES), "use softmax_cross_entropy"),
        (
            lambda: softmax_cross_entropy(LOGITS, CLASSES, class_weights=WEIGHTS[:3]),
            r"class_weights \[C\] = \(4,\), got \(3,\)",
        ),
        (
            lambda: softmax_cross_entropy(LOGITS, CLASSES, label_smoothing=2.0),
            "label_smoothing of 0 to 1, got 2.0",
        ),
        (
            lambda: softmax_cross_entropy(LOGITS, CLASSES, mask=LABELS),
            r"mask \[B\] = \(6,\), got \(6, 4\)",
        ),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
