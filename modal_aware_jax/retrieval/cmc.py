"""The cumulative match characteristic of embeddings or codes with groups."""

import numpy as np

from modal_aware_jax.retrieval.inputs import check_whole
from modal_aware_jax.retrieval.matching import recall_at


def cumulative_match_curve(
    query,
    gallery,
    query_groups,
    gallery_groups,
    *,
    max_rank: int = 10,
    num_bits: int | None = None,
    ties: str = "expected",
    no_relevant: str = "zero",
) -> np.ndarray:
    """Share of queries that find something relevant by rank 1, 2, ..., max_rank.

    `recall_at` of every rank. With labels in place of groups and packed codes,
    `retrieval.cumulative_match` is the same measure.

    >>> cumulative_match_curve(np.eye(2), np.eye(2), [0, 1], [1, 0], max_rank=2)
    array([0., 1.])

    Args:
      max_rank: the last rank. The other arguments are `recall_at`'s.

    Returns:
      float64 [max_rank], never falling.
    """
    max_rank = check_whole("cumulative_match_curve", "max_rank", max_rank)
    return recall_at(
        query,
        gallery,
        query_groups,
        gallery_groups,
        ks=range(1, max_rank + 1),
        num_bits=num_bits,
        ties=ties,
        no_relevant=no_relevant,
    )
