"""NDCG with graded relevance: the number of shared labels."""

from collections.abc import Callable

import numpy as np

from modal_aware_jax.retrieval.inputs import Inputs, check_inputs
from modal_aware_jax.retrieval.metrics import (
    before,
    check_no_relevant,
    check_ns,
    check_ties,
    mean_over_queries,
)
from modal_aware_jax.retrieval.order import map_ranked
from modal_aware_jax.retrieval.ranking import iterate_counts


def exponential_gain(grade):
    """2^grade - 1, the usual gain.

    >>> exponential_gain(np.array([0, 1, 3])).tolist()
    [0.0, 1.0, 7.0]
    """
    return np.exp2(np.asarray(grade, np.float64)) - 1


def linear_gain(grade):
    """The grade itself.

    >>> linear_gain(np.array([0, 1, 3])).tolist()
    [0.0, 1.0, 3.0]
    """
    return np.asarray(grade, np.float64)


def _discounts(ranks: int):
    """Sums of the first 0, 1, ... discounts 1 / log2(rank + 1)."""
    terms = 1 / np.log2(np.arange(2, ranks + 2))
    return np.concatenate([[0.0], np.cumsum(terms)])


def _ideal(totals, gains, ns, discounts):
    """DCG of the best order: totals [B, grades] items of each grade."""
    best_first = np.argsort(-gains, kind="stable")
    count = totals[:, best_first]
    start = before(count)
    columns = []
    for n in ns:
        share = (
            discounts[np.minimum(start + count, n)] - discounts[np.minimum(start, n)]
        )
        columns.append(share @ gains[best_first])
    return np.stack(columns, axis=1)


def _expected(counts, gains, ns, discounts):
    """Expected DCG from counts [B, grades, K + 1]: a tie's places share its gains."""
    count = counts.sum(axis=1)
    mean_gain = np.einsum("bgd,g->bd", counts, gains) / np.maximum(count, 1)
    start = before(count)
    columns = []
    for n in ns:
        share = (
            discounts[np.minimum(start + count, n)] - discounts[np.minimum(start, n)]
        )
        columns.append((share * mean_gain).sum(axis=1))
    return np.stack(columns, axis=1)


def _num_grades(inputs: Inputs) -> int:
    """A power of two above the largest grade: few sizes, so few programs."""
    if inputs.same_class or not inputs.num_queries:
        return 2
    labels = np.bitwise_count(inputs.query_words).sum(axis=1, dtype=np.int64)
    return max(2, 1 << int(labels.max()).bit_length())


def _gains(gain, grades) -> np.ndarray:
    values = np.asarray(gain(np.arange(grades)), np.float64)
    if values.shape != (grades,) or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            f"ndcg_at: expected gain to map {grades} grades to as many finite gains "
            f">= 0, got {values.tolist()!r}."
        )
    return values


def ndcg_at(
    query,
    database,
    query_labels,
    database_labels,
    *,
    num_bits: int,
    ns=(1, 5, 10, 50, 100, 500, 1000),
    ties: str = "expected",
    no_relevant: str = "zero",
    gain: Callable = exponential_gain,
) -> np.ndarray:
    """Mean normalised discounted cumulative gain of the first n ranks.

    DCG@n = sum over ranks p <= n of gain(grade at p) / log2(p + 1), divided by the
    DCG@n of the best possible order (Järvelin and Kekäläinen, 2002).

    >>> code = np.array([[0], [1], [3]], np.uint32)
    >>> ndcg_at(code[:1], code, [1], [0, 1, 0], num_bits=2, ns=(1, 3)).round(3).tolist()
    [0.0, 0.631]

    Args:
      gain: maps an array of grades to float64 gains; `linear_gain` is the other
        usual choice. The other arguments are `recall_at`'s.

    Returns:
      float64 [len(ns)].
    """
    check_ties("ndcg_at", ties)
    check_no_relevant("ndcg_at", no_relevant)
    ns = check_ns("ndcg_at", ns)
    inputs = check_inputs(
        "ndcg_at", query, database, query_labels, database_labels, num_bits
    )
    cut = np.minimum(ns, inputs.num_database)
    grades = _num_grades(inputs)
    gains = _gains(gain, grades)
    discounts = _discounts(int(cut.max()))
    dcg = np.zeros((inputs.num_queries, len(ns)))
    totals = np.zeros((inputs.num_queries, grades), np.int64)
    if ties == "index":
        terms = np.diff(discounts)

        def one(ranked, of_each_grade):
            sums = np.cumsum(gains[ranked.astype(np.int64)] * terms)
            return sums[cut - 1], of_each_grade

        for i, found in enumerate(map_ranked(inputs, one, int(cut.max()), grades)):
            dcg[i], totals[i] = found
    else:
        for queries, counts in iterate_counts(inputs, grades):
            dcg[queries] = _expected(counts, gains, cut, discounts)
            totals[queries] = counts.sum(axis=2)
    ideal = _ideal(totals, gains, cut, discounts)
    ratio = np.divide(dcg, ideal, out=np.zeros_like(dcg), where=ideal > 0)
    return mean_over_queries(ratio, totals[:, 1:].sum(axis=1), no_relevant)
