"""A collection of image-text pairs: what every source gives and every step reads."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from modal_aware_jax.data.token_table import TokenTable


@dataclasses.dataclass(frozen=True, eq=False)
class Collection:
    """N pairs of image and text with their labels, addressed by position 0..N-1.

    Attributes:
      name: short name of the source, for messages and reports.
      ids: [N] unique strings.
      images: N encoded images (JPEG or PNG bytes) with random access by position;
        small when pickled, so that reading processes can have a copy.
      text: [N, T] bag of words (uint8), or TF-IDF or sentence vectors (float32); or
        a `text_tokens.TokenTable`, whose rows are tokens and their mask.
      captions: N readable texts (tags or sentences), for display.
      labels: [N, L] of 0 and 1 (uint8).
      vocabulary: the T words of the columns; empty where `text` holds sentence vectors.
      label_names: the L names.
      parts: [N] parts of a given split ('train', 'validation', 'query', 'database', ''
        for none); None where none is given.
      has_image, has_text: bool [N], which rows have one; None: all, as far as is known.
        A row without an image has a grey one in its place, for display.

    Example:
      >>> pairs = Collection(
      ...     "two", ["a", "b"], [b"..", b".."], np.eye(2), ["sea", "dog"],
      ...     np.eye(2), ("sea", "dog"), ("water", "animal"))
      >>> len(pairs), pairs.text.dtype, pairs.num_labels
      (2, dtype('uint8'), 2)
    """

    name: str
    ids: np.ndarray
    images: Sequence[bytes]
    text: np.ndarray
    captions: Sequence[str]
    labels: np.ndarray
    vocabulary: tuple[str, ...]
    label_names: tuple[str, ...]
    parts: np.ndarray | None = None
    has_image: np.ndarray | None = None
    has_text: np.ndarray | None = None

    def __post_init__(self):
        def put(name, value):  # the dataclass is frozen
            object.__setattr__(self, name, value)

        put("ids", np.asarray(self.ids, dtype=str))
        put("vocabulary", tuple(self.vocabulary))
        put("label_names", tuple(self.label_names))
        if self.parts is not None:
            put("parts", np.asarray(self.parts, dtype=str))
        for name in ("has_image", "has_text"):
            if getattr(self, name) is not None:
                put(name, np.asarray(getattr(self, name), dtype=bool))
        if not isinstance(self.text, TokenTable):
            text = np.asarray(self.text)
            is_bag = bool(self.vocabulary) and text.dtype != np.float32
            put("text", text.astype(np.uint8 if is_bag else np.float32, copy=False))
        labels = np.asarray(self.labels)
        put("labels", labels.astype(np.uint8, copy=False))
        _check_shapes(self)
        if labels.size and not (labels.min() >= 0 and labels.max() <= 1):
            raise ValueError(
                f"Collection {self.name}: labels must be 0 or 1, but they range "
                f"from {labels.min()} to {labels.max()}."
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_text_features(self) -> int:
        """T, the width of the text vectors; D of tokens."""
        return self.text.shape[-1]

    @property
    def num_labels(self) -> int:
        """L, the number of labels."""
        return self.labels.shape[1]


def _check_shapes(pairs: Collection) -> None:
    """Raises where the columns of a collection do not fit together."""
    where = f"Collection {pairs.name}"
    for column in ("text", "labels"):
        shape = getattr(pairs, column).shape
        if len(shape) != 2 and not isinstance(getattr(pairs, column), TokenTable):
            raise ValueError(
                f"{where}: {column} must be a table of two axes, got shape {shape}."
            )
    lengths = {
        column: len(getattr(pairs, column))
        for column in ("ids", "images", "text", "captions", "labels")
    }
    for column in ("parts", "has_image", "has_text"):
        if getattr(pairs, column) is not None:
            lengths[column] = len(getattr(pairs, column))
    if len(set(lengths.values())) != 1:
        raise ValueError(
            f"{where}: the columns must have one entry a pair, got {lengths}."
        )
    unique, counts = np.unique(pairs.ids, return_counts=True)
    if len(unique) != len(pairs.ids):
        repeated = ", ".join(unique[counts > 1][:5])
        raise ValueError(
            f"{where}: ids must be unique, but {int((counts > 1).sum())} occur "
            f"more than once ({repeated}). Remove or rename the repeated pairs."
        )
    widths = (("vocabulary", "text"), ("label_names", "labels"))
    for names, column in widths:
        width, words = getattr(pairs, column).shape[-1], len(getattr(pairs, names))
        tokens = names == "vocabulary" and isinstance(pairs.text, TokenTable)
        if words != width and not (names == "vocabulary" and words == 0) and not tokens:
            raise ValueError(
                f"{where}: {column} has {width} columns, "
                f"but {names} has {words} entries."
            )
