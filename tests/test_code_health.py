"""The use that codes make of their bits, by hand and by independent sums."""

import itertools
from collections import Counter

import numpy as np
import pytest

from modal_aware_jax.hashing.codes import binarize, pack
from modal_aware_jax.hashing.encode import encode, relax
from modal_aware_jax.report.health import health_markdown
from modal_aware_jax.report.page import render_health
from modal_aware_jax.retrieval.code_health import code_health, health_warning


def health(bits):
    return code_health(np.asarray(pack(np.asarray(bits))), np.shape(bits)[1])


def test_all_codes_of_three_bits_use_them_fully():
    found = health(list(itertools.product([-1, 1], repeat=3)))
    assert found["distinct"] == found["items"] == 8
    assert found["commonest_share"] == 1 / 8
    assert found["constant_bits"] == 0
    assert found["bit_entropy"] == pytest.approx(1)
    assert found["mean_correlation"] == pytest.approx(0, abs=1e-7)
    assert found["effective_rank"] == pytest.approx(3)


def test_a_bit_and_its_opposite_are_one_direction():
    found = health([[1, -1], [-1, 1], [1, -1], [-1, 1]])
    assert found["mean_correlation"] == pytest.approx(1)
    assert found["effective_rank"] == pytest.approx(1)
    assert found["distinct"] == 2


def test_equals_sums_over_items_and_bits():
    random = np.random.RandomState(0)
    bits = np.where(random.rand(50, 40) < random.rand(40), 1, -1)
    bits[:, 7] = 1
    found = health(bits)
    counts = Counter(map(tuple, bits.tolist()))
    assert found["distinct"] == len(counts)
    assert found["commonest_share"] == max(counts.values()) / 50
    entropy = []
    for column in bits.T:
        shares = [np.mean(column == value) for value in (-1, 1)]
        entropy.append(-sum(p * np.log2(p) for p in shares if p))
    assert found["bit_entropy"] == pytest.approx(np.mean(entropy), abs=1e-6)
    varies = [i for i in range(40) if len(set(bits[:, i])) == 2]
    assert found["constant_bits"] == 40 - len(varies) >= 1
    pairs = itertools.combinations(varies, 2)
    correlation = [abs(np.corrcoef(bits[:, i], bits[:, j])[0, 1]) for i, j in pairs]
    assert found["mean_correlation"] == pytest.approx(np.mean(correlation), abs=1e-5)
    singular = np.linalg.svd(bits - bits.mean(axis=0), compute_uv=False) ** 2
    share = singular[singular > 1e-9] / singular.sum()
    rank = np.exp(-(share * np.log(share)).sum())
    assert found["effective_rank"] == pytest.approx(rank, rel=1e-4)


def test_collapsed_codes_are_told_and_healthy_ones_are_not():
    one = health(np.ones((500, 16)))
    assert one["effective_rank"] == one["mean_correlation"] == one["bit_entropy"] == 0
    assert health_warning(one, 16) == (
        "Collapsed codes: 16 of 16 bits are constant; 1 distinct codes of 500 items."
    )
    random = np.random.RandomState(0).choice([-1, 1], (500, 16))
    assert health_warning(health(random), 16) == ""
    random[:, 0] = 1  # one of 16 is no tenth
    assert health_warning(health(random), 16) == ""
    random[:, 1] = 1
    assert "2 of 16 bits are constant" in health_warning(health(random), 16)


def test_refuses_no_codes():
    with pytest.raises(ValueError, match=r"at least one item, got shape \(0, 1\)"):
        code_health(np.zeros((0, 1), np.uint32), 8)


def test_relaxed_bits_are_what_the_codes_are_signs_of():
    random = np.random.RandomState(0)
    rows = random.normal(size=(10, 33)).astype(np.float32)
    batches = [
        {"x": rows[:6], "index": np.arange(6)},
        {"x": rows[4:], "index": np.arange(4, 10), "mask": np.arange(6) > 1},
    ]
    relaxed, positions = relax(lambda batch: batch["x"], batches)
    np.testing.assert_array_equal(relaxed, rows)
    np.testing.assert_array_equal(positions, np.arange(10))
    codes, _ = encode(lambda batch: batch["x"], batches)
    np.testing.assert_array_equal(codes, pack(binarize(relaxed)))
    rows[7, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        relax(lambda batch: batch["x"], batches)


def test_the_report_shows_and_warns():
    own = {"num_bits": 16, "map_expected": 0.5, "map_unbinarised": 0.6}
    results = {
        "a | b": own | {"health": health(np.ones((500, 16)))},
        "without": {"num_bits": 16, "map_expected": 0.5},
    }
    text = health_markdown(results)
    assert "| a \\| b | 500 | 1 | 100.00 % | 16 | 0.000 |" in text
    assert "| 0.5000 | 0.6000 | – | – |" in text and "without" not in text
    assert "a | b: Collapsed codes: 16 of 16 bits are constant" in text
    page = "\n".join(render_health(results))
    assert page.count("<tr>") == 2 and 'class="warning">a | b: Collapsed' in page
    assert health_markdown({"without": results["without"]}) == ""
