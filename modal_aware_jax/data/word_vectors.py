"""Vectors of words: from the words that stand together, or from a sentence model.

A tag that few pairs have teaches a network that pair and little else. As the vector of
what it stands with, it is close to its neighbours from the first step, and what is
learned of them holds for it. On MIR-Flickr this is what carries over to pairs that were
never trained on (numbers in the README).
"""

from collections.abc import Sequence

import numpy as np


def cooccurrence_vectors(bags: np.ndarray, features: int = 256) -> np.ndarray:
    """Vectors of words from the documents that have them together.

    With n_i the number of documents that have word i, C_ij of those that have both
    (C_ii = n_i) and N of all, the positive pointwise mutual information is

        M_ij = max(0, log(C_ij N / ((n_i + 1) (n_j + 1))))

    and a word's vector its row of the eigenvectors of the largest |eigenvalues|, each
    times the root of |eigenvalue|. The added ones keep rare words from extremes.

    Source: Levy and Goldberg, "Neural Word Embedding as Implicit Matrix Factorization"
    (NeurIPS 2014), with a symmetric context; here eigenvectors in place of singular
    vectors.

    Args:
      bags: [N, T] of 0 and 1, the documents to count on: the training pairs.
      features: D; fewer where there are fewer words.

    Returns:
      float32 [T, D], centred over the words, of standard deviation 1. Words of no
      document have the same vector: that of a word that stands with nothing.

    Example:
      >>> bags = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
      >>> vectors = cooccurrence_vectors(bags, features=2)
      >>> bool(np.allclose(vectors[0], vectors[1])), vectors.shape
      (True, (4, 2))
    """
    bags = np.asarray(bags)
    if bags.ndim != 2 or not bags.size:
        raise ValueError(
            f"cooccurrence_vectors: expected bags [N, T] of 0 and 1, got {bags.shape}."
        )
    together = (bags > 0).astype(np.float32)
    together = np.asarray(together.T @ together, np.float64)  # exact below 2^24
    count = np.diagonal(together) + 1
    with np.errstate(divide="ignore"):
        information = np.log(together * len(bags) / np.outer(count, count))
    values, vectors = np.linalg.eigh(np.maximum(information, 0))
    largest = np.argsort(-abs(values), kind="stable")[:features]
    vectors = vectors[:, largest] * np.sqrt(abs(values[largest]))
    # An eigenvector's sign is arbitrary: fixed, so that machines agree.
    peak = np.take_along_axis(vectors, abs(vectors).argmax(axis=0)[None], axis=0)
    return standardised(vectors * np.where(peak < 0, -1, 1))


def model_vectors(words: Sequence[str], model) -> np.ndarray:
    """Vectors of words by a sentence model, each word read as a sentence.

    Knows words that no training pair has.

    Args:
      words: T of them.
      model: maps sentences to float32 [T, D], such as `SentenceModel`.

    Returns:
      float32 [T, D], centred over the words, of standard deviation 1.
    """
    return standardised(np.asarray(model(list(words)), np.float64))


def standardised(vectors: np.ndarray) -> np.ndarray:
    """Vectors [T, D] less their mean, over their standard deviation: float32.

    Example:
      >>> standardised(np.array([[1.0], [3.0]])).tolist()
      [[-1.0], [1.0]]
    """
    centred = vectors - vectors.mean(axis=0, keepdims=True)
    deviation = centred.std()
    return (centred / (deviation if deviation > 0 else 1)).astype(np.float32)
