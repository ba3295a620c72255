"""Backbones: images to maps, in two halves with a tap between, and text to vectors."""

from modal_aware_jax.backbones.mobilenet import MobileNetV2
from modal_aware_jax.backbones.resnet import ResNet18
from modal_aware_jax.backbones.text_mlp import TextMLP

__all__ = [
    "MobileNetV2",
    "ResNet18",
    "TextMLP",
]
