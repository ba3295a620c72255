"""Counts by distance and closed forms of ties against plain loops."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_aware_jax.retrieval import average_precision, evaluate, order, ranking
from modal_aware_jax.retrieval.inputs import check_inputs, label_words
from modal_aware_jax.retrieval.ties import (
    expected_precision_sum,
    harmonic_difference,
    hypergeometric,
)


def example(queries, rows, num_bits, labels=40, seed=0):
    rng = np.random.default_rng(seed)
    top = 2 ** min(num_bits, 32)
    codes = [
        rng.integers(0, top, (n, -(-num_bits // 32)), dtype=np.uint32)
        for n in (queries, rows)
    ]
    tags = [(rng.random((n, labels)) < 0.05).astype(np.uint8) for n in (queries, rows)]
    return *codes, *tags


def counts_by_loop(query, database, query_labels, database_labels, grades, num_bits):
    counts = np.zeros((len(query), grades, num_bits + 1), int)
    for i in range(len(query)):
        distance = np.bitwise_count(query[i] ^ database).sum(axis=1)
        shared = database_labels.astype(int) @ query_labels[i]
        np.add.at(counts[i], (np.minimum(shared, grades - 1), distance), 1)
    return counts


@pytest.mark.parametrize("grades", [2, 12])
@pytest.mark.parametrize("num_bits", [8, 64])
@pytest.mark.parametrize("chunk", [1500, 2**18])
def test_counts_equal_a_loop(grades, num_bits, chunk, monkeypatch):
    monkeypatch.setattr(ranking, "CHUNK_ROWS", chunk)
    data = example(70, 4001, num_bits)
    inputs = check_inputs("test", *data, num_bits)
    blocks = list(ranking.iterate_counts(inputs, grades))
    found = np.concatenate([counts for _, counts in blocks])
    np.testing.assert_array_equal(found, counts_by_loop(*data, grades, num_bits))


def test_counts_are_held_in_blocks(monkeypatch):
    monkeypatch.setattr(ranking, "TABLE_BYTES", 1)
    data = example(70, 100, 8)
    blocks = list(ranking.iterate_counts(check_inputs("test", *data, 8)))
    assert [queries for queries, _ in blocks] == [
        slice(0, 32),
        slice(32, 64),
        slice(64, 70),
    ]
    found = np.concatenate([counts for _, counts in blocks])
    np.testing.assert_array_equal(found, counts_by_loop(*data, 2, 8))


def test_sizes_nearby_share_a_program():
    before = ranking._compiled.cache_info().misses
    for rows in (17_900, 18_015, 18_100):
        evaluate(*example(3, rows, 9), num_bits=9, ns=(1,))
    used = ranking._compiled.cache_info().misses - before
    assert used == 2  # relevant or not, and graded


@settings(deadline=None)
@given(st.integers(1, 10**8))
def test_padding_is_small_and_enough(rows):
    padded = ranking.padded_rows(rows)
    assert rows <= padded <= max(1024, 1.07 * rows)
    assert padded % 32 == 0


@pytest.mark.parametrize("num_bits", [1, 40, 254, 255, 4096])
@pytest.mark.parametrize("rows", [1000, 4321])
def test_rank_order_across_blocks(num_bits, rows):
    rng = np.random.default_rng(0)
    kind = order.distance_type(num_bits)
    distance = rng.integers(0, num_bits + 1, 4321).astype(kind)
    grades = rng.integers(0, 3, 4321).astype(np.uint8)
    sorting = np.argsort(distance, kind="stable")
    parts = [
        (distance[i : i + rows], grades[i : i + rows]) for i in range(0, 4321, rows)
    ]
    found = order.grades_in_order(parts, num_bits)
    np.testing.assert_array_equal(found, grades[sorting])
    for count in (1, 77, 4321):
        rows = order.nearest_rows(distance, count, num_bits)
        np.testing.assert_array_equal(rows, sorting[:count])


def test_label_words_beyond_64_labels():
    labels = np.zeros((2, 70), np.uint8)
    labels[0, [0, 33, 69]] = 1
    assert label_words(labels).tolist() == [[1, 2, 32], [0, 0, 0]]


def test_harmonic_numbers_are_exact():
    for start in (0, 1, 50, 63, 64, 200, 10**7):
        for count in (1, 2, 30, 700):
            exact = sum(Fraction(1, start + i) for i in range(1, count + 1))
            found = harmonic_difference(np.array(start), np.array(count))
            np.testing.assert_allclose(found, float(exact), rtol=2e-14)


def test_precision_sum_in_fractions():
    for n, r, rows, hits in (
        (1, 1, 0, 0),
        (5, 2, 3, 1),
        (40, 40, 9, 9),
        (7, 3, 10**7, 5),
    ):
        exact = sum(
            Fraction(r, n)
            * (hits + 1 + (Fraction((i - 1) * (r - 1), n - 1) if n > 1 else 0))
            / (rows + i)
            for i in range(1, n + 1)
        )
        found = expected_precision_sum(*(np.array(x) for x in (n, r, rows, hits)))
        np.testing.assert_allclose(found, float(exact), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("case", [(10, 4, 5), (10, 10, 3), (10, 0, 3), (9, 5, 9)])
def test_hypergeometric_in_fractions(case):
    count, relevant, taken = case
    outcomes, chance = hypergeometric(*case)
    truth = [
        comb(relevant, int(j)) * comb(count - relevant, int(taken - j))
        for j in outcomes
    ]
    np.testing.assert_allclose(chance, np.array(truth) / comb(count, taken))
    np.testing.assert_allclose(outcomes @ chance, taken * relevant / count, atol=1e-12)


def test_hypergeometric_of_a_large_tie():
    outcomes, chance = hypergeometric(10**7, 3 * 10**6, 10**6)
    mean, variance = 3e5, 1e6 * 0.3 * 0.7 * (9e6 / (1e7 - 1))
    np.testing.assert_allclose(outcomes @ chance, mean, rtol=1e-9)
    np.testing.assert_allclose((outcomes - mean) ** 2 @ chance, variance, rtol=1e-6)
    assert len(outcomes) < 13_000


def test_large_and_small_numbers_stay_within_float64():
    """One tie of a million rows: every place is relevant with the same chance."""
    rows = 10**6
    database = np.zeros((rows, 1), np.uint32)
    labels = np.zeros((rows, 1), np.uint8)
    labels[::10] = 1
    found = average_precision(database[:1], database, labels[:1], labels, num_bits=32)
    n, r = rows, rows // 10
    slope = (r - 1) / (n - 1)
    harmonic = np.sum(1 / np.arange(1, n + 1))
    np.testing.assert_allclose(
        found, (slope * n + (1 - slope) * harmonic) / n, rtol=1e-9
    )
