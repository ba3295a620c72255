"""The losses between images and texts against loops over pairs, and their edges."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modal_aware_jax.hashing.codes import pack
from modal_aware_jax.losses.cross_modal_ap import cross_modal_average_precision_loss
from modal_aware_jax.losses.dcmh import dcmh
from modal_aware_jax.losses.info_nce import info_nce, label_info_nce
from modal_aware_jax.losses.sigmoid_pairs import sigmoid_pairs
from modal_aware_jax.losses.vse import max_hinge, sum_hinge
from modal_aware_jax.retrieval.metrics import average_precision

B = 6
GROUPS = np.array([0, 1, 1, 2, 3, 0])
MASK = np.array([1, 1, 1, 1, 0, 1])
LABELS = np.array([[1, 0], [0, 1], [0, 0], [1, 1], [1, 0], [0, 1]], np.uint8)


def batch(seed=0, features=5, dtype=np.float32):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(B, features))
    return image.astype(dtype), (image + rng.normal(size=(B, features))).astype(dtype)


def cosine(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (
        math.hypot(*a) * math.hypot(*b)
    )


def questions(image, text, groups, mask):
    """(i, c_ii, negatives of image i among texts, of text i among images)."""
    for i in range(B):
        if not mask[i]:
            continue
        others = [j for j in range(B) if mask[j] and j != i and groups[j] != groups[i]]
        yield (
            cosine(image[i], text[i]),
            [cosine(image[i], text[j]) for j in others],
            [cosine(image[j], text[i]) for j in others],
        )


def loop_info_nce(rows, scale):
    terms = []
    for right, *sides in rows:
        for wrong in sides:
            total = sum(math.exp(scale * c) for c in [right, *wrong])
            terms.append(-math.log(math.exp(scale * right) / total))
    return sum(terms) / len(terms)


def loop_sigmoid(rows, scale, bias):
    rows = list(rows)
    total = 0.0
    for right, wrong, _ in rows:
        total += math.log(1 + math.exp(-(scale * right + bias)))
        total += sum(math.log(1 + math.exp(scale * c + bias)) for c in wrong)
    return total / len(rows)


def loop_hinge(rows, margin, over):
    rows = list(rows)
    return sum(
        over([max(0.0, margin - right + c) for c in wrong] or [0.0])
        for right, *sides in rows
        for wrong in sides
    ) / len(rows)


LOSSES = {
    "info_nce": (
        functools.partial(info_nce, scale=3.0),
        lambda rows: loop_info_nce(rows, 3.0),
    ),
    "sigmoid_pairs": (
        functools.partial(sigmoid_pairs, scale=2.0, bias=-1.0),
        lambda rows: loop_sigmoid(rows, 2.0, -1.0),
    ),
    "sum_hinge": (
        functools.partial(sum_hinge, margin=0.3),
        lambda rows: loop_hinge(rows, 0.3, sum),
    ),
    "max_hinge": (
        functools.partial(max_hinge, margin=0.3),
        lambda rows: loop_hinge(rows, 0.3, max),
    ),
}
# One program a loss serves its value and its gradients.
GRADIENTS = {
    name: jax.jit(jax.value_and_grad(loss, (0, 1)))
    for name, (loss, _) in LOSSES.items()
}


def value_of(name):
    return lambda *args, **arguments: GRADIENTS[name](*args, **arguments)[0]


def check_slope(value_and_grads, *sides):
    """The gradients against a central difference, in float64."""
    rng = np.random.default_rng(0)
    steps = [1e-6 * rng.normal(size=x.shape) for x in sides]
    _, gradients = value_and_grads(*sides)
    above, _ = value_and_grads(*(x + d for x, d in zip(sides, steps, strict=True)))
    below, _ = value_and_grads(*(x - d for x, d in zip(sides, steps, strict=True)))
    slope = sum(np.sum(g * d) for g, d in zip(gradients, steps, strict=True))
    assert above.dtype == np.float64
    np.testing.assert_allclose(slope, (above - below) / 2, rtol=1e-5)


each_loss = pytest.mark.parametrize("name", LOSSES)


@each_loss
@pytest.mark.parametrize("groups,mask", [(None, None), (GROUPS, MASK)])
def test_equals_a_loop_over_the_pairs(name, groups, mask):
    loop = LOSSES[name][1]
    image, text = batch()
    rows = questions(
        image.astype(float),
        text.astype(float),
        np.arange(B) if groups is None else groups,
        np.ones(B) if mask is None else mask,
    )
    value = value_of(name)(image, text, groups=groups, mask=mask)
    np.testing.assert_allclose(value, loop(rows), rtol=2e-5)


@each_loss
def test_gradient_equals_finite_differences(name):
    with jax.enable_x64(True):
        image, text = batch(dtype=np.float64)
        loss = functools.partial(GRADIENTS[name], groups=GROUPS, mask=MASK)
        check_slope(loss, image, text)


@each_loss
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_extremes_have_finite_gradients(name, scale):
    image, text = (jnp.float32(scale) * x for x in batch())
    image, text = image.at[1].set(0), text.at[2].set(image[2])
    value, gradients = GRADIENTS[name](
        image, text, groups=np.arange(B), mask=np.ones(B, int)
    )
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


@each_loss
def test_masked_rows_have_no_say_even_where_they_hold_nan(name):
    image, text = batch()
    before = value_of(name)(image, text, groups=GROUPS, mask=MASK)
    image[4], text[4] = np.nan, np.inf
    loss = functools.partial(GRADIENTS[name], image, text, groups=GROUPS)
    value, gradients = loss(mask=MASK)
    np.testing.assert_allclose(value, before, rtol=1e-6)
    assert all(np.isfinite(g).all() for g in gradients)
    assert not any(g[4].any() for g in gradients)
    value, gradients = loss(mask=np.zeros(B, int))
    assert value == 0 and not any(g.any() for g in gradients)


@each_loss
def test_one_group_alone_has_no_negative(name):
    image, text = batch()
    loss = functools.partial(
        value_of(name), groups=np.zeros(B, int), mask=np.ones(B, int)
    )
    right = [cosine(i, t) for i, t in zip(image, text, strict=True)]
    expected = 0.0
    if name == "sigmoid_pairs":
        expected = np.mean([math.log(1 + math.exp(1 - 2 * c)) for c in right])
    np.testing.assert_allclose(loss(image, text), expected, atol=1e-6)


@each_loss
def test_length_and_order_are_irrelevant_and_the_dtype_is_kept(name):
    loss = functools.partial(value_of(name), mask=np.ones(B, int))
    image, text = batch()
    order = np.random.default_rng(0).permutation(B)
    value = loss(image, text, groups=GROUPS)
    moved = loss(5 * image[order], text[order] / 7, groups=GROUPS[order])
    np.testing.assert_allclose(moved, value, rtol=1e-5)
    half = [jnp.asarray(x, jnp.bfloat16) for x in (image, text)]
    half = loss(*half, groups=GROUPS)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(float), value, rtol=0.05)


@each_loss
def test_wrong_shapes_are_named(name):
    loss = LOSSES[name][0]
    image, text = batch()
    with pytest.raises(ValueError, match=rf"{name}.*a pair, got \(6, 5\) and \(5, 5\)"):
        loss(image, text[1:])
    with pytest.raises(ValueError, match=rf"{name}: expected groups of shape \(6,\)"):
        loss(image, text, groups=GROUPS[1:])
    with pytest.raises(ValueError, match=rf"{name}: expected mask of shape \(6,\)"):
        loss(image, text, mask=MASK[None])
    with pytest.raises(ValueError, match=rf"{name}: expected real text emb.*int32"):
        loss(image, text.astype(np.int32))


def test_the_temperature_learns():
    image, text = batch()
    slope = jax.jit(jax.grad(lambda s: info_nce(image, text, scale=s)))(3.0)
    loss = jax.jit(info_nce)
    ends = [float(loss(image, text, scale=3.0 + d)) for d in (-0.01, 0.01)]
    np.testing.assert_allclose(slope, (ends[1] - ends[0]) / 0.02, rtol=0.02)
    gradient = jax.jit(
        jax.grad(lambda p: sigmoid_pairs(image, text, scale=p[0], bias=p[1]))
    )
    grads = gradient((10.0, -10.0))
    assert all(np.isfinite(g) and g != 0 for g in grads)


def test_info_nce_is_the_cross_entropy_of_optax_and_scale_may_be_huge():
    optax = pytest.importorskip("optax")
    image, text = batch()
    scores = np.array([[cosine(i, t) for t in text] for i in image], np.float32) * 5
    entropy = optax.softmax_cross_entropy_with_integer_labels
    both = entropy(scores, np.arange(B)).mean() + entropy(scores.T, np.arange(B)).mean()
    loss = jax.jit(info_nce)
    np.testing.assert_allclose(loss(image, text, scale=5.0), both / 2, rtol=1e-5)
    assert np.isfinite(loss(image, text, scale=1e30))


def test_label_positives_are_averaged_and_one_hot_groups_are_positives():
    image, text = batch()
    scores = np.array([[cosine(i, t) for t in text] for i in image]) * 3

    def loop(positive):
        terms = []
        for table in (scores, scores.T):
            for i in range(B):
                total = math.log(sum(math.exp(s) for s in table[i]))
                own = [j for j in range(B) if positive(i, j)]
                terms.append(sum(total - table[i][j] for j in own) / len(own))
        return sum(terms) / len(terms)

    loss = functools.partial(jax.jit(label_info_nce), image, text, scale=3.0)
    shared = loop(lambda i, j: i == j or (LABELS[i] & LABELS[j]).any())
    np.testing.assert_allclose(loss(LABELS), shared, rtol=1e-5)
    one_hot = np.eye(4, dtype=np.uint8)[GROUPS]
    same = loop(lambda i, j: GROUPS[i] == GROUPS[j])
    np.testing.assert_allclose(loss(one_hot), same, rtol=1e-5)
    own = loop(lambda i, j: i == j)
    np.testing.assert_allclose(loss(0 * LABELS), own, rtol=1e-5)
    kept = np.flatnonzero(MASK)
    alone = jax.jit(label_info_nce)(image[kept], text[kept], LABELS[kept], scale=3.0)
    np.testing.assert_allclose(loss(LABELS, mask=MASK), alone, rtol=1e-6)
    with pytest.raises(ValueError, match=r"expected 0/1 labels \[6, L\], got \(6,\)"):
        label_info_nce(image, text, GROUPS, scale=3.0)


def test_dcmh_equals_equation_one_by_loops():
    image, text = batch(features=4)
    expected = 0.0
    for i in range(B):
        for j in range(B):
            theta = sum(image[i] * text[j]) / 2
            similar = any(LABELS[i] & LABELS[j])
            expected += math.log(1 + math.exp(theta)) - similar * theta
    for i in range(B):
        for k in range(4):
            code = 1.0 if image[i, k] + text[i, k] >= 0 else -1.0
            expected += 0.7 * ((code - image[i, k]) ** 2 + (code - text[i, k]) ** 2)
    for k in range(4):
        expected += 0.2 * (sum(image[:, k]) ** 2 + sum(text[:, k]) ** 2)
    value = jax.jit(dcmh)(
        image, text, LABELS, quantization_weight=0.7, balance_weight=0.2
    )
    np.testing.assert_allclose(value, expected / B**2, rtol=1e-5)


def test_dcmh_gradient_edges_and_errors():
    slopes = jax.jit(jax.value_and_grad(dcmh, (0, 1)))
    with jax.enable_x64(True):
        image, text = batch(dtype=np.float64)
        check_slope(lambda *x: slopes(*x, LABELS), image, text)
    zeros = jnp.zeros((B, 4))
    value, gradients = slopes(zeros, zeros, LABELS)
    # log 2 a pair, and 2 x 4 bits a row that are 1 from their sign.
    np.testing.assert_allclose(value, math.log(2) + 8 * B / B**2, rtol=1e-6)
    assert np.isfinite(gradients).all()
    assert np.isfinite(slopes(zeros + 1e4, zeros - 1e4, LABELS)[0])
    half = jnp.zeros((B, 4), jnp.bfloat16)
    assert jax.eval_shape(dcmh, half, half, LABELS).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="dcmh.*of the same batch"):
        dcmh(zeros, zeros, LABELS[1:])


ranked = jax.jit(cross_modal_average_precision_loss)


@pytest.mark.parametrize("seed", range(3))
def test_cross_modal_average_precision_is_the_evaluators(seed):
    rng = np.random.default_rng(seed)
    image, text = rng.choice([-1.0, 1.0], (2, 9, 5)).astype(np.float32)
    labels = (rng.random((9, 4)) < 0.3).astype(np.uint8)
    labels[0] = 0
    expected = []
    for query, gallery in ((image, text), (text, image)):
        packed = pack(query), pack(gallery)
        found = average_precision(*packed, labels, labels, num_bits=5)
        expected.append(1 - found[labels.any(axis=1)].mean())
    value = ranked(image, text, labels)
    np.testing.assert_allclose(value, np.mean(expected), atol=1e-4)


def test_cross_modal_average_precision_gradient_edges_and_errors():
    slopes = jax.jit(jax.value_and_grad(cross_modal_average_precision_loss, (0, 1)))
    with jax.enable_x64(True):
        image, text = (np.tanh(x) for x in batch(dtype=np.float64))
        check_slope(lambda *x: slopes(*x, LABELS), image, text)
        value, gradients = slopes(image, text, 0 * LABELS)
        assert value == 0 and not np.any(gradients)
    image, text = (np.tanh(x) for x in batch())
    np.testing.assert_allclose(
        ranked(image, text, LABELS), ranked(text, image, LABELS), rtol=1e-6
    )
    half = [jnp.asarray(x, jnp.bfloat16) for x in (image, text)]
    assert jax.eval_shape(ranked, *half, LABELS).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"a pair, got \(6, 5\) and \(6, 4\)"):
        ranked(image, text[:, 1:], LABELS)
