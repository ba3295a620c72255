"""From words to vectors: tokens, a tag vocabulary, bags of words and TF-IDF."""

import collections
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_CLAUSE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]{5,}")


def tokenize(text: str) -> list[str]:
    """Splits free text into lower-case words; letters of any script and digits count.

    Example:
      >>> tokenize("A red-brick house, 2 dogs: don't run!")
      ['a', 'red-brick', 'house', '2', 'dogs', "don't", 'run']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def are_clauses(documents: Iterable[Iterable[str]]) -> bool:
    """Whether most words are runs of Chinese or Japanese, which has no spaces.

    Example:
      >>> are_clauses([["一只红色的小船"], ["两条狗"]]), are_clauses([["红色", "小船"]])
      (True, False)
    """
    words = clauses = 0
    for document in documents:
        for word in document:
            words, clauses = words + 1, clauses + bool(_CLAUSE.search(word))
    return words > 0 and 2 * clauses >= words


def tag_vocabulary(
    documents: Iterable[Iterable[str]],
    *,
    min_count: int = 20,
    max_size: int | None = None,
    option: str = "the count",
) -> tuple[str, ...]:
    """The words used by at least `min_count` documents, most frequent first.

    Args:
      documents: the words of each document; a word counts once in each.
      min_count: in how many documents a word must occur.
      max_size: keep only so many of the most frequent; None and 0 keep all.
      option: what sets `min_count`, for the message.

    Returns:
      T words; equally frequent words in alphabetical order.

    Example:
      >>> tag_vocabulary([["sea", "sky"], ["sea"], ["dog", "dog"]], min_count=1)
      ('sea', 'dog', 'sky')
    """
    counts = collections.Counter()
    num_documents = 0
    for words in documents:
        counts.update(set(words))
        num_documents += 1
    if not counts:
        raise ValueError(
            f"tag_vocabulary: none of the {num_documents} documents has a word. Look "
            "into the files that should hold them."
        )
    frequent = [word for word, count in counts.items() if count >= min_count]
    frequent.sort(key=lambda word: (-counts[word], word))
    if not frequent:
        word, count = max(counts.items(), key=lambda item: item[1])
        raise ValueError(
            f"tag_vocabulary: none of the {len(counts)} words of {num_documents} "
            f"documents occurs in {min_count} of them (the most frequent, {word!r}, "
            f"in {count}). Lower {option}."
        )
    return tuple(frequent[: max_size or None])


def read_vocabulary(path: str | os.PathLike) -> tuple[str, ...]:
    """Reads a vocabulary, one word a line (UTF-8), in the order of the file."""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(
            f"read_vocabulary: {path} cannot be read ({error.strerror}). Name a file "
            "with one word a line."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"read_vocabulary: {path} is not UTF-8 ({error}). Save it as UTF-8."
        ) from error
    return check_vocabulary((line.strip() for line in lines), str(path))


def given_vocabulary(
    vocabulary: str | os.PathLike | Iterable[str], where: str
) -> tuple[str, ...]:
    """The words of a file, or the words themselves; `where` is for messages."""
    if isinstance(vocabulary, str | os.PathLike):
        return read_vocabulary(vocabulary)
    return check_vocabulary(vocabulary, where)


def check_vocabulary(words: Iterable[str], where: str) -> tuple[str, ...]:
    """Drops empty words and raises ValueError on none at all or on repeats."""
    words = tuple(word for word in words if word)
    repeated = [word for word, n in collections.Counter(words).items() if n > 1]
    if repeated:
        raise ValueError(
            f"{where}: a vocabulary's words must differ, but {len(repeated)} occur "
            f"more than once ({', '.join(repeated[:5])}). Remove the repeats."
        )
    if not words:
        raise ValueError(f"{where}: the vocabulary has no words.")
    return words


def word_indices(words: Iterable[str], position: dict[str, int]) -> np.ndarray:
    """Sorted positions of those words that are in the vocabulary -> int32 [n].

    Args:
      words: the words of one document.
      position: position of each vocabulary word.

    Example:
      >>> word_indices(["sky", "xyz", "sea", "sky"], {"sea": 0, "sky": 1})
      array([0, 1], dtype=int32)
    """
    found = sorted({position[word] for word in words if word in position})
    return np.array(found, np.int32)


def bag_of_words(
    documents: Sequence[Iterable[str]], vocabulary: Sequence[str]
) -> np.ndarray:
    """Marks which vocabulary words each document has -> uint8 [N, T] of 0 and 1.

    Example:
      >>> bag_of_words([["sea"], ["sky", "sea", "sky"]], ["sea", "dog", "sky"])
      array([[1, 0, 0],
             [1, 0, 1]], dtype=uint8)
    """
    position = {word: i for i, word in enumerate(vocabulary)}
    bags = np.zeros((len(documents), len(vocabulary)), np.uint8)
    for row, words in enumerate(documents):
        bags[row, word_indices(words, position)] = 1
    return bags


def rarity(bags: np.ndarray) -> np.ndarray:
    """The weight of each word, log((1 + n) / (1 + df)) + 1 -> float64 [T].

    Args:
      bags: [n, T] word counts of the documents to count on: the training pairs.

    Example:
      >>> rarity(np.array([[1, 1], [1, 0]])).round(2)
      array([1.  , 1.41])
    """
    frequency = (np.asarray(bags) > 0).sum(axis=0)
    return np.log((1 + len(bags)) / (1 + frequency)) + 1


def weigh(bags: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Bags [N, T] times the weight of each word [T], rows of unit length -> float32.

    Rows without words stay zero.
    """
    weighted = bags * weights.reshape(1, -1)
    length = np.linalg.norm(weighted, axis=1, keepdims=True)
    return (weighted / np.where(length > 0, length, 1)).astype(np.float32)


def tf_idf(bags: np.ndarray, *, train: np.ndarray | None = None) -> np.ndarray:
    """Weights words by `rarity`, rows of unit length.

    Args:
      bags: [N, T] word counts.
      train: positions of the n documents that the frequencies df are counted on;
        None counts on all.

    Returns:
      float32 [N, T]; rows without words stay zero.

    Example:
      >>> tf_idf(np.array([[1, 1], [1, 0]])).round(2)
      array([[0.58, 0.81],
             [1.  , 0.  ]], dtype=float32)
    """
    return weigh(bags, rarity(bags if train is None else bags[train]))
