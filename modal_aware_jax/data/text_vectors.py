"""The text of a collection as the network reads it: bags, sentences, words, tokens.

An encoder turns the words of any text, of the collection or new, into the same
vectors. Sources give bags of words and readable captions; `represent` gives the
collection with an encoder's vectors in place of the bags.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from modal_aware_jax.data import text
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.post_text import clean_post
from modal_aware_jax.data.sentences import Sentences, SentenceSets, kept_or_made
from modal_aware_jax.data.text_tokens import WordPieces
from modal_aware_jax.data.token_table import TokenTable
from modal_aware_jax.data.word_ids import WordIds
from modal_aware_jax.data.word_sequences import WordSequences
from modal_aware_jax.data.word_vectors import cooccurrence_vectors, model_vectors

KINDS = (
    "bag",
    "tfidf",
    "sentence",
    "sentences",
    "sequences",
    "words",
    "word_tokens",
    "word_pieces",
    "word_pieces_by_line",
    "word_ids",
    "word_ids_by_line",
)
CLEANINGS = {"": None, "post": clean_post}


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


class WordTokens(Words):
    """The words of a bag as tokens, each its fixed vector, in the vocabulary's order.

    Args:
      pairs, vectors: as for `Words`.
      longest: words that are read of a bag, S at most; 0 for all.

    Attributes:
      longest: S.
    """

    def __init__(self, pairs: Collection, vectors: np.ndarray, longest: int = 0):
        super().__init__(pairs, vectors)
        self.longest = min(longest or len(vectors), self._most(pairs.text))

    def encode(self, documents):
        """Documents, each a list of words: `tokens` [n, S, D] and `mask` [n, S]."""
        return self._table(text.bag_of_words(documents, self.vocabulary))[:]

    def vectors(self, pairs: Collection) -> TokenTable:
        """The words of all pairs."""
        return self._table(pairs.text)

    def _table(self, bags):
        rows, words = np.nonzero(bags)
        lengths = np.bincount(rows, minlength=len(bags))
        return TokenTable(self.vectors_of_words[words], lengths, self.longest)

    @staticmethod
    def _most(bags):
        return max(1, int((bags > 0).sum(axis=1).max(initial=1)))


def text_encoder(
    kind: str,
    pairs: Collection,
    train: np.ndarray,
    *,
    read_model: Callable | None = None,
    read_pieces: Callable | None = None,
    sentence_model: str | os.PathLike = "",
    word_vectors: str | os.PathLike = "own",
    cleaning: str = "",
    num_tokens: int = 0,
    folder: str | os.PathLike | None = None,
) -> BagOfWords | TfIdf | Sentences | SentenceSets | WordSequences | Words | WordPieces:
    """The encoder of a kind.

    Args:
      kind: one of `KINDS`.
      pairs: with bags of words and captions.
      train: positions of the training pairs.
      read_model: from the folder of a sentence model to what `Sentences` takes, such
        as `backbones.sentence_vectors.SentenceModel`: a network is no part of `data`.
      read_pieces: the same of word pieces, such as
        `backbones.word_pieces.WordPieceModel`, from a folder and `num_tokens`.
      sentence_model: folder of the sentence model; '' takes the installed one.
      word_vectors: of the kinds 'words' and 'word_tokens': 'own', from the words that
        the training pairs have together; or the folder of a sentence model, '' the
        installed one.
      cleaning: of the texts that a sentence model reads: '' for none, 'post' for
        `post_text.clean_post`.
      num_tokens: word pieces that are read of a text, S at most; 0 for as many as the
        model takes.
      folder: where vectors by a sentence model are kept.
    """
    if cleaning not in CLEANINGS:
        raise ValueError(
            f"config.data.cleaning is one of {', '.join(map(repr, CLEANINGS))}, not "
            f"{cleaning!r}."
        )
    clean = CLEANINGS[cleaning]
    if clean is not None and kind in ("bag", "tfidf", "words", "word_tokens"):
        raise ValueError(
            f"config.data.cleaning={cleaning} is of texts that a sentence model reads; "
            f"the words of config.data.text={kind} are the source's. Take "
            "--config.data.text=sentence or word_pieces, or no cleaning."
        )
    if kind in ("word_pieces", "word_pieces_by_line", "word_ids", "word_ids_by_line"):
        if read_pieces is None:
            raise ValueError(
                f"text_encoder: {kind!r} reads an encoder of word pieces. Give "
                "read_pieces, such as "
                "modal_aware_jax.backbones.word_pieces.WordPieceModel."
            )
        model = read_pieces(sentence_model, num_tokens)
        by_line = kind.endswith("_by_line")
        if kind.startswith("word_ids"):
            return WordIds(model, clean, by_line=by_line)
        return WordPieces(model, folder, by_line=by_line, clean=clean)
    if kind == "bag":
        return BagOfWords(pairs)
    if kind == "tfidf":
        return TfIdf(pairs, train)
    if kind == "sentence":
        return Sentences(_read(read_model, sentence_model, kind), folder, clean)
    if kind == "sentences":
        return SentenceSets(_read(read_model, sentence_model, kind), folder, clean)
    if kind == "sequences":
        return WordSequences(pairs, train)
    if kind in ("words", "word_tokens"):
        if word_vectors == "own":
            vectors = cooccurrence_vectors(pairs.text[train])
        else:
            model = _read(read_model, word_vectors, kind)
            vectors = _vectors_of_words(pairs.vocabulary, model, folder)
        if kind == "words":
            return Words(pairs, vectors)
        return WordTokens(pairs, vectors, num_tokens)
    raise ValueError(
        f"config.data.text is one of {', '.join(KINDS)}, not {kind!r}. 'bag' marks the "
        "words, 'tfidf' weights them, 'sentence' reads the whole caption, "
        "'sentences' each line of it, 'sequences' its words by their numbers and in "
        "their order, 'words' reads each word as a vector, 'word_tokens', "
        "'word_pieces' and 'word_pieces_by_line' keep each vector, 'word_ids' and "
        "'word_ids_by_line' are word pieces by their numbers, for an encoder that is "
        "trained along."
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
    return kept_or_made(path, lambda: model_vectors(vocabulary, model))


def represent(pairs: Collection, encoder) -> Collection:
    """The collection with an encoder's vectors as its text."""
    return dataclasses.replace(
        pairs, text=encoder.vectors(pairs), vocabulary=encoder.vocabulary
    )
