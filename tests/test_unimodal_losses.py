"""UniS-MMC's term and the balance of losses against loops over single numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modal_aware_jax.losses.loss_balance import balance_weights, loss_balanced
from modal_aware_jax.losses.unimodal_contrastive import unimodal_contrastive

RNG = np.random.default_rng(0)
TEXT, IMAGE = (jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32) for _ in range(2))
TEXT_RIGHT = jnp.array([1, 1, 0, 0, 1, 1])
IMAGE_RIGHT = jnp.array([1, 0, 1, 0, 1, 0])
MASK = jnp.array([1, 1, 1, 1, 0, 1])
FLAGS = TEXT_RIGHT, IMAGE_RIGHT


def by_loops(temperature, mask):
    drawn = every = 0.0
    for i in range(6):
        if not mask[i]:
            continue
        a, b = (np.asarray(x[i], float).tolist() for x in (TEXT, IMAGE))
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        cosine = dot / math.hypot(*a) / math.hypot(*b)
        every += math.exp(cosine / temperature)
        if TEXT_RIGHT[i] or IMAGE_RIGHT[i]:
            drawn += math.exp(cosine / temperature)
    return -math.log(drawn / every)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_loops(temperature):
    for mask in (None, MASK):
        found = unimodal_contrastive(
            TEXT, IMAGE, *FLAGS, temperature=temperature, mask=mask
        )
        kept = np.ones(6) if mask is None else np.asarray(mask)
        assert float(found) == pytest.approx(by_loops(temperature, kept), abs=2e-6)


def test_the_right_modality_stays_and_the_wrong_one_moves():
    bad = jnp.where(MASK[:, None] == 0, jnp.nan, IMAGE)

    def loss(text, image):
        return unimodal_contrastive(text, image, *FLAGS, temperature=0.5, mask=MASK)

    by_text, by_image = jax.jit(jax.grad(loss, (0, 1)))(TEXT, bad)
    moves = [[bool(x) for x in np.any(g != 0, axis=1)] for g in (by_text, by_image)]
    assert moves[0] == [True, False, True, True, False, False]
    assert moves[1] == [True, True, False, True, False, True]

    # A step draws pairs with a right side together and the wrong pair apart.
    def cosine(a, b):
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return np.sum(a * b, axis=1) / norms

    stepped = np.asarray(TEXT - 0.1 * by_text), np.asarray(IMAGE - 0.1 * by_image)
    change = cosine(*stepped) - cosine(np.asarray(TEXT), np.asarray(IMAGE))
    assert (change[[0, 1, 2, 5]] > 0).all() and change[3] < 0 and change[4] == 0


def test_extremes_stay_finite_and_nobody_right_is_zero():
    nobody = jnp.zeros(6)
    value, gradient = jax.value_and_grad(unimodal_contrastive)(
        TEXT, IMAGE, nobody, nobody
    )
    assert value == 0 and (gradient == 0).all()
    for scale in (0.0, 1e15):
        value, gradient = jax.value_and_grad(unimodal_contrastive)(
            scale * TEXT, IMAGE, *FLAGS
        )
        assert jnp.isfinite(value) and jnp.isfinite(gradient).all()
    narrow = unimodal_contrastive(
        *(x.astype(jnp.bfloat16) for x in (TEXT, IMAGE)), *FLAGS
    )
    assert narrow.dtype == jnp.bfloat16


def test_balance_by_hand():
    losses = jnp.array([0.2, 0.6, 1.0])
    np.testing.assert_allclose(balance_weights(losses), [1 / 3, 1, 5 / 3], rtol=1e-6)
    np.testing.assert_allclose(
        balance_weights(losses, strength=2), 3 * np.array([1, 9, 25]) / 35, rtol=1e-5
    )
    np.testing.assert_allclose(loss_balanced(losses), (0.04 + 0.36 + 1) / 1.8, 1e-6)
    np.testing.assert_allclose(loss_balanced(losses, strength=0), 0.6, rtol=1e-6)
    gradient = jax.jit(jax.grad(loss_balanced))(losses)
    np.testing.assert_allclose(gradient, [1 / 9, 1 / 3, 5 / 9], rtol=1e-6)
    zeros = jax.value_and_grad(loss_balanced)(jnp.zeros(2))
    assert zeros[0] == 0 and jnp.isfinite(zeros[1]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: unimodal_contrastive(TEXT, IMAGE[:, :3], *FLAGS), r"\(6, 3\)"),
        (
            lambda: unimodal_contrastive(TEXT, IMAGE, TEXT_RIGHT[:2], IMAGE_RIGHT),
            r"text_right \[B\] = \(6,\), got \(2,\)",
        ),
        (
            lambda: unimodal_contrastive(TEXT, jnp.ones((6, 4), int), *FLAGS),
            "unimodal_contrastive: expected real image vectors, got int",
        ),
        (lambda: loss_balanced(jnp.array([1, 2])), "real losses, got int"),
        (lambda: loss_balanced(jnp.float32(1)), r"losses \[M\].*\(\)"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
