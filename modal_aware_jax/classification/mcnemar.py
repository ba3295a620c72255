"""McNemar's test: do two methods err alike often on the same items?

Only the items that one of the two gets right tell: b that ours alone has right, c that
theirs alone has. If both are equally good, each of the b + c is one's or the other's by
a fair coin. Source: McNemar, "Note on the sampling error of the difference between
correlated proportions or percentages" (Psychometrika 12, 1947).
"""

import math
from typing import NamedTuple

import numpy as np


class McNemar(NamedTuple):
    """What was counted and how likely a difference as large is by chance."""

    only_ours: int
    only_theirs: int
    p_value: float  # two-sided


def _discordant(caller, ours_right, theirs_right):
    ours, theirs = np.asarray(ours_right), np.asarray(theirs_right)
    if ours.ndim != 1 or ours.shape != theirs.shape or not ours.size:
        raise ValueError(
            f"{caller} expects two vectors [N] that tell whether each method is right "
            f"about the same items, got shapes {ours.shape} and {theirs.shape}."
        )
    if not all(((x == 0) | (x == 1)).all() for x in (ours, theirs)):
        raise ValueError(
            f"{caller} expects vectors of True and False (predicted == labels), found "
            f"other values."
        )
    ours, theirs = ours.astype(bool), theirs.astype(bool)
    return int((ours & ~theirs).sum()), int((theirs & ~ours).sum())


def mcnemar_exact(ours_right: np.ndarray, theirs_right: np.ndarray) -> McNemar:
    """The exact form: twice the smaller tail of the fair coin, at most 1.

    Args:
      ours_right, theirs_right: [N], whether each method is right about each item.

    Example:
      >>> mcnemar_exact([True] * 5, [False] * 5)
      McNemar(only_ours=5, only_theirs=0, p_value=0.0625)
    """
    b, c = _discordant("mcnemar_exact", ours_right, theirs_right)
    tail, ways = 0, 1  # ways: (b + c) choose k, as whole numbers
    for k in range(min(b, c) + 1):
        tail += ways
        ways = ways * (b + c - k) // (k + 1)
    return McNemar(b, c, min(1.0, 2 * tail / 2 ** (b + c)))


def mcnemar_chi_square(ours_right: np.ndarray, theirs_right: np.ndarray) -> McNemar:
    """The approximate form for many: (|b − c| − 1)² / (b + c) as χ² of one degree.

    With the correction for continuity of Edwards (Psychometrika 13, 1948). Below about
    25 items that tell, use the exact form.

    Args:
      ours_right, theirs_right: [N], whether each method is right about each item.

    Example:
      >>> ours, theirs = [True] * 40 + [False] * 20, [False] * 40 + [True] * 20
      >>> round(mcnemar_chi_square(ours, theirs).p_value, 4)
      0.0142
    """
    b, c = _discordant("mcnemar_chi_square", ours_right, theirs_right)
    statistic = max(abs(b - c) - 1, 0) ** 2 / max(b + c, 1)
    return McNemar(b, c, math.erfc(math.sqrt(statistic / 2)))
