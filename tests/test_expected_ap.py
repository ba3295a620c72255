"""Average precision as a loss, against the evaluator and against enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modal_aware_jax.hashing.codes import pack
from modal_aware_jax.losses.expected_ap import (
    expected_average_precision_loss,
    soft_counts,
    tied_average_precision,
)
from modal_aware_jax.retrieval import average_precision

# One program in place of one for every operation.
loss_of = jax.jit(expected_average_precision_loss)
value_and_grad = jax.jit(jax.value_and_grad(expected_average_precision_loss))


def _batch(rows, bits, labels, seed=0):
    random = np.random.RandomState(seed)
    codes = random.choice([-1.0, 1.0], (rows, bits)).astype(np.float32)
    return codes, (random.rand(rows, labels) < 0.2).astype(np.uint8)


def _evaluated(codes, labels):
    """1 − mean AP of each item among the others, by the evaluator."""
    packed, values = np.asarray(pack(codes.astype(np.int8))), []
    for i in range(len(codes)):
        rest = np.arange(len(codes)) != i
        if (labels[rest] & labels[i]).any():
            values.append(
                average_precision(
                    packed[i : i + 1],
                    packed[rest],
                    labels[i : i + 1],
                    labels[rest],
                    num_bits=codes.shape[1],
                    ties="expected",
                )[0]
            )
    return 1 - np.mean(values)


@pytest.mark.parametrize("rows, bits", [(40, 4), (60, 16), (200, 32)])
def test_equals_the_evaluator_at_codes(rows, bits):
    codes, labels = _batch(rows, bits, 5)
    loss = loss_of(codes, labels)
    assert float(loss) == pytest.approx(_evaluated(codes, labels), abs=1e-4)


def test_equals_the_mean_over_all_orders_of_a_tie():
    # Before the tie 2 items, 1 relevant; in it 4, 2 relevant; after it 1 relevant.
    values = []
    for order in itertools.permutations([1, 1, 0, 0]):
        ranked = np.array([1, 0, *order, 1])
        precision = np.cumsum(ranked) / np.arange(1, 8)
        values.append(precision[ranked == 1].mean())
    got = jax.jit(tied_average_precision)(
        jnp.array([1.0, 1.0, 4.0, 1.0]), jnp.array([1.0, 0.0, 2.0, 1.0])
    )
    assert float(got) == pytest.approx(np.mean(values), abs=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_finite_also_at_codes_and_equal_rows(dtype):
    codes, labels = _batch(30, 8, 4)
    for h in (codes, np.tanh(codes), np.zeros_like(codes), np.ones_like(codes)):
        _, grad = value_and_grad(jnp.array(h, dtype), labels)
        assert grad.dtype == dtype and jnp.isfinite(grad).all()


def test_gradient_is_the_slope():
    _, labels = _batch(12, 6, 3)
    h = np.random.RandomState(1).uniform(-0.9, 0.9, (12, 6)).astype(np.float32)
    with jax.enable_x64(True):
        h, step = jnp.array(h, jnp.float64), 1e-6
        _, grad = value_and_grad(h, labels)
        for row, bit in [(0, 0), (5, 3), (11, 5)]:
            up = loss_of(h.at[row, bit].add(step), labels)
            down = loss_of(h.at[row, bit].add(-step), labels)
            slope = float(up - down) / (2 * step)
            assert slope == pytest.approx(float(grad[row, bit]), abs=1e-6)


def test_nothing_to_find_is_no_loss():
    labels = np.eye(4, dtype=np.uint8)
    value, grad = value_and_grad(jnp.array(_batch(4, 8, 1)[0]), labels)
    assert float(value) == 0 and not grad.any()


def test_descent_separates_two_classes():
    labels = np.repeat(np.eye(2, dtype=np.uint8), 8, axis=0)
    u = jnp.array(np.random.RandomState(0).normal(0, 0.1, (16, 8)), jnp.float32)
    loss = jax.jit(
        jax.value_and_grad(
            lambda u: expected_average_precision_loss(jnp.tanh(u), labels)
        )
    )
    for _ in range(200):
        _, grad = loss(u)
        u = u - 5.0 * grad
    assert _evaluated(np.where(np.asarray(u) < 0, -1.0, 1.0), labels) < 0.01


def test_a_nan_is_not_hidden():
    codes, labels = _batch(6, 8, 2)
    codes[2, 3] = np.nan
    assert jnp.isnan(loss_of(codes, labels))


def test_soft_counts_by_loops():
    random = np.random.RandomState(3)
    distance = np.append(random.uniform(0, 5, (4, 6)), [[0, 1, 2.5, 5, 5, 0]], axis=0)
    positive, counted = random.rand(2, 5, 6) < 0.6
    expected = np.zeros((5, 7, 2))
    for i, j in np.ndindex(5, 6):
        for integer in range(6):
            near = max(0, 1 - abs(distance[i, j] - integer))
            expected[i, integer, int(positive[i, j])] += near * counted[i, j]
    counts = soft_counts(jnp.array(distance, jnp.float32), positive, counted, 5)
    np.testing.assert_allclose(counts, expected, atol=1e-5)


def test_a_large_batch_fits_in_one_gigabyte():
    h = jax.ShapeDtypeStruct((2000, 128), jnp.float32)
    labels = jax.ShapeDtypeStruct((2000, 24), jnp.uint8)
    loss = jax.jit(jax.value_and_grad(expected_average_precision_loss))
    memory = loss.lower(h, labels).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1e9
