"""The 11-point interpolated precision-recall curve."""

import numpy as np

from modal_aware_jax.retrieval.inputs import check_inputs
from modal_aware_jax.retrieval.metrics import (
    before,
    check_no_relevant,
    check_ties,
    mean_over_queries,
)
from modal_aware_jax.retrieval.order import map_ranked
from modal_aware_jax.retrieval.ranking import iterate_counts

LEVELS = np.linspace(0, 1, 11)


def _wanted(total):
    """Relevant items that reach each level, int64 [..., 11], at least one."""
    return np.maximum(np.ceil(LEVELS * total - 1e-9), 1).astype(np.int64)


def ranked_curve(relevant) -> np.ndarray:
    """The curve of one ranking: bool [N] in rank order to float64 [11]."""
    ranks = np.flatnonzero(relevant) + 1
    if not len(ranks):
        return np.zeros(len(LEVELS))
    precision = np.arange(1, len(ranks) + 1) / ranks
    highest_after = np.maximum.accumulate(precision[::-1])[::-1]
    return highest_after[_wanted(len(ranks)) - 1]


def expected_curve(count, relevant) -> np.ndarray:
    """The curve of expected counts [B, K + 1]: float64 [B, 11].

    Inside a tie the expected precision moves in one direction, so its highest value
    to the right of a rank is there or at the end of a tie.
    """
    start, found = before(count), before(relevant)
    share = relevant / np.maximum(count, 1)
    ends = (found + relevant) / np.maximum(start + count, 1)
    ends = np.where(count > 0, ends, 0.0)
    highest_after = np.maximum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    total = relevant.sum(axis=1)
    wanted = np.maximum(LEVELS * total[:, None], 1e-9)  # [B, 11]
    reached = (found + relevant)[:, :, None] >= wanted[:, None, :] - 1e-9
    tie = np.argmax(reached, axis=1)  # [B, 11]
    rows = np.arange(len(count))[:, None]
    inside = (wanted - found[rows, tie]) / np.maximum(share[rows, tie], 1e-300)
    inside = np.clip(np.ceil(inside - 1e-9), 1, np.maximum(count[rows, tie], 1))
    here = found[rows, tie] + inside * share[rows, tie]
    here = here / (start[rows, tie] + inside)
    curve = np.maximum(here, highest_after[rows, tie])
    return np.where(total[:, None] > 0, curve, 0.0)


def interpolated_precision(
    query,
    database,
    query_labels,
    database_labels,
    *,
    num_bits: int,
    ties: str = "expected",
    no_relevant: str = "zero",
) -> np.ndarray:
    """Mean interpolated precision at recall 0, 0.1, ..., 1: float64 [11].

    The interpolated precision at a level is the highest precision at any rank whose
    recall is at least that level. Taking the highest does not commute with a mean:
    'expected' interpolates each query's curve of expected precision over expected
    recall, both exact means over orders inside ties. The mean of the interpolated
    curves of all these orders has no closed form and is never lower.

    >>> code = np.array([[0], [1], [3]], np.uint32)
    >>> curve = interpolated_precision(code[:1], code, [1], [1, 0, 1], num_bits=2)
    >>> curve[[0, 5, 6, 10]].round(3).tolist()
    [1.0, 1.0, 0.667, 0.667]
    """
    check_ties("interpolated_precision", ties)
    check_no_relevant("interpolated_precision", no_relevant)
    inputs = check_inputs(
        "interpolated_precision",
        query,
        database,
        query_labels,
        database_labels,
        num_bits,
    )
    curves = np.zeros((inputs.num_queries, len(LEVELS)))
    if ties == "index":
        for i, curve in enumerate(map_ranked(inputs, lambda r, _: ranked_curve(r))):
            curves[i] = curve
        total = curves[:, -1] > 0
    else:
        total = np.zeros(inputs.num_queries, bool)
        for queries, counts in iterate_counts(inputs):
            curves[queries] = expected_curve(counts.sum(axis=1), counts[:, 1])
            total[queries] = counts[:, 1].any(axis=1)
    return mean_over_queries(curves, total, no_relevant)
