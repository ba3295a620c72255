"""Precision and recall of embeddings or codes by rank, pooled over queries."""

import numpy as np

from modal_aware_jax.retrieval.label_scores import precision_by_labels
from modal_aware_jax.retrieval.similarity import group_codes

RANKS = (*range(1, 11), 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000)


def precision_recall_by_rank(
    query,
    gallery,
    query_groups,
    gallery_groups,
    *,
    ranks=RANKS,
    num_bits: int | None = None,
    ties: str = "expected",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall among the first k, for some k.

    Pooled: of all that all queries have among their first k, the share that is
    relevant, and of all that is relevant to them, the share that is there.

    >>> gallery = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.2]])
    >>> ranks, precision, recall = precision_recall_by_rank(
    ...     np.eye(2), gallery, [0, 1], [0, 1, 1])
    >>> ranks.tolist(), precision.tolist(), recall.tolist()
    ([1, 2, 3], [1.0, 0.75, 0.5], [0.6666666666666666, 1.0, 1.0])

    Args:
      query, gallery: float [Q, D], [N, D] embeddings, or packed codes with `num_bits`.
      query_groups, gallery_groups: [Q], [N]: relevant is what has the same.
      ranks: those beyond N are left out.
      num_bits: K of packed codes.
      ties: 'expected' or 'index', as for `precision_by_labels`.

    Returns:
      ranks int64 [R], precision and recall float64 [R].
    """
    function = "precision_recall_by_rank"
    ranks = np.asarray(ranks)
    ranks = ranks[ranks <= max(len(gallery), 1)]
    own, theirs = group_codes(
        function,
        ("query_groups", "gallery_groups"),
        (np.asarray(query_groups), np.asarray(gallery_groups)),
        (len(query), len(gallery)),
    )
    groups = own, theirs
    precision = precision_by_labels(
        query, gallery, *groups, num_bits=num_bits, ns=ranks, ties=ties
    )
    sizes = np.bincount(theirs, minlength=max(own.max(initial=0), 0) + 1)
    relevant = int(sizes[own].sum())
    found = precision * ranks * len(query)
    return ranks, precision, found / max(relevant, 1)
