"""Words that no training pair has, read through a sentence model.

Vectors from the training pairs' own words know no others. A sentence model knows nearly
all, in a space of its own: a linear map from its vectors to ours, fitted on the words
that both know, reads the rest. Such a word then stands in a bag as a mixture of known
words that has its vector, so that networks and exported programs read bags as before.

Source of the map: Mikolov, Le and Sutskever, "Exploiting Similarities among Languages
for Machine Translation" (arXiv:1309.4168), with a ridge.
"""

import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from modal_aware_jax.data import text
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.text_vectors import Words

RIDGES = tuple(10.0**power for power in range(-3, 4))


class LinearMap(NamedTuple):
    """From one space of word vectors to another: (x - centre) @ weights + offset.

    Attributes:
      weights: [M, D].
      centre, offset: [M], [D].
      ridge: the penalty that was chosen.
      explained: of the variance of words that were left out, 1 at best.
    """

    weights: np.ndarray
    centre: np.ndarray
    offset: np.ndarray
    ridge: float
    explained: float

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Maps vectors [n, M] to [n, D]."""
        return (vectors - self.centre) @ self.weights + self.offset


def fit_map(
    inputs: np.ndarray, targets: np.ndarray, ridges: Sequence[float] = RIDGES
) -> LinearMap:
    """Least squares with a ridge, chosen by leaving out one word at a time.

    The error of a word that was left out needs no new fit: it is its residual over
    1 - h, with h its own entry of the hat matrix.

    Args:
      inputs: [n, M], vectors of words in the sentence model's space.
      targets: [n, D], of the same words in ours.
      ridges: penalties to choose from.

    Example:
      >>> inputs = np.random.default_rng(0).normal(size=(20, 3))
      >>> found = fit_map(inputs, 2 * inputs + 1, ridges=[1e-6])
      >>> bool(np.allclose(found(np.ones((1, 3))), 3, atol=1e-3))
      True
    """
    inputs, targets = np.asarray(inputs, np.float64), np.asarray(targets, np.float64)
    if inputs.ndim != 2 or inputs.shape[:1] != targets.shape[:1] or len(inputs) < 3:
        raise ValueError(
            "fit_map: expected vectors [n, M] and [n, D] of the same words, at least 3 "
            f"of them, got {inputs.shape} and {targets.shape}."
        )
    centre, offset = inputs.mean(axis=0), targets.mean(axis=0)
    left, sizes, right = np.linalg.svd(inputs - centre, full_matrices=False)
    spread = left.T @ (targets - offset)
    found = []
    for ridge in ridges:
        kept = sizes**2 / (sizes**2 + ridge)
        residual = targets - offset - left @ (kept[:, None] * spread)
        own = (left**2) @ kept + 1 / len(inputs)
        left_out = residual / np.maximum(1 - own, 1e-9)[:, None]
        found.append((np.mean(left_out**2), ridge))
    error, ridge = min(found)
    weights = right.T @ ((sizes / (sizes**2 + ridge))[:, None] * spread)
    explained = 1 - error / max(np.mean((targets - offset) ** 2), 1e-12)
    return LinearMap(weights, centre, offset, float(ridge), float(explained))


def as_mixtures(wanted: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Weights of known words whose sum is 1 and whose vectors add up to those wanted.

    Of all such weights those of the least squares. Exact where there are more known
    words than features; the nearest there is where not.

    Args:
      wanted: [n, D].
      vectors: [T, D], of the known words.

    Returns:
      float32 [n, T].

    Example:
      >>> as_mixtures(np.array([[0.5, 0.5]]), np.eye(2)).round(3).tolist()
      [[0.5, 0.5]]
    """
    ones = np.ones((len(vectors), 1))
    columns = np.concatenate([np.asarray(vectors, np.float64), ones], axis=1)
    rows = np.concatenate(
        [np.asarray(wanted, np.float64), np.ones((len(wanted), 1))], 1
    )
    return (rows @ np.linalg.pinv(columns)).astype(np.float32)


class OpenWords(Words):
    """`Words` that reads every word, of no training pair through a sentence model.

    Args:
      pairs: with bags of words.
      vectors: [T, D] of the vocabulary's words.
      known: bool [T], the words that a training pair has.
      to_ours: the map.
      model: maps sentences to float32 [n, M], such as `SentenceModel`.
    """

    def __init__(
        self,
        pairs: Collection,
        vectors: np.ndarray,
        known: np.ndarray,
        to_ours: LinearMap,
        model: Callable,
    ):
        super().__init__(pairs, vectors)
        self.known = np.asarray(known, bool)
        self._to_ours, self._model = to_ours, model

    def is_known(self, word: str) -> bool:
        """Whether a training pair has the word."""
        return word in self._position and bool(self.known[self._position[word]])

    def split(self, query: str) -> tuple[list[str], list[str]]:
        """The words of a new text, and none that are not read."""
        return text.tokenize(query), []

    def encode(self, documents: Sequence[Sequence[str]]) -> np.ndarray:
        """Bags of documents, float32 [N, T]: 1 for known words, mixtures for others."""
        bags = super().encode(documents) * self.known
        strange = [
            dict.fromkeys(word for word in words if not self.is_known(word))
            for words in documents
        ]
        new = list(dict.fromkeys(word for words in strange for word in words))
        if not new:
            return bags
        wanted = self._to_ours(np.asarray(self._model(new), np.float64))
        mixtures = np.zeros((len(new), len(self.vocabulary)), np.float32)
        mixtures[:, self.known] = as_mixtures(wanted, self.vectors_of_words[self.known])
        place = {word: i for i, word in enumerate(new)}
        for bag, words in zip(bags, strange, strict=True):
            bag += mixtures[[place[word] for word in words]].sum(axis=0)
        return bags


def open_words(
    pairs: Collection,
    train: np.ndarray,
    vectors: np.ndarray,
    model: Callable,
    *,
    path: str | os.PathLike | None = None,
) -> OpenWords:
    """The encoder that reads every word, with the map of a file where there is one.

    Args:
      pairs: with bags of words.
      train: positions of the training pairs.
      vectors: [T, D] of the vocabulary's words, own ones.
      model: the sentence model; `model.digest` tells one from another.
      path: an `.npz` file, kept with the run; a damaged one is made anew.

    Raises:
      ValueError: the file is of another sentence model.
    """
    known = np.asarray(pairs.text)[train].any(axis=0)
    path = path and pathlib.Path(path)
    to_ours = _read_map(path, model.digest) if path and path.exists() else None
    if to_ours is None:
        words = np.array(pairs.vocabulary)[known].tolist()
        to_ours = fit_map(model(words), vectors[known])
        if path:
            _write_map(path, to_ours, model.digest)
    return OpenWords(pairs, vectors, known, to_ours, model)


def _read_map(path, digest):
    try:
        with np.load(path, allow_pickle=False) as kept:
            made_by = str(kept["model"])
            found = LinearMap(
                *(kept[name] for name in LinearMap._fields[:3]),
                *(float(kept[name]) for name in LinearMap._fields[3:]),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        print(f"{path} is damaged: the map of unknown words is fitted again.")
        return None
    if made_by != digest:
        raise ValueError(
            f"{path} was fitted with another sentence model ({made_by}, the installed "
            f"one is {digest}). Install that one, or delete the file to fit it again."
        )
    return found


def _write_map(path, to_ours, digest):
    partial = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    np.savez(partial, model=digest, **to_ours._asdict())
    partial.replace(path)
