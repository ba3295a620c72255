"""The text of a collection as the network reads it: bags, TF-IDF, sentences, words.

An encoder turns the words of any text, of the collection or new, into the same
vectors. Sources give bags of words and readable captions; `represent` gives the
collection with an encoder's vectors in place of the bags.
"""

import dataclasses
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
import rich.console
import rich.progress

from modal_aware_jax.data import text
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.word_vectors import cooccurrence_vectors, model_vectors

KINDS = ("bag", "tfidf", "sentence", "sentences", "words")


class BagOfWords:
    """Marks the words of a collection's vocabulary: 0 or 1 for each, float32.

    Example:
      >>> pairs = Collection("one", ["a"], [b".."], [[1, 0]], ["sea"], [[1]],
      ...                    ("sea", "dog"), ("water",))
      >>> bag = BagOfWords(pairs)
      >>> bag.words(pairs, 0), bag.encode([["dog", "xyz"]])
      (['sea'], array([[0., 1.]], dtype=float32))
    """

    weighs = False  # its vectors are bags as they are

    def __init__(self, pairs: Collection):
        if not pairs.vocabulary:
            raise ValueError(
                f"{pairs.name} has no vocabulary: its text cannot be a bag of words. "
                "Take --config.data.text=sentence."
            )
        self.vocabulary = pairs.vocabulary
        self._position = {word: i for i, word in enumerate(pairs.vocabulary)}

    def split(self, query: str) -> tuple[list[str], list[str]]:
        """The words of a new text: those that are known, those that are not."""
        words = text.tokenize(query)
        known = [word for word in words if word in self._position]
        return known, [word for word in words if word not in self._position]

    def words(self, pairs: Collection, position: int) -> list[str]:
        """The words of a pair, such that encoding them gives its vector."""
        return [self.vocabulary[i] for i in np.flatnonzero(pairs.text[position])]

    def encode(self, documents: Sequence[Sequence[str]]) -> np.ndarray:
        """Vectors of documents, each a list of words: float32 [N, T]."""
        return text.bag_of_words(documents, self.vocabulary).astype(np.float32)

    def vectors(self, pairs: Collection) -> np.ndarray:
        """The vectors of all pairs [N, T]."""
        return pairs.text


class TfIdf(BagOfWords):
    """Bags weighted by how rare a word is among the training pairs, of unit length.

    Args:
      pairs: with bags of words.
      train: positions of the training pairs: no other pair is counted.
    """

    weighs = True

    def __init__(self, pairs: Collection, train: np.ndarray):
        super().__init__(pairs)
        if pairs.text.dtype != np.uint8:
            raise ValueError(f"TfIdf: the text of {pairs.name} is weighted already.")
        self._rarity = text.rarity(pairs.text[train])

    def encode(self, documents):
        """Vectors of documents, each a list of words: float32 [N, T]."""
        return text.weigh(super().encode(documents), self._rarity)

    def vectors(self, pairs):
        """The vectors of all pairs [N, T]."""
        return text.weigh(pairs.text, self._rarity)


class Words(BagOfWords):
    """Bags of words for a network that reads each word as a fixed vector.

    The bag stays a bag up to the network, which sums the vectors: words are dropped in
    training before the sum, and an exported program reads bags.

    Args:
      pairs: with bags of words.
      vectors: [T, D] of the vocabulary's words.

    Attributes:
      vectors_of_words: the vectors.
    """

    def __init__(self, pairs: Collection, vectors: np.ndarray):
        super().__init__(pairs)
        self.vectors_of_words = vectors


class Sentences:
    """Vectors of the captions by a sentence model; every word is known to it.

    Args:
      model: maps sentences to float32 [N, D]; has `digest` and `features`, D.
      folder: where the vectors of collections are kept; None keeps none.
    """

    vocabulary = ()
    kept_as = "sentences"

    def __init__(self, model: Callable, folder: str | os.PathLike | None = None):
        self.model = model
        self.folder = folder and pathlib.Path(folder)

    def split(self, query: str) -> tuple[list[str], list[str]]:
        """The words of a new text, and none that are unknown."""
        return query.split(), []

    def words(self, pairs: Collection, position: int) -> list[str]:
        """The words of a pair's caption, punctuation included."""
        return pairs.captions[int(position)].split()

    def encode(self, documents: Sequence[Sequence[str]]) -> np.ndarray:
        """Vectors of documents, each a list of words: float32 [N, D]."""
        return self.model([" ".join(words) for words in documents])

    def vectors(self, pairs: Collection) -> np.ndarray:
        """The vectors of all captions [N, D], from disk where they were made before.

        The file's name tells model and collection (ids and 64 of the captions); a
        damaged file is made anew.
        """
        path = self.folder and self.folder / (
            f"{self.kept_as}-{pairs.name}-{_fingerprint(self.model.digest, pairs)}.npz"
        )
        return _kept_or_made(path, lambda: self._make(pairs))

    def _make(self, pairs):
        captions = self._texts(pairs)
        console = rich.console.Console(stderr=True)
        with rich.progress.Progress(console=console, transient=True) as bar:
            task = bar.add_task(f"{pairs.name}: sentence vectors", total=len(captions))
            return self.model(captions, progress=lambda n: bar.advance(task, n))

    def _texts(self, pairs):
        return [" ".join(caption.split()) for caption in pairs.captions[:]]


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
        return [" ".join(line.split()) for line in lines]


def text_encoder(
    kind: str,
    pairs: Collection,
    train: np.ndarray,
    *,
    read_model: Callable | None = None,
    sentence_model: str | os.PathLike = "",
    word_vectors: str | os.PathLike = "own",
    folder: str | os.PathLike | None = None,
) -> BagOfWords | TfIdf | Sentences | SentenceSets | Words:
    """The encoder of a kind.

    Args:
      kind: 'bag', 'tfidf', 'sentence', 'sentences' or 'words'.
      pairs: with bags of words and captions.
      train: positions of the training pairs.
      read_model: from the folder of a sentence model to what `Sentences` takes, such
        as `backbones.sentence_vectors.SentenceModel`: a network is no part of `data`.
      sentence_model: folder of the sentence model; '' takes the installed one.
      word_vectors: of the kind 'words': 'own', from the words that the training pairs
        have together; or the folder of a sentence model, '' the installed one.
      folder: where vectors by a sentence model are kept.
    """
    if kind == "bag":
        return BagOfWords(pairs)
    if kind == "tfidf":
        return TfIdf(pairs, train)
    if kind == "sentence":
        return Sentences(_read(read_model, sentence_model, kind), folder)
    if kind == "sentences":
        return SentenceSets(_read(read_model, sentence_model, kind), folder)
    if kind == "words":
        if word_vectors == "own":
            return Words(pairs, cooccurrence_vectors(pairs.text[train]))
        model = _read(read_model, word_vectors, kind)
        return Words(pairs, _vectors_of_words(pairs.vocabulary, model, folder))
    raise ValueError(
        f"config.data.text is one of {', '.join(KINDS)}, not {kind!r}. 'bag' marks the "
        "words, 'tfidf' weights them, 'sentence' reads the whole caption, "
        "'sentences' each line of it, 'words' reads each word as a vector."
    )


def _read(read_model, folder, kind):
    if read_model is None:
        raise ValueError(
            f"text_encoder: {kind!r} reads a sentence model. Give read_model, such as "
            "modal_aware_jax.backbones.sentence_vectors.SentenceModel."
        )
    return read_model(folder)


def _vectors_of_words(vocabulary, model, folder):
    """`model_vectors`, from disk where they were made before."""
    digest = hashlib.sha256("\n".join((model.digest, *vocabulary)).encode())
    path = folder and pathlib.Path(folder) / f"words-{digest.hexdigest()[:16]}.npz"
    return _kept_or_made(path, lambda: model_vectors(vocabulary, model))


def _kept_or_made(path, make):
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


def represent(pairs: Collection, encoder) -> Collection:
    """The collection with an encoder's vectors as its text."""
    return dataclasses.replace(
        pairs, text=encoder.vectors(pairs), vocabulary=encoder.vocabulary
    )


def _fingerprint(model, pairs):
    digest = hashlib.sha256(f"{model} {len(pairs)}\n".encode())
    digest.update("\n".join(pairs.ids.tolist()).encode())
    some = np.linspace(0, len(pairs) - 1, min(64, len(pairs))).astype(int)
    for i in some:
        digest.update(f"\n{pairs.captions[int(i)]}".encode())
    return digest.hexdigest()[:16]


def _save(path, vectors):
    """Writes a file that appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    np.savez(partial, vectors=vectors)
    partial.replace(path)
