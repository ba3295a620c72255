"""Encoding: bits against a loop, padded rows dropped, broken models refused."""

import numpy as np
import pytest

from modal_aware_jax.hashing.codes import unpack
from modal_aware_jax.hashing.encode import encode


def batches(relaxed, size):
    for start in range(0, len(relaxed), size):
        rows = relaxed[start : start + size]
        padding = size - len(rows)
        yield {
            "x": np.pad(rows, ((0, padding), (0, 0)), constant_values=np.nan),
            "index": np.r_[np.arange(start, start + len(rows)), [-1] * padding],
            "mask": np.r_[np.ones(len(rows), bool), np.zeros(padding, bool)],
        }


def test_signs_in_order_without_the_padding():
    relaxed = np.random.default_rng(0).normal(size=(23, 40)).astype(np.float32)
    relaxed[3, 5] = 0.0  # counts as +1
    seen = []
    packed, positions = encode(
        lambda batch: batch["x"], batches(relaxed, 5), progress=seen.append
    )
    assert packed.dtype == np.uint32 and packed.shape == (23, 2)
    np.testing.assert_array_equal(positions, np.arange(23))
    expected = [[1 if value >= 0 else -1 for value in row] for row in relaxed]
    np.testing.assert_array_equal(unpack(packed, 40), expected)
    assert seen == [5, 5, 5, 5, 3]


def test_refuses_values_that_are_not_finite():
    for bad in (np.nan, np.inf):
        relaxed = np.ones((4, 3), np.float32)
        relaxed[2, 1] = bad
        with pytest.raises(ValueError, match="not finite"):
            encode(lambda batch: batch["x"], batches(relaxed, 2))


def test_refuses_nothing_at_all():
    with pytest.raises(ValueError, match="no batch"):
        encode(lambda batch: batch["x"], [])
