"""Whether codes use their bits: what a score alone does not show.

A code can rank well with a handful of distinct values, and a baseline that collapsed
proves nothing about its rival.
"""

import numpy as np

from modal_aware_jax.hashing.codes import unpack

CONSTANT_SHARE = 0.1  # of the bits, above which codes are called unhealthy
DISTINCT_SHARE = 0.01  # of the items, below which they are


def code_health(packed: np.ndarray, num_bits: int) -> dict:
    """How much of K bits a set of codes uses.

    Args:
      packed: uint32 [N, Wd].
      num_bits: K.

    Returns:
      dict of
        items: N;  distinct: the number of different codes;
        commonest_share: of the items that have the commonest code;
        constant_bits: how many bits are the same for all items;
        bit_entropy: mean entropy of a bit, 0 to 1 (in bits);
        mean_correlation: mean |correlation| of two bits, over those that vary;
        effective_rank: exp of the entropy of the shares that the eigenvalues of the
          bits' covariance have of its trace, 0 to K (Roy and Vetterli, EUSIPCO 2007).

    Raises:
      ValueError: there are no codes.

    Example:
      >>> health = code_health(np.array([[0], [1], [0], [1]], np.uint32), num_bits=2)
      >>> health["distinct"], health["constant_bits"], health["bit_entropy"]
      (2, 1, 0.5)
      >>> round(health["effective_rank"], 6)
      1.0
    """
    packed = np.asarray(packed)
    if packed.ndim != 2 or not len(packed):
        raise ValueError(
            f"code_health: expected packed codes [N, Wd] of at least one item, got "
            f"shape {packed.shape}."
        )
    _, counts = np.unique(packed, axis=0, return_counts=True)
    bits = np.asarray(unpack(packed, num_bits), np.float32)  # [N, K] of ±1
    ones = (bits.mean(axis=0, dtype=np.float64) + 1) / 2  # share of +1 of each bit
    covariance = np.cov(bits.T, bias=True).reshape(num_bits, num_bits)
    varies = (ones > 0) & (ones < 1)
    return {
        "items": len(packed),
        "distinct": len(counts),
        "commonest_share": float(counts.max() / len(packed)),
        "constant_bits": int(np.count_nonzero(~varies)),
        "bit_entropy": float((_entropy(ones) + _entropy(1 - ones)).mean() / np.log(2)),
        "mean_correlation": _mean_correlation(covariance[np.ix_(varies, varies)]),
        "effective_rank": _effective_rank(covariance),
    }


def health_warning(health: dict, num_bits: int) -> str:
    """One line where codes have collapsed or nearly so; '' where they have not.

    Args:
      health: of `code_health`.
      num_bits: K.

    Example:
      >>> health_warning({"constant_bits": 0, "distinct": 3, "items": 400}, 32)
      'Collapsed codes: 3 distinct codes of 400 items.'
    """
    found = []
    if health["constant_bits"] > CONSTANT_SHARE * num_bits:
        found.append(
            f"{round(health['constant_bits'], 1)} of {num_bits} bits are constant"
        )
    if health["distinct"] < DISTINCT_SHARE * health["items"]:
        distinct, items = (round(health[name], 1) for name in ("distinct", "items"))
        found.append(f"{distinct} distinct codes of {items} items")
    return f"Collapsed codes: {'; '.join(found)}." if found else ""


def _entropy(share):
    """-p log p, 0 at p = 0."""
    return -share * np.log(np.where(share > 0, share, 1))


def _mean_correlation(covariance):
    size = len(covariance)
    if size < 2:
        return 0.0
    deviation = np.sqrt(np.diagonal(covariance))
    correlation = abs(covariance) / np.outer(deviation, deviation)
    return float((correlation.sum() - np.trace(correlation)) / (size * (size - 1)))


def _effective_rank(covariance):
    values = np.maximum(np.linalg.eigvalsh(covariance), 0)
    if not values.sum() > 0:
        return 0.0
    return float(np.exp(_entropy(values / values.sum()).sum()))
