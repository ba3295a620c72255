"""How far a score, or the lead of one method, may be chance of the items: bootstrap."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A score of all items with its confidence interval."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    score: Callable[..., float],
    *arrays: np.ndarray,
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The score with the interval of its values over resampled items.

    The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, ch. 13). It covers the choice of items, not of training seeds.

    Args:
      score: a function of the arrays, such as `accuracy`.
      arrays: each with a row an item, such as labels and predicted classes.
      confidence: of the two-sided interval.
      samples: number of resamplings.
      seed: of the resampling.

    Example:
      >>> from modal_aware_jax.classification.scores import accuracy
      >>> found = bootstrap_interval(accuracy, np.zeros(99, int), np.arange(99) % 3)
      >>> round(found.value, 3), 0.2 < found.low < found.value < found.high < 0.5
      (0.333, True)
    """
    arrays = tuple(np.asarray(array) for array in arrays)
    lengths = {array.shape[:1] for array in arrays}
    if len(lengths) != 1 or not min(lengths) or not min(lengths)[0]:
        raise ValueError(
            f"bootstrap_interval expects arrays with a row for each of the same items, "
            f"got shapes {[array.shape for array in arrays]}."
        )
    if not 0 < confidence < 1 or samples < 1:
        raise ValueError(
            f"bootstrap_interval expects a confidence between 0 and 1 and "
            f"samples >= 1, got {confidence} and {samples}."
        )
    random = np.random.default_rng(seed)
    count = len(arrays[0])
    drawn = np.empty(samples)
    for i in range(samples):
        rows = random.integers(0, count, count)
        drawn[i] = score(*(array[rows] for array in arrays))
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(score(*arrays)), float(low), float(high))


def bootstrap_difference(
    score: Callable[..., float],
    labels: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    **options,
) -> Interval:
    """score(labels, ours) − score(labels, theirs), both on the same resampled items.

    Args:
      score: a function of labels and predictions.
      labels: [N] or [N, L].
      ours, theirs: the predictions of two methods for the same items.
      options: of `bootstrap_interval`.

    Example:
      >>> from modal_aware_jax.classification.scores import accuracy
      >>> bootstrap_difference(accuracy, [0, 1], [0, 1], [1, 0]).low
      1.0
    """

    def lead(labels, ours, theirs):
        return score(labels, ours) - score(labels, theirs)

    return bootstrap_interval(lead, labels, ours, theirs, **options)
