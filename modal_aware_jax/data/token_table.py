"""Tokens of texts of different lengths, stored without padding.

All word pieces of a collection stand one after the other, commonly in one file that is
mapped into memory; a batch gathers its own and pads them.
"""

import numpy as np


class TokenTable:
    """Word pieces of N items, read by position like the rows of an array.

    Args:
      pieces: [P, D] of all texts, one text after the other.
      lengths: [N], word pieces of each text; or [N, C], of C texts an item, 0 for one
        that is not there.
      longest: S; longer texts are cut. None takes the longest one.

    Attributes:
      shape: (N, S, D), or (N, C, S, D).

    Example:
      >>> table = TokenTable(np.arange(6.0).reshape(3, 2), np.array([1, 2]))
      >>> table.shape, table[np.array([0])]["mask"].tolist()
      ((2, 2, 2), [[True, False]])
      >>> table[1]["tokens"].tolist()
      [[2.0, 3.0], [4.0, 5.0]]
    """

    def __init__(
        self, pieces: np.ndarray, lengths: np.ndarray, longest: int | None = None
    ):
        lengths = np.asarray(lengths, np.int64)
        if pieces.ndim != 2 or lengths.sum() != len(pieces):
            raise ValueError(
                f"TokenTable: expected pieces [P, D] of {lengths.sum():,} word pieces, "
                f"the sum of the lengths, got {pieces.shape}."
            )
        self._pieces, self._lengths = pieces, lengths
        starts = np.cumsum(lengths) - lengths.reshape(-1)
        self._starts = starts.reshape(lengths.shape)
        longest = longest or max(1, int(lengths.max(initial=1)))
        self.shape = (*lengths.shape, longest, pieces.shape[1])

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def has_tokens(self) -> np.ndarray:
        """Which items have a token, bool [N]."""
        return self._lengths.reshape(len(self), -1).any(axis=1)

    def __getitem__(self, positions) -> dict[str, np.ndarray]:
        """Some items, or one.

        Returns:
          `tokens` float32 [B, S, D], zeros on padding, and `mask` bool [B, S]; with C
          between B and S of several texts an item; without B of one position.
        """
        longest, features = self.shape[-2:]
        places = np.arange(longest)
        mask = places < self._lengths[positions][..., None]
        rows = (self._starts[positions][..., None] + places)[mask]
        tokens = np.zeros((*mask.shape, features), np.float32)
        tokens[mask] = self._pieces[rows]
        return {"tokens": tokens, "mask": mask}
