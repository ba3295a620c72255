"""Losses of probabilities of relevance, against loops and enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modal_aware_jax.experiment.losses import LOSSES
from modal_aware_jax.hashing.codes import pack
from modal_aware_jax.losses.expected_ap import expected_average_precision_loss
from modal_aware_jax.losses.expected_ndcg import expected_ndcg_loss
from modal_aware_jax.losses.soft_relevance import (
    full_length,
    predicted_relevance,
    relevance_divergence,
    soft_relevance_ap_loss,
)
from modal_aware_jax.retrieval.graded import ndcg_at

# One program in place of one for every operation.
divergence = jax.jit(relevance_divergence)
ap_loss = jax.jit(soft_relevance_ap_loss)
ap_slope = jax.jit(jax.value_and_grad(soft_relevance_ap_loss))
ndcg_loss = jax.jit(expected_ndcg_loss)
ndcg_slope = jax.jit(jax.value_and_grad(expected_ndcg_loss))


def _codes(rows, bits, seed=0):
    random = np.random.RandomState(seed)
    return random.choice([-1.0, 1.0], (rows, bits)).astype(np.float32)


def _labels(rows, labels, seed=1):
    return (np.random.RandomState(seed).rand(rows, labels) < 0.3).astype(np.uint8)


def test_predicted_relevance_by_loops():
    random = np.random.RandomState(0)
    a, b = (random.normal(0, 3, (n, 4)).astype(np.float32) for n in (3, 5))
    p, q = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))
    expected = np.zeros((3, 5))
    for i, j in np.ndindex(3, 5):
        none = 1.0
        for label in range(4):
            none *= 1 - p[i, label] * q[j, label]
        expected[i, j] = 1 - none
    np.testing.assert_allclose(predicted_relevance(a, b), expected, atol=1e-6)


def test_predicted_relevance_has_no_gradient():
    slope = jax.grad(lambda a: predicted_relevance(a, a).sum())(jnp.ones((2, 3)))
    assert not slope.any()


def test_average_precision_of_certain_relevances_is_that_of_labels():
    h = np.tanh(np.random.RandomState(2).normal(0, 1, (30, 8))).astype(np.float32)
    labels = _labels(30, 4)
    expected = jax.jit(expected_average_precision_loss)(h, labels)
    shared = (labels @ labels.T > 0).astype(np.float32)
    assert float(ap_loss(h, shared)) == pytest.approx(float(expected), abs=1e-5)


def _by_enumeration(codes, relevance):
    """1 − mean over anchors of E[Σ precision at relevant places] / E[relevant]."""
    values, count = [], len(codes)
    distance = (codes.shape[1] - codes @ codes.T) / 2
    for i in range(count):
        others = [j for j in range(count) if j != i]
        sums, orders = 0.0, 0
        for order in itertools.permutations(others):
            if (np.diff(distance[i, list(order)]) < 0).any():
                continue
            orders += 1
            for outcome in itertools.product([0, 1], repeat=count - 1):
                chances = [
                    relevance[i, j] if o else 1 - relevance[i, j]
                    for j, o in zip(order, outcome, strict=True)
                ]
                hits = np.array(outcome)
                precision = np.cumsum(hits) / np.arange(1, count)
                sums += np.prod(chances) * precision[hits == 1].sum()
        values.append(sums / orders / relevance[i, others].sum())
    return 1 - np.mean(values)


def test_average_precision_of_probabilities_by_enumeration():
    codes = _codes(5, 3, seed=3)
    relevance = np.random.RandomState(4).rand(5, 5).astype(np.float32)
    expected = _by_enumeration(codes, relevance)
    assert float(ap_loss(codes, relevance)) == pytest.approx(expected, abs=1e-5)


def test_full_length_keeps_the_direction_and_has_no_nan_at_zero():
    h = jnp.array([[0.3, -0.4], [0.0, 0.0]])
    long = full_length(h)
    slope = jax.jit(jax.grad(lambda h: full_length(h).sum()))(h)
    np.testing.assert_allclose(long[0], np.array([0.6, -0.8]) * 2**0.5, rtol=1e-6)
    assert not long[1].any() and jnp.isfinite(slope).all()


def test_divergence_by_loops():
    random = np.random.RandomState(5)
    h = np.tanh(random.normal(0, 1, (6, 4))).astype(np.float32)
    relevance = random.rand(6, 6).astype(np.float32)
    relevance[2] = 0  # leaves the mean
    values = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        if not relevance[i, others].any():
            continue
        logits = [float(h[i] @ h[j]) / (4 * 0.5) for j in others]
        total = sum(np.exp(x) for x in logits)
        share = relevance[i, others] / relevance[i, others].sum()
        pairs = zip(share, logits, strict=True)
        values.append(sum(t * np.log(t / (np.exp(x) / total)) for t, x in pairs))
    got = divergence(h, relevance, temperature=0.5)
    assert float(got) == pytest.approx(np.mean(values), abs=1e-5)


def test_divergence_is_least_where_similarities_follow_the_relevances():
    labels = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    relevance = labels @ labels.T
    apart = np.repeat([[1.0, 1.0], [-1.0, -1.0]], 3, axis=0)
    value_and_slope = jax.jit(jax.value_and_grad(relevance_divergence))
    good, slope = value_and_slope(jnp.array(apart), relevance)
    bad, _ = value_and_slope(jnp.array(apart[[0, 3, 1, 4, 2, 5]]), relevance)
    assert good < 0.01 < bad and jnp.isfinite(slope).all()


def _ndcg(codes, labels):
    packed, values = np.asarray(pack(codes.astype(np.int8))), []
    for i in range(len(codes)):
        rest = np.arange(len(codes)) != i
        if (labels[rest] & labels[i]).any():
            values.append(
                ndcg_at(
                    packed[i : i + 1],
                    packed[rest],
                    labels[i : i + 1],
                    labels[rest],
                    num_bits=codes.shape[1],
                    ns=(len(codes) - 1,),
                )[0]
            )
    return 1 - np.mean(values)


def test_ndcg_equals_the_evaluator_at_codes():
    codes, labels = _codes(40, 6), _labels(40, 5)
    expected = _ndcg(codes, labels)
    assert float(ndcg_loss(codes, labels)) == pytest.approx(expected, abs=1e-4)


def test_gradients_are_finite_also_at_codes_and_equal_rows():
    codes, labels = _codes(30, 6), _labels(30, 5)
    relevance = np.random.RandomState(6).rand(30, 30).astype(np.float32)
    for h in (codes, np.tanh(codes), np.zeros_like(codes), np.ones_like(codes)):
        for slope, target in ((ndcg_slope, labels), (ap_slope, relevance)):
            _, grad = slope(h, target)
            assert grad.dtype == h.dtype and jnp.isfinite(grad).all()


def test_gradient_is_the_slope():
    h = np.random.RandomState(7).uniform(-0.9, 0.9, (12, 6))
    labels, relevance = _labels(12, 3), np.random.RandomState(8).rand(12, 12)
    with jax.enable_x64(True):
        h, step = jnp.array(h, jnp.float64), 1e-6
        for slope, target in ((ndcg_slope, labels), (ap_slope, relevance)):
            _, grad = slope(h, target)
            up, down = (slope(h.at[5, 3].add(d), target)[0] for d in (step, -step))
            assert float(up - down) / (2 * step) == pytest.approx(
                float(grad[5, 3]), abs=1e-6
            )


def test_nothing_relevant_is_no_loss():
    codes, zeros = _codes(30, 6), np.zeros((30, 30), np.float32)
    none = np.zeros((30, 5), np.uint8)
    for slope, target in ((ap_slope, zeros), (ndcg_slope, none)):
        value, grad = slope(codes, target)
        assert float(value) == 0 and not grad.any()
    assert float(divergence(codes, zeros)) == 0


def test_a_share_of_the_label_head_teaches():
    random = np.random.RandomState(9)
    u, logits = (random.normal(0, 1, (30, n)).astype(np.float32) for n in (8, 4))
    batch = {"labels": _labels(30, 4), "label_logits": logits}
    asked = {
        "labels": ("expected_ap", {}),
        "half": ("soft_ap", {"share": 0.5}),
        "both": ("listwise", {"weight": 3.0, "ap_weight": 10.0}),
    }

    def loss_of(name, options):
        return LOSSES[name].make(None, **LOSSES[name].options | options)

    @jax.jit
    def values(u, batch):
        return {key: loss_of(*row)(u, batch, None) for key, row in asked.items()}

    got = {key: float(value) for key, value in values(u, batch).items()}
    taught = predicted_relevance(logits, logits)
    shared = _labels(30, 4) @ _labels(30, 4).T > 0
    half = 10 * float(ap_loss(np.tanh(u), (taught + shared) / 2))
    assert got["half"] == pytest.approx(half, abs=1e-4)
    listwise = float(divergence(np.tanh(u), taught, temperature=0.1))
    assert got["both"] == pytest.approx(3 * listwise + got["labels"], abs=1e-3)


def test_messages():
    with pytest.raises(ValueError, match=r"\[B, L\] and \[N, L\].*\(2, 3\)"):
        predicted_relevance(np.ones((2, 3)), np.ones((2, 4)))
    for loss in (soft_relevance_ap_loss, relevance_divergence):
        with pytest.raises(ValueError, match=rf"{loss.__name__}: .*\(2, 4\)"):
            loss(np.ones((2, 4), np.float32), np.ones((2, 4)))
        with pytest.raises(ValueError, match="real codes, got int8"):
            loss(np.ones((2, 4), np.int8), np.ones((2, 2)))
