"""Training pictures as phones and the web spoil them: noise, blur, JPEG."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.perturbations import degrade
from modal_aware_jax.data.pipeline import decode, resize


def degraded_pictures(
    pairs: Collection, positions: np.ndarray, image_size: int
) -> Collection:
    """The pictures of some pairs, each degraded once; nothing else of the pairs.

    Args:
      pairs: the collection.
      positions: of the pairs, [n].
      image_size: S: a picture is degraded as the network reads it, S x S.
    """
    n = len(positions)
    return Collection(
        f"{pairs.name}-degraded",
        pairs.ids[positions],
        DegradedImages(pairs.images, positions, image_size),
        np.zeros((n, 1), np.float32),
        [""] * n,
        np.zeros((n, 1), np.uint8),
        (),
        ("",),
    )


class DegradedImages(Sequence):
    """Encoded pictures of some positions, resized and degraded, always in the same way.

    Args:
      images: encoded pictures by position.
      positions: of those that are taken.
      image_size: S.
    """

    def __init__(self, images: Sequence[bytes], positions, image_size: int):
        self._images = images
        self._positions = np.asarray(positions)
        self._image_size = image_size

    @property
    def preparation(self) -> str:
        """Of the pictures that these are made of; see `prepared.RecordColumn`."""
        return getattr(self._images, "preparation", "")

    @property
    def originals(self) -> Sequence[bytes]:
        """The pictures of all positions, some of which these are made of."""
        return self._images

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, row: int) -> bytes:
        position = int(self._positions[row])
        pixels = resize(decode(self._images[position]), self._image_size)
        file = io.BytesIO()
        degraded = degrade(pixels, np.random.default_rng(position))
        Image.fromarray(degraded).save(file, "BMP")  # as it is, and quickly
        return file.getvalue()
