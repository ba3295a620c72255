"""Whole networks, composed of the package's blocks."""

from modal_aware_jax.models.multimodal_hashing import MultimodalHashing
from modal_aware_jax.models.unimodal import ImageHashing, TextHashing

__all__ = [
    "ImageHashing",
    "MultimodalHashing",
    "TextHashing",
]
