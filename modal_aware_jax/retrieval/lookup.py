"""Metrics of finding anything at all: hash lookup and cumulative match."""

from typing import NamedTuple

import numpy as np

from modal_aware_jax.retrieval.inputs import check_inputs, check_whole
from modal_aware_jax.retrieval.metrics import before, check_ns, check_ties
from modal_aware_jax.retrieval.order import map_ranked
from modal_aware_jax.retrieval.ranking import iterate_counts


class HashLookup(NamedTuple):
    """Results of looking up all codes within a radius, means over queries."""

    success: float  # share of queries that find something relevant
    precision: float  # of what is found; 0 for a query that finds nothing
    empty: float  # share of queries that find nothing at all


def lookup_of_counts(count, relevant, radius) -> np.ndarray:
    """Success, precision and emptiness of every query, float64 [B, 3]."""
    inside = count[:, : radius + 1].sum(axis=1)
    found = relevant[:, : radius + 1].sum(axis=1)
    return np.stack([found > 0, found / np.maximum(inside, 1), inside == 0], axis=1)


def hash_lookup(
    query,
    database,
    query_labels,
    database_labels,
    *,
    num_bits: int,
    radius: int = 2,
) -> HashLookup:
    """What a hash table returns when all codes within `radius` are looked up.

    A radius takes whole ties, so there is no rule for ties.

    >>> code = np.array([[0], [1], [3]], np.uint32)
    >>> hash_lookup(code[:1], code, [1], [1, 0, 1], num_bits=2, radius=1)
    HashLookup(success=1.0, precision=0.5, empty=0.0)
    """
    radius = check_whole("hash_lookup", "radius", radius, least=0)
    inputs = check_inputs(
        "hash_lookup", query, database, query_labels, database_labels, num_bits
    )
    values = np.zeros((inputs.num_queries, 3))
    for queries, counts in iterate_counts(inputs):
        values[queries] = lookup_of_counts(counts.sum(axis=1), counts[:, 1], radius)
    if not len(values):
        return HashLookup(0.0, 0.0, 0.0)
    return HashLookup(*values.mean(axis=0).tolist())


def missed(count, relevant, taken) -> float:
    """Probability that `taken` of `count` items hold none of `relevant`."""
    if relevant > count - taken:
        return 0.0
    few, other = sorted((int(relevant), int(taken)))
    return float(np.exp(np.log1p(-other / (count - np.arange(few))).sum()))


def expected_match(count, relevant, ns) -> np.ndarray:
    """Probability of a relevant item among the first n ranks, float64 [B, len(ns)]."""
    some = relevant.any(axis=1)
    first = np.argmax(relevant > 0, axis=1)  # the nearest tie with a relevant item
    rows = np.arange(len(count))
    start = before(count)[rows, first]
    size, hits = count[rows, first], relevant[rows, first]
    result = np.zeros((len(count), len(ns)))
    for column, n in enumerate(ns):
        result[:, column] = some & (start + size <= n)
        for i in np.flatnonzero(some & (start < n) & (start + size > n)):
            result[i, column] = 1 - missed(size[i], hits[i], n - start[i])
    return result


def cumulative_match(
    query,
    database,
    query_labels,
    database_labels,
    *,
    num_bits: int,
    ns=(1, 5, 10),
    ties: str = "expected",
) -> np.ndarray:
    """Share of queries with a relevant item among the first n ranks (CMC).

    For one-to-one retrieval, give both sides the number of their pair as class
    numbers: then this is what that literature calls recall@n.

    >>> code = np.array([[0], [1], [3]], np.uint32)
    >>> cumulative_match(code, code, [5, 6, 7], [6, 5, 7], num_bits=2, ns=(1, 3))
    array([0.33333333, 1.        ])

    Returns:
      float64 [len(ns)].
    """
    check_ties("cumulative_match", ties)
    ns = check_ns("cumulative_match", ns)
    inputs = check_inputs(
        "cumulative_match", query, database, query_labels, database_labels, num_bits
    )
    if not inputs.num_queries:
        return np.zeros(len(ns))
    if ties == "index":
        limit = min(int(ns.max()), inputs.num_database)

        def one(ranked, _):
            return int(np.argmax(ranked)) if ranked.any() else limit + ns.max()

        first = np.array(map_ranked(inputs, one, limit))
        return (first[:, None] < ns).mean(axis=0)
    result = np.zeros((inputs.num_queries, len(ns)))
    for queries, counts in iterate_counts(inputs):
        result[queries] = expected_match(counts.sum(axis=1), counts[:, 1], ns)
    return result.mean(axis=0)
