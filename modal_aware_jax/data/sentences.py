"""Captions as vectors of a sentence model, kept on disk."""

import hashlib
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
import rich.console
import rich.progress

from modal_aware_jax.data.collection import Collection


class Sentences:
    """Vectors of the captions by a sentence model; every word is known to it.

    Args:
      model: maps sentences to float32 [N, D]; has `digest` and `features`, D.
      folder: where the vectors of collections are kept; None keeps none.
      clean: what a text goes through first, new ones too; None for nothing.
    """

    vocabulary = ()
    kept_as = "sentences"

    def __init__(
        self,
        model: Callable,
        folder: str | os.PathLike | None = None,
        clean: Callable[[str], str] | None = None,
    ):
        self.model = model
        self.folder = folder and pathlib.Path(folder)
        self._clean = clean or (lambda text: text)

    def split(self, query: str) -> tuple[list[str], list[str]]:
        """The words of a new text, and none that are unknown."""
        return query.split(), []

    def words(self, pairs: Collection, position: int) -> list[str]:
        """The words of a pair's caption, punctuation included."""
        return pairs.captions[int(position)].split()

    def encode(self, documents: Sequence[Sequence[str]]) -> np.ndarray:
        """Vectors of documents, each a list of words: float32 [N, D]."""
        return self.model([self._clean(" ".join(words)) for words in documents])

    def vectors(self, pairs: Collection) -> np.ndarray:
        """The vectors of all captions [N, D], from disk where they were made before.

        The file's name tells model and collection (ids and 64 of the captions); a
        damaged file is made anew.
        """
        path = self.folder and self.folder / (
            f"{self.kept_as}-{pairs.name}-{self._fingerprint(pairs)}.npz"
        )
        return kept_or_made(path, lambda: self._make(pairs))

    def _make(self, pairs):
        captions = self._texts(pairs)
        console = rich.console.Console(stderr=True)
        with rich.progress.Progress(console=console, transient=True) as bar:
            task = bar.add_task(f"{pairs.name}: sentence vectors", total=len(captions))
            return self.model(captions, progress=lambda n: bar.advance(task, n))

    def _texts(self, pairs):
        return [" ".join(self._clean(text).split()) for text in pairs.captions[:]]

    def _fingerprint(self, pairs):
        digest = hashlib.sha256(f"{self.model.digest} {len(pairs)}\n".encode())
        digest.update("\n".join(pairs.ids.tolist()).encode())
        some = np.linspace(0, len(pairs) - 1, min(64, len(pairs))).astype(int)
        for i in some:
            digest.update(f"\n{self._clean(pairs.captions[int(i)])}".encode())
        return digest.hexdigest()[:16]


class SentenceSets(Sentences):
    """Vectors of each sentence of captions that have one a line, side by side.

    An item with fewer sentences than others has zeros in place of the vectors that it
    lacks. A new text is one sentence.
    """

    kept_as = "each_sentence"

    def vectors(self, pairs: Collection) -> np.ndarray:
        """The vectors of all sentences, float32 [N, S·D], S the most of an item."""
        rows = super().vectors(pairs)
        counts = [caption.count("\n") + 1 for caption in pairs.captions[:]]
        vectors = np.zeros((len(pairs), max(counts), rows.shape[1]), np.float32)
        vectors[np.arange(max(counts)) < np.array(counts)[:, None]] = rows
        return vectors.reshape(len(pairs), -1)

    def _texts(self, pairs):
        lines = [line for text in pairs.captions[:] for line in text.split("\n")]
        return [" ".join(self._clean(line).split()) for line in lines]


def kept_or_made(path, make):
    """The vectors of a file; made, and kept there, where it is missing or damaged."""
    if path and path.exists():
        try:
            with np.load(path, allow_pickle=False) as kept:
                return kept["vectors"]  # the archive has a checksum of its own
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            print(f"{path} is damaged: its vectors are computed again.")
    vectors = make()
    if path:
        _save(path, vectors)
    return vectors


def _save(path, vectors):
    """Writes a file that appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    np.savez(partial, vectors=vectors)
    partial.replace(path)
