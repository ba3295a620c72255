"""Average precision and precision of embeddings or codes, relevance by labels.

The measures of `retrieval.metrics` for float rows too: embeddings are ranked by cosine,
packed codes with `num_bits` by Hamming distance. Relevant is what shares a label (0/1
[., L]), or has the same class or group number [.], none negative. Ties are cosines
within the tolerance of `retrieval.similarity` of their neighbour in rank, or equal
distances.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from modal_aware_jax.retrieval.inputs import check_not_negative, check_whole
from modal_aware_jax.retrieval.metrics import (
    before,
    check_no_relevant,
    check_ns,
    check_ties,
    expected_average_precision,
    expected_relevant_at,
    mean_over_queries,
    ranked_average_precision,
)
from modal_aware_jax.retrieval.ranking import num_threads
from modal_aware_jax.retrieval.similarity import Similarity, group_codes
from modal_aware_jax.retrieval.ties import expected_precision_sum, hypergeometric

SCORES = 2**22  # similarities in memory at a time


def average_precision_by_labels(
    query,
    gallery,
    query_labels,
    gallery_labels,
    *,
    num_bits: int | None = None,
    at: int | None = None,
    ties: str = "expected",
) -> np.ndarray:
    """Average precision of every query, float64 [Q].

    >>> gallery = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> average_precision_by_labels(gallery[:1], gallery, [1], [1, 0, 1]).round(4)
    array([0.8333])

    Args:
      query, gallery: float [Q, D], [N, D] embeddings, or packed codes with `num_bits`.
      query_labels, gallery_labels: 0/1 [Q, L], [N, L], or classes [Q], [N].
      num_bits: K of packed codes.
      at: None divides by all relevant items; k looks at the first k ranks and divides
        by the relevant items inside them.
      ties: 'expected' or 'index'.

    Returns:
      float64 [Q]; 0 for a query with nothing relevant.
    """
    function = "average_precision_by_labels"
    check_ties(function, ties)
    similarity = Similarity(function, query, gallery, num_bits)
    if at is not None:
        at = min(check_whole(function, "at", at), similarity.num_gallery)

    def one(ranking):
        if ties == "expected":
            return expected_average_precision(*ranking.bins(), at)[0]
        ranked = ranking.in_order()[:at]
        total = ranking.total if at is None else np.count_nonzero(ranked)
        return ranked_average_precision(ranked, total)

    labels = query_labels, gallery_labels
    return np.array(map_queries(function, similarity, labels, one), np.float64)


def average_precision_at_r(
    query,
    gallery,
    query_labels,
    gallery_labels,
    *,
    num_bits: int | None = None,
    ties: str = "expected",
) -> np.ndarray:
    """AP@R of every query: precisions at the relevant places up to rank R, over R.

    R is the number of the query's relevant items, so that a perfect ranking has 1 and
    nothing behind rank R counts (Musgrave et al., arXiv:2003.08505, Sec. 3.2). It is
    not `average_precision_by_labels` with `at`, which divides by what was found.

    >>> gallery = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> average_precision_at_r(gallery[:1], gallery, [1], [1, 0, 1]).tolist()
    [0.5]

    Args:
      query, gallery, query_labels, gallery_labels, num_bits, ties: as for
        `average_precision_by_labels`.

    Returns:
      float64 [Q]; 0 for a query with nothing relevant.
    """
    check_ties("average_precision_at_r", ties)
    similarity = Similarity("average_precision_at_r", query, gallery, num_bits)

    def one(ranking):
        return ranking.average_precision_at_r(ties)

    labels = query_labels, gallery_labels
    values = map_queries("average_precision_at_r", similarity, labels, one)
    return np.array(values, np.float64)


def precision_by_labels(
    query,
    gallery,
    query_labels,
    gallery_labels,
    *,
    num_bits: int | None = None,
    ns=(1, 5, 10, 50, 100, 500, 1000),
    ties: str = "expected",
) -> np.ndarray:
    """Mean precision of the first n ranks: float64 [len(ns)], divided by min(n, N).

    >>> gallery = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> precision_by_labels(gallery[:1], gallery, [1], [1, 0, 1], ns=(1, 2)).tolist()
    [1.0, 0.5]

    Args:
      ns: ranks. The other arguments are `average_precision_by_labels`'s.
    """
    check_ties("precision_by_labels", ties)
    ns = check_ns("precision_by_labels", ns)
    similarity = Similarity("precision_by_labels", query, gallery, num_bits)
    cut = np.minimum(ns, similarity.num_gallery)

    def one(ranking):
        if ties == "expected":
            return expected_relevant_at(*ranking.bins(), cut)[0]
        return np.cumsum(ranking.in_order())[cut - 1]

    labels = query_labels, gallery_labels
    found = map_queries("precision_by_labels", similarity, labels, one)
    return np.array(found, np.float64).reshape(-1, len(ns)).sum(axis=0) / (
        max(similarity.num_queries, 1) * cut
    )


def mean_average_precision_by_labels(
    query,
    gallery,
    query_labels,
    gallery_labels,
    *,
    num_bits: int | None = None,
    at: int | None = None,
    ties: str = "expected",
    no_relevant: str = "zero",
) -> float:
    """Mean of `average_precision_by_labels` over the queries.

    >>> rows = np.eye(2)
    >>> mean_average_precision_by_labels(rows, rows, [0, 5], [0, 1])
    0.5

    Args:
      no_relevant: a query with nothing relevant counts 0 ('zero') or leaves the mean
        ('skip'). The other arguments are `average_precision_by_labels`'s.
    """
    function = "mean_average_precision_by_labels"
    check_no_relevant(function, no_relevant)
    labels = query_labels, gallery_labels
    values = average_precision_by_labels(
        query, gallery, *labels, num_bits=num_bits, at=at, ties=ties
    )
    relevance = _relevance(function, labels, (len(values), len(gallery)))
    some = [relevance(slice(i, i + 1)).any() for i in range(len(values))]
    return float(mean_over_queries(values, np.array(some, int), no_relevant))


class Ranking:
    """One query's similarities [N] in order, cut into ties.

    Attributes:
      total: relevant items in the whole gallery.
    """

    def __init__(self, scores: np.ndarray, relevant: np.ndarray, tolerance: float):
        self.order = np.argsort(-scores, kind="stable")
        ranked = scores[self.order]
        new = np.append(True, ranked[:-1] - ranked[1:] > tolerance)
        self.starts = np.flatnonzero(new)
        self.relevant = relevant
        self.total = int(np.count_nonzero(relevant))

    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """Items and relevant items of every tie, int64 [1, ties] each."""
        count = np.diff(np.append(self.starts, len(self.order)))
        ranked = self.relevant[self.order].astype(np.int64)
        return count[None], np.add.reduceat(ranked, self.starts)[None]

    def in_order(self) -> np.ndarray:
        """Relevance by rank, ascending row inside a tie: bool [N]."""
        count = np.diff(np.append(self.starts, len(self.order)))
        tie = np.repeat(np.arange(len(count)), count)
        return self.relevant[self.order[np.lexsort((self.order, tie))]]

    def average_precision_at_r(self, ties: str) -> float:
        """AP@R, as the function of that name has it."""
        if not self.total:
            return 0.0
        if ties == "index":
            return ranked_average_precision(self.in_order()[: self.total], self.total)
        sums = precision_sum_within(*(x[0] for x in self.bins()), self.total)
        return sums / self.total


def precision_sum_within(count, relevant, at: int) -> float:
    """Expected sum of the precisions at relevant places up to rank `at`.

    A tie that the cut divides has a random number of relevant items inside.

    >>> precision_sum_within(np.array([1, 2]), np.array([1, 1]), 2)  # 1 + 1/2 of 2/2
    1.5

    Args:
      count, relevant: int64 [ties], in rank order.
      at: the last rank.
    """
    count_before, relevant_before = before(count), before(relevant)
    whole = count_before + count <= at
    sums = expected_precision_sum(count, relevant, count_before, relevant_before)
    total = float(sums[whole].sum())
    for d in np.flatnonzero((count_before < at) & ~whole):
        taken = at - count_before[d]
        outcomes, chance = hypergeometric(count[d], relevant[d], taken)
        inside = expected_precision_sum(
            np.full_like(outcomes, taken), outcomes, count_before[d], relevant_before[d]
        )
        total += float(chance @ inside)
    return total


def _relevance(function, labels, lengths) -> Callable[[slice], np.ndarray]:
    """A function from some queries to their relevant rows, bool [b, N]."""
    query_labels, gallery_labels = (np.asarray(x) for x in labels)
    names = "query_labels", "gallery_labels"
    if query_labels.ndim == 1 and gallery_labels.ndim == 1:
        groups = query_labels, gallery_labels
        own, theirs = group_codes(function, names, groups, lengths)
        check_not_negative(function, groups)
        return lambda rows: own[rows, None] == theirs
    both = query_labels, gallery_labels
    for name, x, length in zip(names, both, lengths, strict=True):
        fits = x.ndim == 2 and len(x) == length
        if not fits or x.shape[1] != query_labels.shape[1]:
            raise ValueError(
                f"{function}: expected {name} of {length} rows, 0/1 [., L] of the same "
                f"L on both sides or classes [.], got {list(query_labels.shape)} and "
                f"{list(gallery_labels.shape)}."
            )
        if not ((x == 0) | (x == 1)).all():
            raise ValueError(
                f"{function}: expected {name} of 0 and 1, found other values in an "
                f"array of shape {list(x.shape)}."
            )
    own, theirs = (x.astype(np.float32) for x in both)
    return lambda rows: own[rows] @ theirs.T > 0


def map_queries(function, similarity, labels, one, reorder=None) -> list:
    """`one(Ranking)` of every query, in order, on all threads.

    Args:
      function: the name in messages.
      similarity: a checked `Similarity` of queries and gallery.
      labels: of both.
      one: what is asked of each ranking.
      reorder: `reorder(rows, scores [b, N])` -> the scores that some queries are ranked
        by in place of their similarities; None: these.
    """
    lengths = similarity.num_queries, similarity.num_gallery
    relevance = _relevance(function, labels, lengths)
    results = []
    with ThreadPoolExecutor(num_threads()) as pool:
        for rows in similarity.query_blocks(max(1, SCORES // similarity.num_gallery)):
            scores, relevant = similarity.all_scores(rows), relevance(rows)
            scores = scores if reorder is None else reorder(rows, scores)
            rankings = zip(scores, relevant, strict=True)
            tolerance = similarity.tolerance
            results += pool.map(lambda x, t=tolerance: one(Ranking(*x, t)), rankings)
    return results
