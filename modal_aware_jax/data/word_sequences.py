"""Sentences as the numbers of their words, in their order.

For networks that learn to read from the training pairs alone, without a sentence model:
a bag of words does not tell a red kite above a blue house from a blue one above a red.
"""

from collections.abc import Sequence

import numpy as np

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.text import tag_vocabulary, tokenize

PADDING, UNKNOWN = 0, 1  # numbers below those of the words
MAX_WORDS = 64


class WordSequences:
    """Each line of a caption as the numbers of its words, side by side.

    The words are those of the training pairs, numbered from 2; 1 stands for any other,
    0 for none. Sentences longer than all of the training pairs' are cut.

    Args:
      pairs: with captions of one sentence a line.
      train: positions of the training pairs.

    Attributes:
      known: the words, the most frequent first.
      length: L, words of the longest sentence of the training pairs, 64 at most.
      num_words: the numbers in use: words, unknown and padding.

    Example:
      >>> pairs = Collection("one", ["a"], [b".."], [[0]], ["Sea, sea\\nA dog"], [[1]],
      ...                    ("x",), ("y",))
      >>> sequences = WordSequences(pairs, [0])
      >>> sequences.known, sequences.encode([["a", "red", "dog"]]).tolist()
      (('a', 'dog', 'sea'), [[2.0, 1.0]])
    """

    vocabulary = ()  # its vectors have no column a word

    def __init__(self, pairs: Collection, train: np.ndarray):
        lines = [
            tokenize(line) for i in train for line in pairs.captions[int(i)].split("\n")
        ]
        self.known = tag_vocabulary(lines, min_count=1)
        self.length = min(max(map(len, lines)), MAX_WORDS)
        self.num_words = len(self.known) + UNKNOWN + 1
        self._number = {w: i for i, w in enumerate(self.known, UNKNOWN + 1)}

    def split(self, query: str) -> tuple[list[str], list[str]]:
        """The words of a new sentence, and those of them that are unknown.

        The unknown stay among the first: they keep their place in the sentence.
        """
        words = tokenize(query)
        return words, [word for word in words if word not in self._number]

    def words(self, pairs: Collection, position: int) -> list[str]:
        """The words of a pair's first sentence."""
        return tokenize(pairs.captions[int(position)].split("\n")[0])

    def tokens_of(self, text: str) -> list[str]:
        """What the tokens of a text are called, in their order: its words."""
        return tokenize(text)[: self.length]

    def encode(self, documents: Sequence[Sequence[str]]) -> np.ndarray:
        """Numbers of sentences, each a list of words: float32 [N, L]."""
        numbers = np.full((len(documents), self.length), PADDING, np.float32)
        for row, words in zip(numbers, documents, strict=True):
            some = [self._number.get(word, UNKNOWN) for word in words[: self.length]]
            row[: len(some)] = some
        return numbers

    def vectors(self, pairs: Collection) -> np.ndarray:
        """The numbers of all sentences, float32 [N, S·L], S the most of an item."""
        each = [
            self.encode([tokenize(line) for line in caption.split("\n")]).ravel()
            for caption in pairs.captions[:]
        ]
        numbers = np.full((len(each), max(map(len, each))), PADDING, np.float32)
        for row, some in zip(numbers, each, strict=True):
            row[: len(some)] = some
        return numbers
