"""Texts as the numbers of their word pieces, for an encoder that is trained along.

Nothing is computed beforehand: what a text says changes with every step.
"""

from collections.abc import Sequence

import numpy as np

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.text_tokens import WordPieces

FIRST = 1  # the number of word piece 0; 0 stands for none


class WordIds(WordPieces):
    """The numbers of the word pieces of captions, 0 after a text's end.

    A word piece of the tokenizer's number i has i + 1: some tokenizers count what they
    pad with from 0, others do not. A text without anything in it has no word piece.

    Args:
      model: has `ids(texts)`, a list of the tokenizer's numbers for each, such as
        `backbones.word_pieces.WordPieceModel`.
      clean: what a text goes through first, new ones too; None for nothing.
      longest: L of every batch; None for the longest text of a collection.
      by_line: whether each line of a caption is a text of its own.

    Example:
      >>> class Lengths:
      ...     def ids(self, texts):
      ...         return [[len(word) for word in text.split()] for text in texts]
      >>> WordIds(Lengths()).encode([["a", "boat"], []]).tolist()
      [[2.0, 5.0], [0.0, 0.0]]
    """

    def __init__(
        self, model, clean=None, longest: int | None = None, *, by_line: bool = False
    ):
        super().__init__(model, clean=clean, longest=longest, by_line=by_line)

    def encode(self, documents: Sequence[Sequence[str]]) -> np.ndarray:
        """Documents, each a list of words and one text: numbers, float32 [n, L]."""
        return self._numbers([self._clean(" ".join(words)) for words in documents])

    def vectors(self, pairs: Collection) -> np.ndarray:
        """The numbers of all captions, float32 [N, L]; L then is new texts', too.

        By line [N, S·L], those of S lines side by side, S the most of a caption.
        """
        groups = [self._texts_of(caption) for caption in pairs.captions[:]]
        numbers = self._numbers([text for group in groups for text in group])
        self.longest = numbers.shape[1]
        counts = np.array([len(group) for group in groups], int)
        there = np.arange(counts.max(initial=1)) < counts[:, None]  # [N, S]
        side_by_side = np.zeros((*there.shape, self.longest), np.float32)
        side_by_side[there] = numbers
        return side_by_side.reshape(len(groups), -1)

    def _numbers(self, texts):
        read = self.model.ids(texts)
        read = [r if t.strip() else [] for r, t in zip(read, texts, strict=True)]
        longest = self.longest or max(1, max(map(len, read), default=1))
        numbers = np.zeros((len(texts), longest), np.float32)
        for row, ids in zip(numbers, read, strict=True):
            row[: len(ids)] = np.array(ids[:longest]) + FIRST
        return numbers
