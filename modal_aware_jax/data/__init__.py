"""Collections of image-text pairs, their splits and their batches."""

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.protocol import (
    Split,
    load_split,
    save_split,
    split,
)

__all__ = [
    "Collection",
    "Split",
    "load_split",
    "save_split",
    "split",
]
