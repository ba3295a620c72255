"""Which pairs of a collection have an image, and which a text."""

import dataclasses

import numpy as np

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.token_table import TokenTable


def with_presence(pairs: Collection) -> Collection:
    """The collection with `has_image` and `has_text` said of every row.

    A row has a text if it has a known word, or, where the text is read as a sentence,
    if it is not blank.

    Args:
      pairs: with the text as the network reads it.

    Example:
      >>> pairs = Collection("two", ["a", "b"], [b".", b"."], [[1], [0]], ["sea", ""],
      ...                    [[1], [1]], ("sea",), ("water",))
      >>> with_presence(pairs).has_text.tolist()
      [True, False]
    """
    if pairs.vocabulary:
        tokens = isinstance(pairs.text, TokenTable)
        has_text = pairs.text.has_tokens if tokens else pairs.text.any(axis=1)
    else:
        has_text = np.array([bool(text.strip()) for text in pairs.captions[:]], bool)
    has_image = pairs.has_image
    if has_image is None:
        has_image = np.ones(len(pairs), bool)
    return dataclasses.replace(pairs, has_image=has_image, has_text=has_text)
