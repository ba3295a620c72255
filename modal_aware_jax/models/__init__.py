"""Whole networks, composed of the package's blocks."""

from modal_aware_jax.models.align_before_fuse import AlignBeforeFuse
from modal_aware_jax.models.classifier import (
    DenseLayers,
    NoInteraction,
    TokenClassifier,
)
from modal_aware_jax.models.cross_modal_graph import CrossModalGraphNetwork
from modal_aware_jax.models.multimodal_hashing import MultimodalHashing
from modal_aware_jax.models.single_stream import SingleStream
from modal_aware_jax.models.temperature import Temperature
from modal_aware_jax.models.two_tower import TwoTower
from modal_aware_jax.models.unimodal import ImageHashing, TextHashing

__all__ = [
    "AlignBeforeFuse",
    "CrossModalGraphNetwork",
    "DenseLayers",
    "ImageHashing",
    "MultimodalHashing",
    "SingleStream",
    "NoInteraction",
    "Temperature",
    "TextHashing",
    "TokenClassifier",
    "TwoTower",
]
