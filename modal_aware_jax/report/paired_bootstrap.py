"""Is one method better than another on the same queries? A confidence interval."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean difference with its confidence interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    ours: np.ndarray,
    theirs: np.ndarray,
    *,
    confidence: float = 0.95,
    samples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Resamples queries to bound the mean of `ours - theirs`.

    The percentile bootstrap over paired differences (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, ch. 13). It covers the choice of queries, not
    of training seeds: average each query over the seeds first.

    Args:
      ours, theirs: [Q] scores of the same queries in the same order.
      confidence: of the two-sided interval.
      samples: number of resamplings.
      seed: of the resampling.

    Example:
      >>> round(paired_bootstrap(np.array([0.9, 0.8]), np.array([0.7, 0.6])).low, 4)
      0.2
    """
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ValueError(
            "paired_bootstrap expects two vectors [Q] of the same queries, got shapes "
            f"{ours.shape} and {theirs.shape}."
        )
    difference = ours - theirs
    random = np.random.default_rng(seed)
    means = np.empty(samples)
    for i in range(0, samples, 256):  # 256 x Q numbers at a time
        count = min(256, samples - i)
        drawn = random.integers(0, len(difference), (count, len(difference)))
        means[i : i + count] = difference[drawn].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(difference.mean()), float(low), float(high))
