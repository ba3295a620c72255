"""Metrics against scikit-learn, all permutations of tiny data, and simulation."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from modal_aware_jax.hashing.codes import pack
from modal_aware_jax.retrieval import (
    average_precision,
    cumulative_match,
    evaluate,
    hash_lookup,
    interpolated_precision,
    linear_gain,
    mean_average_precision,
    ndcg_at,
    precision_at,
    precision_recall_by_radius,
    recall_at,
)

CUTS = (1, 2, 3, 4, 5, 6, 9)


def example(queries, rows, num_bits, labels=3, chance=0.4, seed=0):
    """Bits [., K] of 0 and 1, and labels; the first bits alone differ: many ties."""
    rng = np.random.default_rng(seed)
    bits = [rng.integers(0, 2, (n, num_bits)) for n in (queries, rows)]
    tags = [(rng.random((n, labels)) < chance).astype(int) for n in (queries, rows)]
    return *bits, *tags


def distance_and_shared(query, database, query_labels, database_labels):
    distance = (query[:, None] != database[None]).sum(axis=2)
    return distance, query_labels @ database_labels.T


def packed(query, database, query_labels, database_labels):
    return (
        np.asarray(pack(query)),
        np.asarray(pack(database)),
        query_labels,
        (database_labels),
    )


def orders(distance):
    """Every order of the rows that ascends in distance."""
    ties = [np.flatnonzero(distance == d) for d in np.unique(distance)]
    for parts in itertools.product(*(itertools.permutations(t) for t in ties)):
        yield np.concatenate(parts)


def stable(distance):
    yield np.argsort(distance, kind="stable")


def ap(relevant, at=None):
    relevant = relevant[:at]
    hits, total = 0, 0.0
    for rank, r in enumerate(relevant, 1):
        hits += r
        total += hits / rank if r else 0
    return total / hits if hits else 0.0


def dcg(grades, n, exponential):
    gains = 2.0**grades - 1 if exponential else grades
    return sum(g / np.log2(p + 2) for p, g in enumerate(gains[:n]))


def curve(relevant):
    precision = np.cumsum(relevant) / np.arange(1, len(relevant) + 1)
    recall = np.cumsum(relevant) / max(relevant.sum(), 1)
    return [
        max(p for p, r in zip(precision, recall, strict=True) if r >= level - 1e-9)
        if relevant.any()
        else 0.0
        for level in np.arange(11) / 10
    ]


def brute_force(data, value, rule):
    """Mean over orders, then over queries, of value(shared labels in rank order)."""
    distance, shared = distance_and_shared(*data)
    walk = orders if rule == "expected" else stable
    means = [
        np.mean([value(s[order]) for order in walk(d)], axis=0)
        for d, s in zip(distance, shared, strict=True)
    ]
    return np.array(means)


TINY = [example(3, 6, 2, seed=s) for s in range(3)] + [
    example(2, 7, 1, labels=1, seed=7),
    example(2, 1, 3, seed=8),  # one item
    example(2, 5, 3, chance=0.0),  # nothing relevant
    example(2, 6, 2, chance=1.0),  # everything relevant
]


@pytest.mark.parametrize("rule", ["expected", "index"])
@pytest.mark.parametrize("data", TINY)
class TestAgainstAllOrders:
    def check(self, rule, data, function, value, **options):
        expected = brute_force(data, value, rule).mean(axis=0)
        found = function(
            *packed(*data), num_bits=data[0].shape[1], ties=rule, **options
        )
        np.testing.assert_allclose(found, expected, atol=1e-12)

    def test_average_precision(self, rule, data):
        for at in (None, *CUTS):
            expected = brute_force(data, lambda s, k=at: ap(s > 0, k), rule)
            found = average_precision(
                *packed(*data), num_bits=data[0].shape[1], at=at, ties=rule
            )
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, expected, atol=1e-12)

    def test_precision(self, rule, data):
        def value(s):
            return [(s[:n] > 0).sum() / min(n, len(s)) for n in CUTS]

        self.check(rule, data, precision_at, value, ns=CUTS)

    def test_recall(self, rule, data):
        def value(s):
            return [(s[:n] > 0).sum() / max((s > 0).sum(), 1) for n in CUTS]

        self.check(rule, data, recall_at, value, ns=CUTS)

    def test_cumulative_match(self, rule, data):
        def value(s):
            return [float((s[:n] > 0).any()) for n in CUTS]

        self.check(rule, data, cumulative_match, value, ns=CUTS)

    def test_ndcg(self, rule, data):
        for exponential in (True, False):

            def value(s, exponential=exponential):
                best = -np.sort(-s)
                return [
                    dcg(s, n, exponential) / max(dcg(best, n, exponential), 1e-30)
                    for n in CUTS
                ]

            gain = {} if exponential else {"gain": linear_gain}
            self.check(rule, data, ndcg_at, value, ns=CUTS, **gain)

    def test_interpolated(self, rule, data):
        found = interpolated_precision(
            *packed(*data), num_bits=data[0].shape[1], ties=rule
        )
        exact = brute_force(data, lambda s: curve(s > 0), rule).mean(axis=0)
        if rule == "index":
            np.testing.assert_allclose(found, exact, atol=1e-12)
        else:
            assert (found <= exact + 1e-12).all()
            np.testing.assert_allclose(found[-1:], interpolate_means(data)[-1:])
            np.testing.assert_allclose(found, interpolate_means(data))


def interpolate_means(data):
    """Interpolation of each query's mean precision over its mean recall, by loops."""
    curves = []
    for d, s in zip(*distance_and_shared(*data), strict=True):
        found = np.mean([np.cumsum(s[o] > 0) for o in orders(d)], axis=0)
        total = (s > 0).sum()
        precision = found / np.arange(1, len(d) + 1)
        reach = [found >= level / 10 * total - 1e-9 for level in range(11)]
        curves.append([precision[r].max() if total else 0.0 for r in reach])
    return np.mean(curves, axis=0)


@pytest.mark.parametrize("num_bits", [48, 64, 200])
def test_equals_scikit_learn_where_nothing_ties(num_bits):
    rng = np.random.default_rng(0)
    database = np.tril(np.ones((num_bits, num_bits), int))[rng.permutation(num_bits)]
    query = np.zeros((3, num_bits), int)  # distances 1, 2, ..., K
    tags = [(rng.random((n, 4)) < 0.4).astype(int) for n in (3, num_bits)]
    tags[0][:, 0] = 1
    data = (query, database, *tags)
    distance, shared = distance_and_shared(*data)
    for ties in ("expected", "index"):
        found = average_precision(*packed(*data), num_bits=num_bits, ties=ties)
        truth = [
            average_precision_score(s > 0, -d)
            for d, s in zip(distance, shared, strict=True)
        ]
        np.testing.assert_allclose(found, truth, atol=1e-12)


def test_ndcg_equals_scikit_learn_with_ties():
    data = example(4, 300, 6)
    distance, shared = distance_and_shared(*data)
    options = {"num_bits": 6, "gain": linear_gain}
    found = ndcg_at(*packed(*data), ns=(1, 10, 300), **options)
    truth = [np.mean([
        ndcg_score([s], [-d], k=n) for d, s in zip(distance, shared, strict=True)
    ]) for n in (1, 10, 300)]  # fmt: skip
    np.testing.assert_allclose(found, truth, atol=1e-12)


@pytest.mark.parametrize("at", [None, 70])
def test_expected_is_the_mean_of_shuffled_databases(at):
    data = example(6, 400, 7, labels=8, chance=0.15)
    distance, shared = distance_and_shared(*data)
    rng, draws = np.random.default_rng(1), 400
    simulated = np.zeros((draws, 6))
    for draw in simulated:
        shuffle = rng.permutation(400)
        for i in range(6):
            order = shuffle[np.argsort(distance[i][shuffle], kind="stable")]
            draw[i] = ap(shared[i][order] > 0, at)
    found = average_precision(*packed(*data), num_bits=7, at=at)
    error = simulated.std(axis=0) / np.sqrt(draws)
    assert (np.abs(simulated.mean(axis=0) - found) < 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("num_bits", [1, 33, 64, 70, 126, 255, 1000, 4096])
def test_every_length_and_padding(num_bits):
    data = example(3, 1500, num_bits, labels=90, chance=0.03)
    distance, shared = distance_and_shared(*data)
    found = average_precision(*packed(*data), num_bits=num_bits, ties="index")
    truth = [
        ap((s > 0)[np.argsort(d, kind="stable")])
        for d, s in zip(distance, shared, strict=True)
    ]
    np.testing.assert_allclose(found, truth, atol=1e-12)
    expected = average_precision(*packed(*data), num_bits=num_bits)
    assert np.abs(expected - truth).max() < (0.05 if num_bits > 1 else 1)
    precision, recall = precision_recall_by_radius(*packed(*data), num_bits=num_bits)
    radius = num_bits // 2
    inside = distance <= radius
    assert recall[-1] == 1
    np.testing.assert_allclose(
        [precision[radius], recall[radius]],
        [
            (inside & (shared > 0)).sum() / max(inside.sum(), 1),
            (inside & (shared > 0)).sum() / (shared > 0).sum(),
        ],
    )


def test_shuffling_the_database_cannot_move_expected():
    query, database, query_labels, labels = example(5, 900, 5)
    order = np.random.default_rng(3).permutation(900)
    for at in (None, 100):
        one, other = (
            average_precision(
                *packed(query, database[o], query_labels, labels[o]), num_bits=5, at=at
            )
            for o in (slice(None), order)
        )
        np.testing.assert_allclose(one, other, rtol=1e-13)


def test_unused_bits_of_the_last_word_do_not_count():
    query, database, *tags = packed(*example(4, 50, 20))
    dirty = [x | np.uint32(0xABC00000) for x in (query, database)]
    for ties in ("expected", "index"):
        options = {"num_bits": 20, "ties": ties}
        clean = average_precision(query, database, *tags, **options)
        np.testing.assert_array_equal(
            clean, average_precision(*dirty, *tags, **options)
        )
        one_sided = average_precision(query, dirty[1], *tags, **options)
        np.testing.assert_array_equal(clean, one_sided)


def test_no_relevant_is_zero_or_skipped():
    query, database, query_labels, labels = example(4, 30, 4)
    query_labels[1] = 0
    data = packed(query, database, query_labels, labels)
    for at in (None, 3):
        values = average_precision(*data, num_bits=4, at=at)
        assert values[1] == 0
        zero = mean_average_precision(*data, num_bits=4, at=at)
        skip = mean_average_precision(*data, num_bits=4, at=at, no_relevant="skip")
        kept = values[[i for i in range(4) if (labels @ query_labels[i]).any()]]
        np.testing.assert_allclose([zero, skip], [values.mean(), kept.mean()])
    skip = recall_at(*data, num_bits=4, ns=(30,), no_relevant="skip")
    np.testing.assert_allclose(skip, [1.0])


def test_skip_keeps_a_query_whose_relevant_items_are_far():
    database, labels = np.array([[0], [1], [3]], np.uint32), [0, 0, 1]
    value = mean_average_precision(
        database[:1], database, [1], labels, num_bits=2, at=1, no_relevant="skip"
    )
    assert value == 0


def test_hash_lookup_by_hand():
    database = np.array([[0], [1], [7], [0xFFFF]], np.uint32)
    query = np.array([[0], [0xFF00], [0xFFFF]], np.uint32)
    found = hash_lookup(query, database, [1, 1, 2], [1, 2, 1, 1], num_bits=16)
    np.testing.assert_allclose(found, (1 / 3, (1 / 2 + 0 + 0) / 3, 1 / 3))


def test_class_numbers_equal_one_hot_labels():
    query, database, *_ = example(4, 60, 5)
    rng = np.random.default_rng(2)
    classes = rng.integers(0, 6, 4) * 10.0, rng.integers(0, 6, 60) * 10.0
    hot = [(c[:, None] == 10 * np.arange(6)).astype(int) for c in classes]
    for ties in ("expected", "index"):
        options = {"num_bits": 5, "ties": ties}
        np.testing.assert_array_equal(
            average_precision(*packed(query, database, *classes), **options),
            average_precision(*packed(query, database, *hot), **options),
        )


def test_one_to_one_recall_is_the_share_of_the_tie():
    codes = np.zeros((10, 1), np.uint32)  # everything ties
    pairs = np.arange(10)
    found = cumulative_match(codes, codes, pairs, pairs, num_bits=8, ns=(1, 4, 10))
    np.testing.assert_allclose(found, [0.1, 0.4, 1.0])


def test_evaluate_agrees_with_the_single_metrics():
    data = packed(*example(9, 700, 12))
    options = {"num_bits": 12}
    ns = (1, 10, 1000)
    result = evaluate(*data, **options, ns=ns)
    values = average_precision(*data, **options)
    np.testing.assert_array_equal(result["average_precision"], values)
    np.testing.assert_allclose(result["map_expected"], values.mean())
    index = mean_average_precision(*data, **options, ties="index")
    np.testing.assert_allclose(result["map_index"], index)
    for name, function in (
        ("precision_at", precision_at),
        ("recall_at", recall_at),
        ("ndcg_at", ndcg_at),
    ):
        assert tuple(result[name]) == ns
        np.testing.assert_allclose(
            list(result[name].values()), function(*data, **options, ns=ns)
        )
    for i, name in enumerate(("radius_precision", "radius_recall")):
        np.testing.assert_array_equal(
            result[name], precision_recall_by_radius(*data, **options)[i]
        )
    np.testing.assert_allclose(
        result["interpolated_precision"], interpolated_precision(*data, **options)
    )
    lookup = hash_lookup(*data, **options)
    assert result["lookup_success"] == lookup.success
    assert result["lookup_precision"] == lookup.precision
    sizes = [result[x] for x in ("num_queries", "num_database", "num_bits")]
    assert sizes == [9, 700, 12]
    relevant = (data[2] @ data[3].T).any(axis=1)
    assert result["queries_without_relevant"] == 9 - relevant.sum()


def test_large_classes_of_either_sign_are_told_apart():
    """A float64, which int64 and uint64 have in common, holds no 2^60 + 1."""
    codes = np.zeros((2, 1), np.uint32)
    own, theirs = np.array([2**60, 2**60 + 1]), np.full(2, 2**60 + 1, np.uint64)
    found = average_precision(codes, codes, own, theirs, num_bits=3)
    assert found.tolist() == [0, 1]


def test_labels_of_other_types():
    query, database, query_labels, labels = packed(*example(4, 60, 5))
    truth = average_precision(query, database, query_labels, labels, num_bits=5)
    for kind in (bool, np.uint8, np.float32, np.int64):
        found = average_precision(
            query, database, query_labels.astype(kind), labels.astype(kind), num_bits=5
        )
        np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ties": "best"}, "expected ties='expected' or ties='index', got 'best'"),
        ({"at": 0}, "expected at to be a positive integer, got 0"),
        ({"num_bits": 40}, "40 bits fill 2 words of 32, but query has 1"),
        ({"num_bits": None}, "whole number of bits, at least 1 bit, got None"),
        ({"at": np.nan}, "expected at to be a positive integer, got nan"),
        (
            {"query_labels": np.full(4, np.nan), "database_labels": np.ones(60)},
            "a class number is NaN",
        ),
        (
            {"query_labels": np.ones(4, int), "database_labels": np.arange(-1, 59)},
            "a class number is negative, -1; elsewhere it means that the label is miss",
        ),
        (
            {"query_labels": np.full(4, "1"), "database_labels": np.ones(60)},
            "class numbers .or names. of one kind, got <U1 and float64",
        ),
        ({"query_labels": None}, "query_labels is None, but relevance needs labels"),
        ({"database_labels": np.ones((3, 2))}, "expected database_labels of 60 rows"),
        ({"query_labels": np.ones((4, 2))}, r"same L, got \[4, 2\] and \[60, 3\]"),
        ({"query_labels": np.full((4, 3), 2)}, "expected labels of 0 and 1"),
        ({"database_labels": np.full((60, 3), -1)}, "expected labels of 0 and 1"),
        ({"query": np.zeros((4, 5), np.int8)}, "expected query to be packed codes"),
    ],
)
def test_errors_say_what_is_wrong(change, message):
    names = ("query", "database", "query_labels", "database_labels")
    arguments = dict(zip(names, packed(*example(4, 60, 5)), strict=True))
    arguments |= {"num_bits": 5} | change
    with pytest.raises(ValueError, match=message):
        average_precision(**arguments)


def test_no_queries_give_zeros_without_a_warning():
    data = packed(*example(3, 9, 5))
    none = data[0][:0], data[1], data[2][:0], data[3]
    for function in (precision_at, recall_at, ndcg_at, cumulative_match):
        for ties in ("expected", "index"):
            assert not function(*none, num_bits=5, ns=(1, 3), ties=ties).any()
    assert hash_lookup(*none, num_bits=5) == (0, 0, 0)
    assert mean_average_precision(*none, num_bits=5) == 0


def test_odd_arguments_of_single_metrics():
    data = packed(*example(3, 9, 5))
    for ns in (5, None, "12"):
        with pytest.raises(ValueError, match="precision_at: expected ns to be several"):
            precision_at(*data, num_bits=5, ns=ns)
    for radius in (-1, 1.5, None):
        with pytest.raises(ValueError, match="expected radius to be an integer >= 0"):
            hash_lookup(*data, num_bits=5, radius=radius)
    for gain in (lambda g: g[:1], lambda g: g * np.nan, lambda g: g - 1):
        with pytest.raises(ValueError, match="ndcg_at: expected gain to map"):
            ndcg_at(*data, num_bits=5, gain=gain)
