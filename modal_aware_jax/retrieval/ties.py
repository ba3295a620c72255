"""Exact expectations over random orders inside ties.

Items at one Hamming distance are a tie: n items, r of them relevant, behind N
items of which R are relevant. Over all orders of the tie, its i-th place is
relevant with probability r / n, and then i - 1 places before it hold
(i - 1)(r - 1)/(n - 1) relevant ones on average. The sums over i have closed forms
in harmonic numbers (McSherry and Najork, ECIR 2008). Everything is float64.
"""

import numpy as np

_TABLE = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, 129))])


def _tail(n):
    """H(n) - log(n) - Euler's constant, for n >= 64, to machine precision."""
    square = 1.0 / (n * n)
    return 0.5 / n - square * (1 / 12 - square * (1 / 120 - square / 252))


def harmonic_difference(start, count):
    """1/(start + 1) + ... + 1/(start + count), without cancellation.

    >>> round(float(harmonic_difference(1, 2)), 6)
    0.833333
    """
    start = np.asarray(start, np.float64)
    stop = start + count
    large = np.maximum(start, 64.0)
    from_large = np.maximum(stop, large)
    difference = np.log1p((from_large - large) / large)
    difference += _tail(from_large) - _tail(large)
    low = np.minimum(start, 64.0).astype(np.int64)
    high = np.minimum(stop, 64.0).astype(np.int64)
    return difference + (_TABLE[high] - _TABLE[low])


def expected_precision_sum(count, relevant, before, relevant_before):
    """Mean, over orders of a tie, of the precisions at its relevant places, summed.

    Args:
      count, relevant: n and r of the tie, arrays of one shape.
      before, relevant_before: N and R, the same shape.

    Returns:
      float64, 0 where r is 0.
    """
    n = np.maximum(count, 1).astype(np.float64)
    r = np.asarray(relevant, np.float64)
    slope = np.where(n > 1, (r - 1) / np.maximum(n - 1, 1), 0.0)
    harmonic = harmonic_difference(before, n)
    inner = slope * n + (relevant_before + 1 - slope * (before + 1.0)) * harmonic
    return np.where(r > 0, r / n * inner, 0.0)


def hypergeometric(count, relevant, taken):
    """Distribution of the relevant items among `taken` of `count`.

    Outcomes further than 6 sqrt(taken) from the mean are left out: by Hoeffding's
    bound they have a probability below 1e-31.

    Returns:
      (outcomes int64 [J], probabilities float64 [J]).
    """
    mean, reach = taken * relevant / count, 6 * np.sqrt(taken) + 1
    low = max(0, taken - (count - relevant), int(mean - reach))
    high = min(relevant, taken, int(mean + reach) + 1)
    outcomes = np.arange(low, high + 1)
    j = outcomes[:-1].astype(np.float64)
    up = (relevant - j) * (taken - j)
    down = (j + 1) * (count - relevant - taken + j + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(up / down))])
    weights = np.exp(logs - logs.max())
    return outcomes, weights / weights.sum()
