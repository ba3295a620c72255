"""DPSH, DSH and HashNet against double loops over pairs, and the bank they read."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from modal_aware_jax.losses import pairwise
from modal_aware_jax.losses.bank import empty_bank, update_bank
from modal_aware_jax.losses.pairwise import hashnet_beta
from modal_aware_jax.losses.quantization import quantization_l1, quantization_l2

# Compiled: the eager form is compared with them once, in its own test.
dpsh, dsh, hashnet = map(jax.jit, (pairwise.dpsh, pairwise.dsh, pairwise.hashnet))

every_loss = pytest.mark.parametrize(
    "loss", [dpsh, dsh, hashnet], ids=lambda f: f.__name__
)


@functools.cache
def with_gradient(loss):
    """Value and gradient by one program a shape."""
    return jax.jit(jax.value_and_grad(loss))


def batch(items=7, bits=6, seed=0):
    rng = np.random.default_rng(seed)
    u = 1.5 * rng.normal(size=(items, bits))
    return u, (rng.random((items, 4)) < 0.35).astype(np.uint8)


def pairs(u, labels, bank, bank_labels):
    """Yields S and the two rows of every pair."""
    for row, own in zip(u.tolist(), labels.tolist(), strict=True):
        for other, theirs in zip(bank.tolist(), bank_labels.tolist(), strict=True):
            yield any(p and q for p, q in zip(own, theirs, strict=True)), row, other


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def loop_dpsh(u, labels, bank, bank_labels, weight=0.1):
    def likelihood(similar, a, b):
        theta = 0.5 * sum(p * q for p, q in zip(a, b, strict=True))
        return math.log(1 + math.exp(theta)) - similar * theta

    quantization = mean((x - (1 if x >= 0 else -1)) ** 2 for x in u.ravel().tolist())
    pairwise = mean(likelihood(*p) for p in pairs(u, labels, bank, bank_labels))
    return pairwise + weight * quantization


def loop_dsh(u, labels, bank, bank_labels, margin=12, weight=0.1):
    def contrast(similar, a, b):
        squared = sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
        return squared / 2 if similar else max(margin - squared, 0) / 2

    quantization = mean(abs(abs(x) - 1) for x in u.ravel().tolist())
    pairwise = mean(contrast(*p) for p in pairs(u, labels, bank, bank_labels))
    return pairwise + weight * quantization


def loop_hashnet(u, labels, bank, bank_labels, alpha=0.1):
    near, far = [], []
    for similar, a, b in pairs(u, labels, bank, bank_labels):
        theta = alpha * sum(p * q for p, q in zip(a, b, strict=True))
        value = math.log(1 + math.exp(theta)) - similar * theta
        (near if similar else far).append(value)
    return mean(near) + mean(far)


def test_dpsh_hand_value():
    # θ is 1 on the diagonal and 0 off it, and every code is already ±1.
    u, labels = jnp.array([[1.0, 1.0], [1.0, -1.0]]), jnp.eye(2)
    expected = (2 * (math.log(1 + math.exp(1)) - 1) + 2 * math.log(2)) / 4
    np.testing.assert_allclose(dpsh(u, labels), expected, rtol=1e-6)


def test_dsh_hand_value():
    # Diagonal pairs cost 0, the two others max(4 − 4, 0) with margin 2K, or 1 with 6.
    u, labels = jnp.array([[1.0, 1.0], [1.0, -1.0]]), jnp.eye(2)
    assert dsh(u, labels) == 0
    assert dsh(u, labels, margin=6.0) == 0.5
    assert dsh(3 * u, jnp.ones((2, 1)), quantization_weight=1.0) == 36 / 4 + 2


def test_hashnet_hand_value():
    u, labels = jnp.array([[50.0, 50.0], [50.0, -50.0]]), jnp.eye(2)
    expected = math.log(1 + math.exp(-0.2)) + math.log(2)
    np.testing.assert_allclose(hashnet(u, labels), expected, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_equal_double_loops(seed):
    u, y = batch(seed=seed)
    bank, bank_y = batch(items=11, seed=seed + 10)
    banked = {"bank": bank, "bank_labels": bank_y}
    np.testing.assert_allclose(dpsh(u, y), loop_dpsh(u, y, u, y), rtol=1e-5)
    np.testing.assert_allclose(
        dpsh(u, y, quantization_weight=10.0, **banked),
        loop_dpsh(u, y, bank, bank_y, weight=10.0),
        rtol=1e-5,
    )
    np.testing.assert_allclose(dsh(u, y), loop_dsh(u, y, u, y), rtol=1e-5)
    np.testing.assert_allclose(
        dsh(u, y, margin=5.0, quantization_weight=0.01, **banked),
        loop_dsh(u, y, bank, bank_y, margin=5.0, weight=0.01),
        rtol=1e-5,
    )
    v = np.tanh(u)
    np.testing.assert_allclose(hashnet(u, y), loop_hashnet(v, y, v, y), rtol=1e-5)
    v = np.tanh(2 * u)
    np.testing.assert_allclose(
        hashnet(u, y, alpha=0.3, beta=2.0, **banked),
        loop_hashnet(v, y, bank, bank_y, alpha=0.3),
        rtol=1e-5,
    )


@every_loss
def test_gradient_equals_finite_differences(loss):
    u, labels = batch()
    bank, bank_labels = batch(items=5, seed=1)
    with jax.enable_x64(True):
        u = jnp.asarray(u)
        check_grads(lambda u: loss(u, labels), (u,), order=1, modes=["rev"])
        check_grads(
            lambda u: loss(u, labels, bank=bank, bank_labels=bank_labels),
            (u,),
            order=1,
            modes=["rev"],
        )


@every_loss
def test_the_batch_as_its_bank_gives_the_same_value(loss):
    u, labels = batch()
    v = np.tanh(u) if loss is hashnet else u
    np.testing.assert_allclose(
        loss(u, labels, bank=v, bank_labels=labels), loss(u, labels), rtol=1e-6
    )


@every_loss
def test_order_of_the_batch_is_irrelevant(loss):
    u, labels = batch()
    order = np.random.default_rng(0).permutation(len(u))
    np.testing.assert_allclose(
        loss(u[order], labels[order]), loss(u, labels), rtol=1e-5
    )


@every_loss
def test_same_without_jit_and_labels_do_not_wrap(loss):
    u, labels = batch()
    with jax.disable_jit():
        eager = loss(u, labels)
    np.testing.assert_allclose(eager, loss(u, labels), rtol=1e-6)
    many = np.repeat(labels, 256, axis=1)  # 256 shared labels are 0 in uint8
    np.testing.assert_allclose(loss(u, many), loss(u, labels), rtol=1e-6)


@every_loss
@pytest.mark.parametrize(
    "labels", [np.zeros((3, 2)), np.ones((3, 2)), np.zeros((1, 2)), np.ones((1, 2))]
)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e6])
def test_extremes_stay_finite(loss, labels, scale):
    u = np.full((len(labels), 4), scale, np.float32)
    u[0, 0] *= -1
    value, gradient = with_gradient(loss)(u, labels)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_dpsh_is_linear_in_large_products():
    # log(1 + e^θ) overflows float32 from θ = 89 on.
    u, labels = jnp.array([[1000.0], [1000.0]]), jnp.zeros((2, 1))
    assert dpsh(u, labels, quantization_weight=0.0) == 500_000


def test_hashnet_without_one_kind_of_pair():
    u = jnp.zeros((3, 4))
    np.testing.assert_allclose(hashnet(u, np.ones((3, 1))), math.log(2), rtol=1e-6)
    np.testing.assert_allclose(hashnet(u, np.zeros((3, 1))), math.log(2), rtol=1e-6)


@every_loss
def test_dtype_is_kept(loss):
    u, labels = batch()
    expected = float(loss(u, labels))
    for dtype in (jnp.bfloat16, jnp.float32):
        value = loss(jnp.asarray(u, dtype), labels)
        assert value.dtype == dtype
        np.testing.assert_allclose(float(value), expected, rtol=0.02)
    with jax.enable_x64(True):
        assert loss(jnp.asarray(u), labels).dtype == jnp.float64


def test_beta_schedule():
    epochs = {0: 1, 19: 1, 20: 2, 39: 2, 40: 3, 199: 10}
    for epoch, squared in epochs.items():
        np.testing.assert_allclose(hashnet_beta(epoch) ** 2, squared)
    assert hashnet_beta(7, epochs_per_stage=2) == 2.0
    with pytest.raises(ValueError, match="epoch >= 0"):
        hashnet_beta(-1)


def test_beta_may_be_traced():
    u, labels = batch()
    sharp = jax.jit(lambda beta: hashnet(u, labels, beta=beta))(3.0)
    np.testing.assert_allclose(sharp, hashnet(u, labels, beta=3.0), rtol=1e-6)


def test_quantization_terms():
    x = jnp.array([[0.5, -0.5], [2.0, 0.0]])
    assert quantization_l2(x) == (0.25 + 0.25 + 1 + 1) / 4
    assert quantization_l1(x) == (0.5 + 0.5 + 1 + 1) / 4
    # sgn 0 = +1: a bit at 0 is drawn towards +1.
    assert jax.grad(quantization_l2)(x)[1, 1] < 0


def test_a_bank_row_is_replaced_and_carries_no_gradient():
    bank, bank_labels = empty_bank(5, 2, 3)
    u, labels = jnp.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1, 0, 0], [0, 0, 1]])
    index = np.array([4, 1])
    new, new_labels = jax.jit(update_bank)(bank, bank_labels, index, u, labels)
    np.testing.assert_array_equal(new, [[0, 0], [3, 4], [0, 0], [0, 0], [1, 2]])
    np.testing.assert_array_equal(new_labels.sum(axis=1), [0, 1, 0, 0, 1])
    assert new_labels.dtype == bank_labels.dtype

    def through_the_bank(u):
        new, new_labels = update_bank(bank, bank_labels, index, u, labels)
        return jnp.sum(new) + jnp.sum(new_labels)

    np.testing.assert_array_equal(jax.grad(through_the_bank)(u), np.zeros((2, 2)))


def test_a_padded_row_is_dropped():
    bank, bank_labels = empty_bank(2, 1, 1)
    new, _ = update_bank(
        bank, bank_labels, np.array([0, 2]), np.ones((2, 1)), np.ones((2, 1))
    )
    np.testing.assert_array_equal(new, [[1], [0]])


def test_rows_before_the_first_are_dropped():
    bank, bank_labels = empty_bank(3, 1, 1)
    new, labels = update_bank(
        bank, bank_labels, np.array([-1, 1]), np.ones((2, 1)), np.ones((2, 1))
    )
    assert new.tolist() == labels.tolist() == [[0], [1], [0]]


@every_loss
def test_whole_numbers_are_refused(loss):
    """A mean of theirs would be cut to a whole number."""
    with pytest.raises(ValueError, match=f"^{loss.__name__}: .*real codes, got int"):
        loss(np.array([[1, -1], [1, 1]]), np.eye(2))
    for term in (quantization_l1, quantization_l2):
        with pytest.raises(ValueError, match=f"{term.__name__}: .*real codes, got int"):
            term(np.array([0, 2, 1, 1]))


@every_loss
def test_wrong_shapes_are_named(loss):
    u, labels = batch()
    with pytest.raises(ValueError, match=rf"{loss.__name__}.*\(7, 6\) and \(6, 4\)"):
        loss(u, labels[:6])
    with pytest.raises(ValueError, match="only bank"):
        loss(u, labels, bank=u)
    with pytest.raises(ValueError, match=r"bank \[N, 6\]"):
        loss(u, labels, bank=u[:, :5], bank_labels=labels)


def test_update_bank_names_wrong_shapes():
    with pytest.raises(ValueError, match=r"update_bank.*\(3,\)"):
        update_bank(
            *empty_bank(5, 2, 3), np.arange(3), np.ones((2, 2)), np.ones((2, 3))
        )
