"""Exact retrieval metrics under two rules for ties.

Hamming distances tie constantly, so a metric must say how ties are ranked:
  'expected'  the exact mean over all orders inside each tie (the default: shuffling
              the database cannot move it);
  'index'     ascending database row inside each tie (a stable sort).

Every function takes packed codes, uint32 query [Q, Wd] and database [N, Wd] (NumPy
or JAX), and labels: 0/1 [., L], where relevant means at least one shared label, or
class numbers [.], where relevant means equal. Results are float64 NumPy.
"""

import numpy as np

from modal_aware_jax.retrieval.inputs import check_inputs, check_whole
from modal_aware_jax.retrieval.order import map_ranked
from modal_aware_jax.retrieval.ranking import iterate_counts
from modal_aware_jax.retrieval.ties import expected_precision_sum, hypergeometric


def check_ties(function, ties):
    if ties not in ("expected", "index"):
        raise ValueError(
            f"{function}: expected ties='expected' or ties='index', got {ties!r}."
        )


def check_no_relevant(function, no_relevant):
    if no_relevant not in ("zero", "skip"):
        raise ValueError(
            f"{function}: expected no_relevant='zero' or 'skip', got {no_relevant!r}."
        )


def before(counts):
    """Sums of all smaller distances, [..., K + 1]."""
    return np.cumsum(counts, axis=-1) - counts


def expected_average_precision(count, relevant, at=None):
    """AP from counts by distance, int64 [B, K + 1] each: float64 [B].

    Over all ranks, divided by all relevant items; with `at`, over the first `at`
    ranks, divided by the relevant items inside them. Then a tie that the cut divides
    has a random number of relevant items inside (hypergeometric), and the value is
    the expectation of the ratio.
    """
    count_before, relevant_before = before(count), before(relevant)
    if at is None:
        sums = expected_precision_sum(count, relevant, count_before, relevant_before)
        return sums.sum(axis=1) / np.maximum(relevant.sum(axis=1), 1)
    whole = count_before + count <= at
    sums = expected_precision_sum(count, relevant, count_before, relevant_before)
    sums = np.where(whole, sums, 0.0).sum(axis=1)
    found = np.where(whole, relevant, 0).sum(axis=1)
    result = sums / np.maximum(found, 1)
    cut_rows, cut_bins = np.nonzero((count_before < at) & ~whole)
    for i, d in zip(cut_rows, cut_bins, strict=True):
        taken = at - count_before[i, d]
        outcomes, chance = hypergeometric(count[i, d], relevant[i, d], taken)
        inside = expected_precision_sum(
            np.full_like(outcomes, taken), outcomes, count_before[i, d], found[i]
        )
        ratio = (sums[i] + inside) / np.maximum(found[i] + outcomes, 1)
        result[i] = chance @ ratio
    return result


def ranked_average_precision(relevant, total):
    """AP of one ranking: bool [n] in rank order, divided by `total`."""
    ranks = np.flatnonzero(relevant) + 1.0
    if not total:
        return 0.0
    return float(np.sum(np.arange(1, len(ranks) + 1) / ranks) / total)


def average_precision(
    query,
    database,
    query_labels,
    database_labels,
    *,
    num_bits: int,
    at: int | None = None,
    ties: str = "expected",
) -> np.ndarray:
    """Average precision of every query.

    >>> code = np.array([[0], [1], [3]], np.uint32)
    >>> average_precision(code[:1], code, [1], [1, 0, 1], num_bits=2).tolist()
    [0.8333333333333333]

    Args:
      query, database: uint32 [Q, Wd], [N, Wd] packed codes.
      query_labels, database_labels: 0/1 [Q, L], [N, L], or class numbers [Q], [N].
      num_bits: K.
      at: None divides by all relevant items; k looks at the first k ranks and
        divides by the relevant items inside them.
      ties: 'expected' or 'index'.

    Returns:
      float64 [Q]; 0 for a query with nothing relevant.
    """
    check_ties("average_precision", ties)
    inputs = check_inputs(
        "average_precision", query, database, query_labels, database_labels, num_bits
    )
    if at is not None:
        at = min(check_whole("average_precision", "at", at), inputs.num_database)
    if ties == "index":

        def one(ranked, totals):
            total = totals[1] if at is None else np.count_nonzero(ranked)
            return ranked_average_precision(ranked, total)

        return np.array(map_ranked(inputs, one, at), np.float64)
    result = np.zeros(inputs.num_queries)
    for queries, counts in iterate_counts(inputs):
        result[queries] = expected_average_precision(
            counts.sum(axis=1), counts[:, 1], at
        )
    return result


def mean_over_queries(values, num_relevant, no_relevant):
    """Mean over axis 0; 'skip' leaves out queries with nothing relevant."""
    kept = values if no_relevant == "zero" else values[num_relevant > 0]
    return kept.mean(axis=0) if len(kept) else np.zeros(values.shape[1:])


def mean_average_precision(
    query,
    database,
    query_labels,
    database_labels,
    *,
    num_bits: int,
    at: int | None = None,
    ties: str = "expected",
    no_relevant: str = "zero",
) -> float:
    """Mean of `average_precision` over the queries.

    >>> code = np.array([[0], [1], [3]], np.uint32)
    >>> mean_average_precision(code, code, [1, 2, 1], [1, 2, 1], num_bits=2)
    0.8888888888888888

    Args:
      no_relevant: a query with nothing relevant in the database counts 0 ('zero')
        or leaves the mean ('skip'). The other arguments are `average_precision`'s.
    """
    check_no_relevant("mean_average_precision", no_relevant)
    labels = query_labels, database_labels
    values = average_precision(
        query, database, *labels, num_bits=num_bits, at=at, ties=ties
    )
    if no_relevant == "zero" or values.all():
        return float(values.mean()) if len(values) else 0.0
    # With `at`, 0 may also mean that nothing relevant is near: count over all ranks.
    zero = np.flatnonzero(values == 0)
    inputs = check_inputs(
        "mean_average_precision",
        np.asarray(query)[zero],
        database,
        np.asarray(query_labels)[zero],
        database_labels,
        num_bits,
    )
    some = np.concatenate(
        [counts[:, 1].sum(axis=1) > 0 for _, counts in iterate_counts(inputs)]
    )
    kept = len(values) - np.count_nonzero(~some)
    return float(values.sum() / kept) if kept else 0.0


def expected_relevant_at(count, relevant, ns):
    """Expected relevant items among the first n ranks: float64 [B, len(ns)]."""
    count_before = before(count)
    share = relevant / np.maximum(count, 1)
    columns = []
    for n in ns:
        taken = np.clip(n - count_before, 0, count)
        columns.append((taken * share).sum(axis=1))
    return np.stack(columns, axis=1)


def relevant_at(inputs, ns, ties) -> tuple[np.ndarray, np.ndarray]:
    """Relevant items among the first n ranks [Q, len(ns)], and in all [Q]."""
    ns = np.minimum(ns, inputs.num_database)
    if ties == "index":

        def one(ranked, totals):
            found = np.cumsum(ranked)[ns - 1]
            return np.append(found, totals[1])

        table = np.array(map_ranked(inputs, one, int(ns.max())), np.float64)
        table = table.reshape(inputs.num_queries, len(ns) + 1)
        return table[:, :-1], table[:, -1]
    found = np.zeros((inputs.num_queries, len(ns)))
    total = np.zeros(inputs.num_queries)
    for queries, counts in iterate_counts(inputs):
        found[queries] = expected_relevant_at(counts.sum(axis=1), counts[:, 1], ns)
        total[queries] = counts[:, 1].sum(axis=1)
    return found, total


def check_ns(function, ns):
    if np.ndim(ns) != 1 or isinstance(ns, str):
        raise ValueError(f"{function}: expected ns to be several ranks, got {ns!r}.")
    ns = np.array([check_whole(function, "every n", n) for n in ns], np.int64)
    if not len(ns):
        raise ValueError(f"{function}: ns is empty.")
    return ns


def precision_at(
    query,
    database,
    query_labels,
    database_labels,
    *,
    num_bits: int,
    ns=(1, 5, 10, 50, 100, 500, 1000),
    ties: str = "expected",
) -> np.ndarray:
    """Mean precision of the first n ranks: float64 [len(ns)], divided by min(n, N).

    >>> code = np.array([[0], [1], [3]], np.uint32)
    >>> precision_at(code[:1], code, [1], [1, 0, 1], num_bits=2, ns=(1, 2)).tolist()
    [1.0, 0.5]
    """
    check_ties("precision_at", ties)
    ns = check_ns("precision_at", ns)
    inputs = check_inputs(
        "precision_at", query, database, query_labels, database_labels, num_bits
    )
    found, total = relevant_at(inputs, ns, ties)
    return mean_over_queries(found, total, "zero") / np.minimum(ns, inputs.num_database)


def recall_at(
    query,
    database,
    query_labels,
    database_labels,
    *,
    num_bits: int,
    ns=(1, 5, 10, 50, 100, 500, 1000),
    ties: str = "expected",
    no_relevant: str = "zero",
) -> np.ndarray:
    """Mean share of a query's relevant items among the first n: float64 [len(ns)].

    >>> code = np.array([[0], [1], [3]], np.uint32)
    >>> recall_at(code[:1], code, [1], [1, 0, 1], num_bits=2, ns=(1, 3)).tolist()
    [0.5, 1.0]
    """
    check_ties("recall_at", ties)
    check_no_relevant("recall_at", no_relevant)
    ns = check_ns("recall_at", ns)
    inputs = check_inputs(
        "recall_at", query, database, query_labels, database_labels, num_bits
    )
    found, total = relevant_at(inputs, ns, ties)
    share = found / np.maximum(total, 1)[:, None]
    return mean_over_queries(share, total, no_relevant)


def pooled_precision_recall(count, relevant, total_relevant):
    """Precision and recall of the ball of every radius, from pooled counts [K + 1]."""
    inside, found = np.cumsum(count), np.cumsum(relevant)
    precision = found / np.maximum(inside, 1)
    return precision, found / max(total_relevant, 1)


def precision_recall_by_radius(
    query, database, query_labels, database_labels, *, num_bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of all items within each Hamming radius, pooled.

    A radius takes whole ties, so there is no rule for ties. Precision of an empty
    set is 0, and so is recall where nothing is relevant.

    >>> code = np.array([[0], [1], [3]], np.uint32)
    >>> p, r = precision_recall_by_radius(code[:1], code, [1], [1, 0, 1], num_bits=2)
    >>> p.round(3).tolist(), r.tolist()
    ([1.0, 0.5, 0.667], [0.5, 0.5, 1.0])

    Returns:
      (precision float64 [K + 1], recall float64 [K + 1]).
    """
    inputs = check_inputs(
        "precision_recall_by_radius",
        query,
        database,
        query_labels,
        database_labels,
        num_bits,
    )
    pooled = np.zeros((2, num_bits + 1), np.int64)
    for _, counts in iterate_counts(inputs):
        pooled += counts.sum(axis=0)
    return pooled_precision_recall(pooled.sum(axis=0), pooled[1], pooled[1].sum())
