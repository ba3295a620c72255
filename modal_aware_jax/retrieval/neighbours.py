"""Neighbours by frozen features of both modalities: relevance without labels.

Two pairs are as near as the mean of two cosines says, one of their image features and
one of their text features, each standardised by its mean and standard deviation among
training pairs: neither modality counts for more because its cosines spread more.
"""

import numpy as np

NUM_TRUE = 10  # so many nearest pairs are what a query should find
_SAMPLE = 2000  # training pairs whose cosines tell mean and standard deviation
_CELLS = 2**24  # similarities in memory at a time


def joint_vectors(modalities, train: np.ndarray) -> np.ndarray:
    """Vectors whose products rank pairs by the mean of their standardised cosines.

    Features are centred by the training pairs' mean. With unit vectors x of a modality
    and σ the standard deviation of its cosines between training pairs,

        ⟨v, v'⟩ = 1/M Σ_m ⟨x_m, x_m'⟩ / σ_m,

    which is the mean of the M standardised cosines up to a constant.

    Args:
      modalities: (features [N, D], whether each row has them, bool [N], or None for
        all) of each of the M modalities.
      train: positions of the training pairs: no other pair is looked at.

    Returns:
      float32 [N, ΣD]; a modality that a row lacks says nothing: its part is zero.

    Raises:
      ValueError: there are no modalities, or fewer than three training pairs.

    Example:
      >>> one = np.array([[1.0, 0], [1, 0.2], [0, 1], [-1, 0]])
      >>> vectors = joint_vectors([(one, None)], np.arange(4))
      >>> nearest(vectors[:1], vectors[1:], 2).tolist()
      [[0, 1]]
    """
    if not modalities or len(train) < 3:
        raise ValueError(
            "joint_vectors: expected features of a modality and three training pairs, "
            f"got {len(modalities)} modalities and {len(train)} pairs."
        )
    parts = []
    for features, has in modalities:
        features = np.asarray(features, np.float32)
        known = train if has is None else train[np.asarray(has)[train]]
        unit = features - features[known].mean(axis=0) if len(known) else features
        if has is not None:
            unit = np.where(np.asarray(has)[:, None], unit, 0)
        length = np.linalg.norm(unit, axis=1, keepdims=True)
        unit = unit / np.where(length > 0, length, 1)
        some = known[
            np.linspace(0, len(known) - 1, min(_SAMPLE, len(known))).astype(int)
        ]
        cosines = unit[some] @ unit[some].T
        spread = cosines[~np.eye(len(some), dtype=bool)].std() if len(some) > 1 else 0
        scale = 1 / np.sqrt(len(modalities) * spread) if spread > 1e-6 else 0.0
        parts.append(np.float32(scale) * unit)
    return np.concatenate(parts, axis=1)


def nearest(
    queries: np.ndarray, database: np.ndarray, k: int, *, own: np.ndarray | None = None
) -> np.ndarray:
    """The k rows of the database with the largest products, largest first.

    Equal products are ranked by position.

    Args:
      queries, database: float [Q, D], [N, D].
      k: how many, N at most.
      own: [Q] the row of the database that each query is itself, which is left out.

    Returns:
      int32 [Q, k].

    Raises:
      ValueError: k is not between 1 and N, or N − 1 with `own`.
    """
    most = len(database) - (own is not None)
    if not 1 <= k <= most:
        raise ValueError(f"nearest: expected 1 <= k <= {most}, got {k}.")
    found = np.empty((len(queries), k), np.int32)
    rows = max(_CELLS // len(database), 1)
    for start in range(0, len(queries), rows):
        part = slice(start, start + rows)
        products = np.asarray(queries[part] @ database.T, np.float32)
        if own is not None:
            products[np.arange(len(products)), own[part]] = -np.inf
        some = _first_largest(products, k)
        order = np.argsort(
            -np.take_along_axis(products, some, axis=1), axis=1, kind="stable"
        )
        found[part] = np.take_along_axis(some, order, axis=1)
    return found


def _first_largest(products, k):
    """Columns of the k largest of each row, ascending; of equal ones the first."""
    some = np.argpartition(-products, k - 1, axis=1)[:, :k]
    last = np.take_along_axis(products, some, axis=1).min(axis=1, keepdims=True)
    # A partition takes any of those that are equal to the last.
    for row in np.flatnonzero((products >= last).sum(axis=1) > k):
        larger = np.flatnonzero(products[row] > last[row])
        equal = np.flatnonzero(products[row] == last[row])
        some[row] = np.append(larger, equal[: k - len(larger)])
    return np.sort(some, axis=1)


def as_labels(found: np.ndarray, num_database: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels under which the rows that each query found are relevant to it alone.

    Any measure of `retrieval` that counts shared labels then counts neighbours.

    Args:
      found: int [Q, k], rows of the database.
      num_database: N.

    Returns:
      uint8 0/1 [Q, Q] of the queries and [N, Q] of the database.

    Example:
      >>> [labels.tolist() for labels in as_labels(np.array([[2, 0]]), 3)]
      [[[1]], [[1], [0], [1]]]
    """
    number = len(found)
    database = np.zeros((num_database, number), np.uint8)
    database[found, np.arange(number)[:, None]] = 1
    return np.eye(number, dtype=np.uint8), database
