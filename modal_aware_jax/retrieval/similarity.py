"""Similarities of queries with a gallery, a block at a time, and what counts as equal.

Float rows are compared by cosine in float64, packed codes by Hamming distance. A
gallery may be a memory map larger than the memory: rows are read in chunks.

Two cosines within `tolerance` (1e-12, or 4 D machine epsilons where that is more) are
equal. A float64 sum of D products differs by less than that from any other order of
the same sum, so duplicates tie whatever the chunks, the threads and the place of a row
in its block. Hamming distances are equal where they are equal.
"""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from modal_aware_jax.hashing.codes import num_words
from modal_aware_jax.retrieval.inputs import check_codes, joined, last_word_mask

QUERY_ROWS = 512  # queries of one block
GALLERY_ROWS = 8192  # gallery rows in memory at a time


class Similarity:
    """Checked queries [Q, .] and gallery [N, .] with their similarity.

    Attributes:
      tolerance: similarities that differ by no more are equal.
      num_queries, num_gallery: Q and N.
    """

    def __init__(self, function: str, query, gallery, num_bits: int | None = None):
        self.function = function
        if num_bits is None:
            query, gallery = _check_floats(function, query, gallery)
            spread = 4 * query.shape[1] * np.finfo(np.float64).eps
            self.tolerance = max(1e-12, spread)
        else:
            num_words(num_bits)
            query, gallery = check_codes(function, query, gallery, num_bits)
            self.mask = last_word_mask(num_bits)
            self.tolerance = 0.0
        self.query, self.gallery, self.num_bits = query, gallery, num_bits

    @property
    def num_queries(self) -> int:
        return len(self.query)

    @property
    def num_gallery(self) -> int:
        return len(self.gallery)

    def query_blocks(self, rows: int = QUERY_ROWS) -> Iterator[slice]:
        """Consecutive rows of the queries."""
        for start in range(0, self.num_queries, rows):
            yield slice(start, min(start + rows, self.num_queries))

    def gallery_chunks(self) -> Iterator[slice]:
        """Consecutive rows of the gallery."""
        for start in range(0, self.num_gallery, GALLERY_ROWS):
            yield slice(start, min(start + GALLERY_ROWS, self.num_gallery))

    def scores(self, rows, columns) -> np.ndarray:
        """Cosines, or minus the Hamming distances, float64 [b, n] of some rows.

        Args:
          rows, columns: slices or positions of queries and of the gallery.
        """
        query, gallery = np.asarray(self.query[rows]), np.asarray(self.gallery[columns])
        if self.num_bits is None:
            query = unit_rows(self.function, "query", query)
            return query @ unit_rows(self.function, "gallery", gallery).T
        distance = np.zeros((len(query), len(gallery)), np.int32)
        for word, mask in enumerate(self.mask):
            different = (query[:, word, None] ^ gallery[None, :, word]) & mask
            distance += np.bitwise_count(different)
        return -distance.astype(np.float64)

    def all_scores(self, rows) -> np.ndarray:
        """Scores of some queries with the whole gallery, float64 [b, N]."""
        return np.concatenate(
            [self.scores(rows, columns) for columns in self.gallery_chunks()], axis=1
        )


def unit_rows(function: str, name: str, rows: np.ndarray) -> np.ndarray:
    """Rows [n, D] of length one in float64; a row of zeros stays zero.

    The cosine with a row of zeros is then 0, as in scikit-learn.

    >>> unit_rows("here", "query", np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    rows = rows.astype(np.float64)
    if not np.isfinite(rows).all():
        raise ValueError(
            f"{function}: expected finite embeddings, found NaN or infinity in "
            f"{name}. Look for a diverged model or a damaged input."
        )
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows /= np.where(largest > 0, largest, 1.0)  # 1e200 squared would be infinite
    length = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    return rows / np.where(length > 0, length, 1.0)


def _check_floats(function, query, gallery):
    both = []
    for name, x in (("query", query), ("gallery", gallery)):
        x = x if isinstance(x, np.ndarray) else np.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            cure = "Give num_bits for packed codes, or convert to float32."
            raise ValueError(
                f"{function}: expected {name} to be real embeddings, float [., D], got "
                f"{x.dtype} {list(x.shape)}. {cure}"
            )
        both.append(x)
    query, gallery = both
    fits = query.ndim == gallery.ndim == 2 and query.shape[1] == gallery.shape[1]
    if not fits or not query.shape[1]:
        raise ValueError(
            f"{function}: expected query [Q, D] and gallery [N, D] of the same D >= 1, "
            f"got {list(query.shape)} and {list(gallery.shape)}."
        )
    if not len(gallery):
        raise ValueError(f"{function}: the gallery is empty, shape [0, D].")
    return query, gallery


def group_codes(function: str, names, groups, lengths) -> tuple[np.ndarray, ...]:
    """Group numbers or names as int64 codes 0, 1, ..., equal where they are equal.

    >>> group_codes("here", ("a", "b"), ([7, 9], [9, 9, 3]), (2, 3))
    (array([1, 2]), array([2, 2, 0]))
    """
    both = []
    for name, x, length in zip(names, groups, lengths, strict=True):
        x = np.asarray(x)
        if x.ndim != 1 or len(x) != length:
            raise ValueError(
                f"{function}: expected {name} of shape [{length}], one group a row, "
                f"got {list(x.shape)}."
            )
        if x.dtype.kind not in "biuUS" and len(x):
            raise ValueError(
                f"{function}: expected {name} to be whole numbers or names, got "
                f"{x.dtype}."
            )
        both.append(x)
    filled = [x for x in both if len(x)]
    kinds = {"number" if x.dtype.kind in "biu" else x.dtype.kind for x in filled}
    if len(kinds) > 1:
        raise ValueError(
            f"{function}: expected {names[0]} and {names[1]} of one kind, got "
            f"{both[0].dtype} and {both[1].dtype}."
        )
    if not filled:
        return tuple(np.zeros(0, np.int64) for _ in both)
    codes = np.unique(joined(filled), return_inverse=True)[1].astype(np.int64)
    return tuple(np.split(codes, np.cumsum(lengths)[:-1]))
