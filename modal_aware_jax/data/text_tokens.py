"""Texts as tokens: what a frozen encoder says of each word piece, kept on disk."""

import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import rich.console
import rich.progress

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.token_table import TokenTable


class WordPieces:
    """The word pieces of captions by an encoder that stays as it is.

    Args:
      model: maps texts to states float16 [P, D] and lengths [n], such as
        `backbones.word_pieces.WordPieceModel`; has `digest` and `features`, D.
      folder: where the pieces of collections are kept; None keeps none.
      by_line: whether each line of a caption is a text of its own.
      clean: what a text goes through first, new ones too; None for nothing.
      longest: S of every batch; None for the longest text of a collection.
    """

    vocabulary = ()

    def __init__(
        self,
        model: Callable,
        folder: str | os.PathLike | None = None,
        *,
        by_line: bool = False,
        clean: Callable[[str], str] | None = None,
        longest: int | None = None,
    ):
        self.model = model
        self.folder = folder and pathlib.Path(folder)
        self.by_line, self.longest = by_line, longest
        self._clean = clean or (lambda text: text)

    def split(self, query: str) -> tuple[list[str], list[str]]:
        """The words of a new text, and none that are unknown."""
        return query.split(), []

    def words(self, pairs: Collection, position: int) -> list[str]:
        """The words of a pair's caption, punctuation included."""
        return pairs.captions[int(position)].split()

    def tokens_of(self, text: str) -> list[str]:
        """What the tokens of a text are called, in their order."""
        text = " ".join(self._clean(text).split())
        return self.model.pieces([text])[0][: self.longest]

    def encode(self, documents: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        """Documents, each a list of words and one text, as a batch has them.

        Returns:
          `tokens` [n, S, D] and `mask` [n, S]; by line, with one line an item.
        """
        texts = [self._clean(" ".join(words)) for words in documents]
        pieces, lengths = self.model(texts)
        lengths = lengths[:, None] if self.by_line else lengths
        return TokenTable(pieces, lengths, self.longest)[:]

    def vectors(self, pairs: Collection) -> TokenTable:
        """The word pieces of all captions, from disk where they were computed before.

        The file's name tells the model, the texts as they were read, and their order.
        """
        groups = [self._texts_of(caption) for caption in pairs.captions[:]]
        texts = [text for group in groups for text in group]
        pieces, lengths = self._kept_or_made(pairs.name, texts)
        if self.by_line:
            counts = np.array([len(group) for group in groups])
            table = np.zeros((len(groups), counts.max(initial=1)), np.int64)
            table[np.arange(table.shape[1]) < counts[:, None]] = lengths
            lengths = table
        found = TokenTable(pieces, lengths, self.longest)
        self.longest = found.shape[-2]  # of new texts, too: networks have one shape
        return found

    def _texts_of(self, caption):
        lines = caption.split("\n") if self.by_line else [caption]
        return [" ".join(self._clean(line).split()) for line in lines]

    def _kept_or_made(self, name, texts):
        if self.folder is None:
            return self.model(texts)
        digest = hashlib.sha256(self.model.digest.encode())
        digest.update("\0".join(texts).encode())
        stem = f"pieces-{name}-{digest.hexdigest()[:16]}"
        paths = [self.folder / f"{stem}-lengths.npy", self.folder / f"{stem}.npy"]
        try:
            lengths, pieces = (np.load(path, mmap_mode="r") for path in paths)
            if pieces.shape == (lengths.sum(), self.model.features):
                return pieces, lengths
        except (OSError, ValueError, EOFError):
            pass
        if paths[1].exists():
            print(f"{paths[1]} is damaged: its word pieces are computed again.")
        pieces, lengths = self._make(name, texts)
        for path, array in zip(paths, (lengths, pieces), strict=True):
            _save(path, array)
        return np.load(paths[1], mmap_mode="r"), lengths

    def _make(self, name, texts):
        console = rich.console.Console(stderr=True)
        with rich.progress.Progress(console=console, transient=True) as bar:
            task = bar.add_task(f"{name}: word pieces", total=len(texts))
            return self.model(texts, progress=lambda n: bar.advance(task, n))


def _save(path, array):
    """Writes a file that appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.npy")
    np.save(partial, array)
    partial.replace(path)
