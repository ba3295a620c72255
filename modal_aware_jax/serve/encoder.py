"""Pictures and words to codes, many queries at a time."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from modal_aware_jax.data import pipeline
from modal_aware_jax.hashing.encode import encode

SIZES = (1, 4, 16, 32)  # of batches: a program is compiled for each
NO_IMAGE = 128  # grey, where a model has learned no stand-in for a missing picture


class Query(NamedTuple):
    """What is searched for.

    Attributes:
      pixels: uint8 [S, S, 3], or None where there is no picture.
      words: those that the model knows.
    """

    pixels: np.ndarray | None
    words: list[str]


class QueryEncoder:
    """Encodes queries as a model encodes the pairs of a collection.

    Args:
      relaxed: a batch's `image` uint8 [B, S, S, 3], `text` as the encoder gives it, and
        `has_image` and `has_text`, bool [B] -> relaxed bits [B, K].
      text: an encoder of texts, of `data.text_vectors`.
      image_size: S.
      num_bits: K.
      sizes: of the batches; fewer queries are padded with empty ones.
    """

    def __init__(
        self,
        relaxed: Callable,
        text,
        *,
        image_size: int,
        num_bits: int,
        sizes: Sequence[int] = SIZES,
    ):
        self.relaxed, self.text = relaxed, text
        self.image_size, self.num_bits = image_size, num_bits
        self.sizes = tuple(sorted(sizes))

    def pixels(self, image: Image.Image) -> np.ndarray:
        """The pixels of a picture as it is stored, RGB -> uint8 [S, S, 3]."""
        return pipeline.resize(image, self.image_size)

    def split(self, text: str) -> tuple[list[str], list[str]]:
        """The words of a text: those that are known, those that are not."""
        return self.text.split(text)

    def __call__(self, queries: Sequence[Query]) -> np.ndarray:
        """Packed codes, uint32 [len(queries), Wd]."""
        most = self.sizes[-1]
        parts = [queries[i : i + most] for i in range(0, len(queries), most)]
        codes, _ = encode(self.relaxed, map(self._batch, parts))
        return codes

    def _batch(self, queries):
        rows = next(size for size in self.sizes if size >= len(queries))
        side = self.image_size
        images = np.full((rows, side, side, 3), NO_IMAGE, np.uint8)
        for image, query in zip(images, queries, strict=False):
            if query.pixels is not None:
                image[:] = query.pixels
        filler = [Query(None, [])] * (rows - len(queries))
        index = np.arange(rows, dtype=np.int32)
        mask = index < len(queries)
        queries = [*queries, *filler]
        return {
            "image": images,
            "text": self.text.encode([query.words for query in queries]),
            "index": index,
            "mask": mask,
            "has_image": np.array([q.pixels is not None for q in queries]) | ~mask,
            "has_text": np.array([bool(q.words) for q in queries]) | ~mask,
        }

    def warm_up(self) -> None:
        """Compiles the programs of all sizes, so that no query waits for it."""
        grey = np.full((self.image_size, self.image_size, 3), NO_IMAGE, np.uint8)
        for size in self.sizes:
            self([Query(grey, [])] * size)
