"""Triplet losses against triple loops over the items of a batch."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from modal_aware_jax.losses import triplet, triplet_graded, triplet_mining
from modal_aware_jax.losses.distance import euclidean, squared_euclidean

# Compiled: the eager form is compared with them once, in its own test.
triplet_ranking = jax.jit(triplet.triplet_ranking, static_argnames="distance")
triplet_ranking_chunked = jax.jit(
    triplet.triplet_ranking_chunked, static_argnames=("distance", "anchors")
)
ninh = jax.jit(triplet.ninh)
active_triplets = jax.jit(triplet_mining.active_triplets)
batch_hard = jax.jit(triplet_mining.batch_hard)
semi_hard = jax.jit(triplet_mining.semi_hard)
graded_margin = jax.jit(triplet_graded.graded_margin)
graded_weight = jax.jit(triplet_graded.graded_weight)

LOSSES = [
    triplet_ranking,
    triplet_ranking_chunked,
    ninh,
    active_triplets,
    batch_hard,
    semi_hard,
    graded_margin,
    graded_weight,
]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)


@functools.cache
def with_gradient(loss):
    """Value and gradient by one program a shape."""
    return jax.jit(jax.value_and_grad(loss))


def batch(items=9, bits=5, seed=0):
    rng = np.random.default_rng(seed)
    h = np.tanh(rng.normal(size=(items, bits)))
    return h, (rng.random((items, 4)) < 0.35).astype(np.uint8)


def share(labels, i, j):
    return sum(int(p) * int(q) for p, q in zip(labels[i], labels[j], strict=True))


def dist(h, i, j):
    return math.dist(h[i], h[j])


def valid_triplets(labels):
    items = range(len(labels))
    for i in items:
        for j in items:
            for k in items:
                if j != i and share(labels, i, j) and k != i:
                    if share(labels, i, k) == 0:
                        yield i, j, k


def loop_all(h, labels, margin, power=1):
    terms = [
        max(0.0, margin + dist(h, i, j) ** power - dist(h, i, k) ** power)
        for i, j, k in valid_triplets(labels)
    ]
    return sum(terms) / len(terms)


def test_hand_value():
    # One anchor pair at distance 0, one item of another label at distance 2√2 from
    # the first and at 2√2 from the second: two triplets, both max(0, 3 − 2√2).
    h = jnp.array([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    labels = jnp.array([[1, 0], [1, 1], [0, 0]])
    value = triplet_ranking(h, labels, margin=3.0)
    np.testing.assert_allclose(value, 3 - 2 * math.sqrt(2), rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_all_triplets_equal_a_triple_loop(seed):
    h, labels = batch(seed=seed)
    np.testing.assert_allclose(
        triplet_ranking(h, labels, margin=1.5), loop_all(h, labels, 1.5), 1e-5
    )
    squared = triplet_ranking(h, labels, distance=squared_euclidean)
    np.testing.assert_allclose(squared, loop_all(h, labels, 2.0, power=2), 1e-5)


@pytest.mark.parametrize("anchors", [1, 4, 9, 100])
def test_chunks_change_nothing(anchors):
    h, labels = batch()

    def chunked(h):
        return triplet_ranking_chunked(h, labels, margin=1.5, anchors=anchors)

    def whole(h):
        return triplet_ranking(h, labels, margin=1.5)

    h = jnp.asarray(h)
    np.testing.assert_allclose(chunked(h), whole(h), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(chunked)(h), jax.grad(whole)(h), atol=1e-6)


def test_ninh_is_squared_distances_of_sigmoids():
    h, labels = batch(seed=4)
    u = 3 * h
    expected = loop_all(1 / (1 + np.exp(-u)), labels, 1.0, power=2)
    np.testing.assert_allclose(ninh(u, labels), expected, rtol=1e-5)


def test_active_triplets_equal_a_triple_loop():
    h, labels = batch(seed=5)
    terms = [0.3 + dist(h, i, j) - dist(h, i, k) for i, j, k in valid_triplets(labels)]
    active = [t for t in terms if t > 0]
    assert 0 < len(active) < len(terms)
    np.testing.assert_allclose(
        active_triplets(h, labels, margin=0.3),
        sum(active) / len(active),
        rtol=1e-5,
    )


@pytest.mark.parametrize("seed", range(3))
def test_batch_hard_equals_a_loop(seed):
    h, labels = batch(seed=seed)
    terms = []
    for i in range(len(h)):
        mine = [(j, k) for a, j, k in valid_triplets(labels) if a == i]
        if mine:
            farthest = max(dist(h, i, j) for j, _ in mine)
            nearest = min(dist(h, i, k) for _, k in mine)
            terms.append(max(0.0, 1.0 + farthest - nearest))
    np.testing.assert_allclose(
        batch_hard(h, labels, margin=1.0),
        sum(terms) / len(terms),
        rtol=1e-5,
    )


@pytest.mark.parametrize("seed", range(3))
def test_semi_hard_equals_a_loop(seed):
    h, labels = batch(items=14, seed=seed)
    terms, fallbacks = [], 0
    for i, j in sorted({(i, j) for i, j, _ in valid_triplets(labels)}):
        negatives = [
            dist(h, i, k) for k in range(len(h)) if k != i and not share(labels, i, k)
        ]
        farther = [d for d in negatives if d > dist(h, i, j)]
        fallbacks += not farther
        chosen = min(farther) if farther else max(negatives)
        terms.append(max(0.0, 1.0 + dist(h, i, j) - chosen))
    assert fallbacks  # both rules are exercised
    np.testing.assert_allclose(
        semi_hard(h, labels, margin=1.0),
        sum(terms) / len(terms),
        rtol=1e-5,
    )


def test_graded_losses_equal_a_triple_loop():
    rng = np.random.default_rng(6)
    h, labels = batch(seed=6)
    labels = (rng.random(labels.shape) < 0.6).astype(np.uint8)
    by_margin, by_weight, weights = [], [], []
    items = range(len(h))
    for i, j, k in ((i, j, k) for i in items for j in items for k in items):
        own, near, far = (share(labels, i, x) for x in (i, j, k))
        if j != i and near > far:
            d = dist(h, i, j) - dist(h, i, k)
            weight = (2**near - 2**far) / 2**own
            by_margin.append(max(0.0, 2.0 * (near - far) / own + d))
            by_weight.append(weight * max(0.0, 2.0 + d))
            weights.append(weight)
    np.testing.assert_allclose(
        graded_margin(h, labels), sum(by_margin) / len(by_margin), 1e-5
    )
    np.testing.assert_allclose(
        graded_weight(h, labels), sum(by_weight) / sum(weights), 1e-5
    )


def test_graded_margin_with_one_label_each_is_triplet_ranking():
    h, _ = batch()
    labels = np.eye(3, dtype=np.uint8)[np.arange(len(h)) % 3]
    np.testing.assert_allclose(
        graded_margin(h, labels),
        triplet_ranking(h, labels),
        rtol=1e-6,
    )


@every_loss
def test_gradient_equals_finite_differences(loss):
    h, labels = batch(seed=7)
    with jax.enable_x64(True):
        check_grads(
            lambda h: loss(h, labels), (jnp.asarray(h),), order=1, modes=["rev"]
        )


@every_loss
def test_order_of_the_batch_is_irrelevant(loss):
    h, labels = batch(seed=8)
    order = np.random.default_rng(0).permutation(len(h))
    np.testing.assert_allclose(
        loss(h[order], labels[order]), loss(h, labels), rtol=1e-5
    )


@every_loss
def test_same_without_jit_and_in_every_label_dtype(loss):
    h, labels = batch(seed=9)
    expected = loss(h, labels)
    assert expected > 0
    with jax.disable_jit():
        np.testing.assert_allclose(loss(h, labels), expected, rtol=1e-6)
    for dtype in (bool, np.float32):
        np.testing.assert_allclose(loss(h, labels.astype(dtype)), expected, rtol=1e-6)


@every_loss
def test_labels_do_not_wrap_around(loss):
    # 256 shared labels are 0 in uint8.
    h, _ = batch(items=4)
    labels = np.zeros((4, 257), np.uint8)
    labels[:2, :256] = 1
    labels[2:, 256] = 1
    assert loss(h, labels) > 0


@every_loss
@pytest.mark.parametrize(
    "labels",
    [np.zeros((4, 4)), np.ones((4, 4)), np.eye(4), np.zeros((1, 4)), np.ones((1, 4))],
    ids=["no labels", "all alike", "all different", "one without", "one item"],
)
def test_zero_without_valid_triplets(loss, labels):
    h = np.asarray(batch(items=len(labels))[0], np.float32)
    value, gradient = with_gradient(loss)(h, labels)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(h))


@every_loss
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-19, 1e-3, 1.0, 1e6])
def test_gradients_are_finite(loss, scale):
    h, labels = batch()
    h = np.asarray(scale * h, np.float32)
    h[1] = h[0]  # duplicates: distance exactly 0
    value, gradient = with_gradient(loss)(h, labels)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_distance_zero_costs_the_margin():
    labels = jnp.array([[1, 0], [1, 0], [0, 1]])
    value, gradient = jax.value_and_grad(triplet_ranking)(jnp.zeros((3, 8)), labels)
    assert value == 2.0
    np.testing.assert_array_equal(gradient, np.zeros((3, 8)))


@every_loss
def test_dtype_is_kept(loss):
    h, labels = batch(seed=9)
    expected = float(loss(h, labels))
    for dtype in (jnp.bfloat16, jnp.float32):
        value = loss(jnp.asarray(h, dtype), labels)
        assert value.dtype == dtype
        np.testing.assert_allclose(float(value), expected, rtol=0.05)
    with jax.enable_x64(True):
        assert loss(jnp.asarray(h), labels).dtype == jnp.float64


def test_a_large_batch_keeps_its_digits():
    rng = np.random.default_rng(0)
    h, labels = rng.normal(size=(300, 2)), rng.random((300, 6)) < 0.2
    d = np.sqrt(((h[:, None] - h[None, :]) ** 2).sum(axis=-1))
    shared = labels.astype(int) @ labels.T.astype(int)
    terms = [
        np.maximum(2 + d[i, others][:, None] - d[i, shared[i] == 0][None, :], 0)
        for i in range(300)
        if shared[i].any()
        for others in [(shared[i] > 0) & (np.arange(300) != i)]
    ]
    # An anchor without labels has no positives, so it never enters.
    expected = sum(t.sum() for t in terms) / sum(t.size for t in terms)
    np.testing.assert_allclose(triplet_ranking(h, labels), expected, rtol=1e-6)


@every_loss
def test_wrong_shapes_are_named(loss):
    h, labels = batch()
    with pytest.raises(ValueError, match=rf"{loss.__name__}.*\(9, 5\) and \(8, 4\)"):
        loss(h, labels[:8])
    with pytest.raises(ValueError, match="one_hot"):
        loss(h, labels[:, 0])
    with pytest.raises(ValueError, match="relaxed codes"):
        loss(np.ones((9, 5), np.int8), labels)


def test_chunk_size_is_checked():
    with pytest.raises(ValueError, match="anchors >= 1"):
        triplet_ranking_chunked(*batch(), anchors=0)


def test_euclidean_is_exact_down_to_zero():
    a = jnp.array([[0.0, 0.0], [3e-18, 4e-18], [3.0, 4.0]])
    np.testing.assert_allclose(euclidean(a[:1], a)[0], [0, 5e-18, 5], rtol=1e-6)
