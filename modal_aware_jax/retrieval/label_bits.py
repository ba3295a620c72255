"""Which rows of a database share labels with a query, from one bit a row and label.

A query has few labels: the rows that share one are their bitmaps joined, and reading
these is much less work than comparing the labels of every row.
"""

import functools

import numpy as np

from modal_aware_jax.retrieval.inputs import Inputs, relevance_words
from modal_aware_jax.retrieval.ranking import CHUNK_ROWS


class LabelBits:
    """Bitmaps of the labels that queries have.

    Attributes:
      labels: of each query, the numbers of its bitmaps.
      bitmaps: uint8 [labels that any query has, N / 8 rounded up].
    """

    def __init__(self, inputs: Inputs):
        octets = inputs.query_words.view(np.uint8)
        has = np.unpackbits(octets, axis=1, bitorder="little").astype(bool)  # [Q, L]
        wanted = np.flatnonzero(has.any(axis=0))
        self.labels = [np.flatnonzero(row) for row in has[:, wanted]]
        size = -(-inputs.num_database // 8)
        self.bitmaps = np.empty((len(wanted), size), np.uint8)
        for start in range(0, inputs.num_database, CHUNK_ROWS):
            rows = slice(start, min(start + CHUNK_ROWS, inputs.num_database))
            columns = np.ascontiguousarray(relevance_words(inputs, rows).T)
            for bitmap, label in zip(self.bitmaps, wanted, strict=True):
                word, bit = np.divmod(label, 32)
                there = columns[word] & np.uint32(1 << bit) != 0
                bitmap[_octets(rows)] = np.packbits(there, bitorder="little")

    def shared(self, query: int, rows: slice) -> np.ndarray:
        """Rows that share a label with a query: bool [n].

        Args:
          query: its number.
          rows: from a multiple of 8 to one, or to the end of the database.
        """
        maps = [self.bitmaps[label, _octets(rows)] for label in self.labels[query]]
        if not maps:
            return np.zeros(rows.stop - rows.start, bool)
        return _bits(functools.reduce(np.bitwise_or, maps), rows).view(bool)

    def num_shared(self, query: int, rows: slice, kind) -> np.ndarray:
        """How many labels every row shares with a query: [n] of a type `kind`."""
        total = np.zeros(rows.stop - rows.start, kind)
        for label in self.labels[query]:
            total += _bits(self.bitmaps[label, _octets(rows)], rows)
        return total


def _octets(rows: slice) -> slice:
    return slice(rows.start // 8, -(-rows.stop // 8))


def _bits(octets: np.ndarray, rows: slice) -> np.ndarray:
    return np.unpackbits(octets, count=rows.stop - rows.start, bitorder="little")
