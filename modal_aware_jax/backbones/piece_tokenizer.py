"""Texts to the numbers of their word pieces, by a `tokenizer.json`."""

import pathlib
from collections.abc import Sequence

from modal_aware_jax.backbones.sentence_vectors import read_tokenizer


class PieceTokenizer:
    """The tokenizer of a text encoder (needs the package `tokenizers`).

    Args:
      folder: with `tokenizer.json`.
      most: word pieces that the encoder takes; `sentence_bert_config.json` in the
        folder may say fewer.
      longest: word pieces of a text that are read, the rest is cut; 0 for as many as
        the encoder takes.

    Attributes:
      longest: word pieces of a text at most, its marks of begin and end among them.
    """

    def __init__(self, folder: pathlib.Path, most: int, longest: int = 0):
        self._tokenizer = read_tokenizer(folder, most)
        self.longest = self._tokenizer.truncation["max_length"]
        if longest:
            self.longest = min(longest, self.longest)
            self._tokenizer.enable_truncation(max_length=self.longest)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The word pieces of each text by number, its marks of begin and end too."""
        return [read.ids for read in self._tokenizer.encode_batch(list(texts))]

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """The word pieces of each text as the tokenizer writes them, as in `ids`."""
        return [read.tokens for read in self._tokenizer.encode_batch(list(texts))]

    def save(self, path: pathlib.Path) -> None:
        """Writes it as a `tokenizer.json`."""
        self._tokenizer.save(str(path))
