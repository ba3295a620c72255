"""Texts of similar length in batches of one size, padded, with their masks."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

BATCH = 32  # texts


def text_batches(
    read: Sequence[Sequence[int]], length_of: Callable[[int], int], *, padding: int = 0
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Word pieces of n texts, sorted by their number, `BATCH` texts at a time.

    >>> rows, ids, mask = next(text_batches([[5, 6], [7]], lambda longest: longest + 1))
    >>> rows, ids[:2].tolist(), mask[:3].astype(int).tolist()
    ([1, 0], [[7, 0, 0], [5, 6, 0]], [[1, 0, 0], [1, 1, 0], [1, 0, 0]])

    Args:
      read: the numbers of each text's word pieces.
      length_of: from the longest text of a batch to S; each S is a program of its own.
      padding: the number after a text's end.

    Yields:
      which texts, b of them; ids int32 [BATCH, S] and mask bool [BATCH, S], whose first
      b rows they are. Rows that fill the last batch keep one token, so that no mean and
      no attention is over nothing.
    """
    order = sorted(range(len(read)), key=lambda i: len(read[i]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        longest = len(read[rows[-1]])
        ids = np.full((BATCH, length_of(longest)), padding, np.int32)
        mask = np.zeros(ids.shape, bool)
        mask[:, 0] = True
        for row, i in enumerate(rows):
            ids[row, : len(read[i])] = read[i]
            mask[row, : len(read[i])] = True
        yield rows, ids, mask
