"""Matching: at which rank a query finds the first item of its own group.

An image and its sentences are one group: relevant are the gallery rows whose group
equals the query's, so a query may have several right answers and the best one counts.
Rows are float embeddings, compared by cosine in float64, or packed codes with
`num_bits`, compared by Hamming distance; equal similarities (see
`retrieval.similarity`) are a tie:

  'expected'  the exact mean over all orders inside the tie. With A items before a tie
              of n items, r of them relevant, the first relevant one has the mean rank
              A + (n + 1) / (r + 1) and is among the first k with the probability
              1 - C(n - r, m) / C(n, m), m = k - A.
  'index'     ascending gallery row inside the tie (a stable sort).

A query without any relevant item has rank infinity and is found at no k.
"""

from typing import NamedTuple

import numpy as np

from modal_aware_jax.retrieval.inputs import check_whole
from modal_aware_jax.retrieval.lookup import missed
from modal_aware_jax.retrieval.metrics import check_no_relevant, check_ties
from modal_aware_jax.retrieval.similarity import Similarity, group_codes


class FirstTie(NamedTuple):
    """The tie that holds each query's most similar relevant item, int64 [Q] each."""

    before: np.ndarray  # items more similar than the tie
    size: np.ndarray  # items of the tie
    relevant: np.ndarray  # relevant items of the tie; 0: the query has none at all
    place: np.ndarray  # place from 1 of the first relevant row, by ascending row


def first_tie(
    function, query, gallery, query_groups, gallery_groups, num_bits=None
) -> FirstTie:
    """The first tie with a relevant item; memory does not grow with Q or N.

    Two passes over the gallery: over the rows of the queries' own groups for the best
    similarity, then over all rows to count those above and beside it.
    """
    similarity = Similarity(function, query, gallery, num_bits)
    query_codes, gallery_codes = group_codes(
        function,
        ("query_groups", "gallery_groups"),
        (query_groups, gallery_groups),
        (similarity.num_queries, similarity.num_gallery),
    )
    result = FirstTie(*np.zeros((4, similarity.num_queries), np.int64))
    for rows in similarity.query_blocks():
        own = query_codes[rows]
        best = np.full(len(own), -np.inf)
        for chunk in similarity.gallery_chunks():
            columns = chunk.start + np.flatnonzero(np.isin(gallery_codes[chunk], own))
            if len(columns):
                relevant = own[:, None] == gallery_codes[columns]
                scores = np.where(relevant, similarity.scores(rows, columns), -np.inf)
                best = np.maximum(best, scores.max(axis=1))
        block = FirstTie(*(column[rows] for column in result))  # views
        for chunk in similarity.gallery_chunks():
            scores = similarity.scores(rows, chunk)
            relevant = own[:, None] == gallery_codes[chunk]
            _count(block, scores, relevant, best, similarity.tolerance)
    return result


def _count(tie, scores, relevant, best, tolerance):
    """Adds one chunk's rows to the counts of some queries, in place."""
    above = scores > best[:, None] + tolerance
    beside = ~above & (scores >= best[:, None] - tolerance)
    found = beside & relevant
    first = np.argmax(found, axis=1)
    upto = np.arange(scores.shape[1]) <= first[:, None]
    new = found.any(axis=1) & (tie.place == 0)
    place = tie.size + np.count_nonzero(beside & upto, axis=1)
    tie.place[new] = place[new]
    tie.before[:] += np.count_nonzero(above, axis=1)
    tie.size[:] += np.count_nonzero(beside, axis=1)
    tie.relevant[:] += np.count_nonzero(found, axis=1)


def rank_of(tie: FirstTie, ties: str) -> np.ndarray:
    """Ranks from 1, float64 [Q]; infinity without a relevant item."""
    inside = tie.place if ties == "index" else (tie.size + 1) / (tie.relevant + 1)
    return np.where(tie.relevant > 0, tie.before + inside, np.inf)


def found_within(tie: FirstTie, ks, ties: str) -> np.ndarray:
    """Chance that each query finds a relevant item among the first k: [Q, len(ks)]."""
    ks = np.asarray(ks)
    if ties == "index":
        return (rank_of(tie, ties)[:, None] <= ks).astype(np.float64)
    some = tie.relevant > 0
    last = tie.before + tie.size
    result = np.zeros((len(some), len(ks)))
    for column, k in enumerate(ks):
        result[:, column] = some & (last <= k)
        for i in np.flatnonzero(some & (tie.before < k) & (last > k)):
            chance = missed(tie.size[i], tie.relevant[i], k - tie.before[i])
            result[i, column] = 1 - chance
    return result


def check_ks(function: str, ks) -> np.ndarray:
    """Ranks as int64 [len(ks)], or ValueError."""
    if isinstance(ks, str) or np.ndim(ks) != 1 or not np.size(ks):
        raise ValueError(f"{function}: expected ks to be several ranks, got {ks!r}.")
    return np.array([check_whole(function, "every k", k) for k in ks], np.int64)


def first_relevant_rank(
    query,
    gallery,
    query_groups,
    gallery_groups,
    *,
    num_bits: int | None = None,
    ties: str = "expected",
) -> np.ndarray:
    """Rank of the first relevant item of every query, from 1.

    >>> images, texts = np.eye(2), np.array([[1.0, 0.1], [0.1, 1.0], [1.0, 2.0]])
    >>> first_relevant_rank(images, texts, [0, 1], [1, 0, 0]).tolist()
    [2.0, 3.0]

    Args:
      query, gallery: float [Q, D], [N, D] embeddings, compared by cosine; or packed
        codes, uint32 [Q, Wd], [N, Wd], with `num_bits`. A memory map is read in chunks.
      query_groups, gallery_groups: [Q], [N] whole numbers or names; relevant is what
        has the query's group.
      num_bits: K of packed codes.
      ties: 'expected' or 'index'.

    Returns:
      float64 [Q]; infinity where nothing is relevant.

    Raises:
      ValueError: shapes or kinds do not fit, or an embedding is not finite.
    """
    check_ties("first_relevant_rank", ties)
    groups = query_groups, gallery_groups
    tie = first_tie("first_relevant_rank", query, gallery, *groups, num_bits)
    return rank_of(tie, ties)


def hits_at(
    query,
    gallery,
    query_groups,
    gallery_groups,
    *,
    ks=(1, 5, 10),
    num_bits: int | None = None,
    ties: str = "expected",
) -> np.ndarray:
    """Whether every query finds something relevant among the first k, or the chance.

    What `recall_at` averages, for paired comparisons by `bootstrap_by_image`.

    >>> hits_at(np.eye(2), np.ones((2, 2)), [0, 1], [0, 1], ks=(1, 2)).tolist()
    [[0.5, 1.0], [0.5, 1.0]]

    Args:
      ks: ranks. The other arguments are `first_relevant_rank`'s.

    Returns:
      float64 [Q, len(ks)].
    """
    check_ties("hits_at", ties)
    ks = check_ks("hits_at", ks)
    groups = query_groups, gallery_groups
    tie = first_tie("hits_at", query, gallery, *groups, num_bits)
    return found_within(tie, ks, ties)


def recall_at(
    query,
    gallery,
    query_groups,
    gallery_groups,
    *,
    ks=(1, 5, 10),
    num_bits: int | None = None,
    ties: str = "expected",
    no_relevant: str = "zero",
) -> np.ndarray:
    """R@k: share of the queries with a relevant item among the first k.

    >>> recall_at(np.eye(2), np.eye(2)[::-1], [0, 1], [0, 1], ks=(1, 2)).tolist()
    [0.0, 1.0]

    Args:
      ks: ranks; above N all of the gallery counts.
      no_relevant: a query without any relevant item counts 0 ('zero') or leaves the
        mean ('skip'). The other arguments are `first_relevant_rank`'s.

    Returns:
      float64 [len(ks)], between 0 and 1.
    """
    check_ties("recall_at", ties)
    check_no_relevant("recall_at", no_relevant)
    ks = check_ks("recall_at", ks)
    groups = query_groups, gallery_groups
    tie = first_tie("recall_at", query, gallery, *groups, num_bits)
    found = found_within(tie, ks, ties)
    if no_relevant == "skip":
        found = found[tie.relevant > 0]
    return found.mean(axis=0) if len(found) else np.zeros(len(ks))
