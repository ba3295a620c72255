"""Backbones: images to maps or tokens, texts to vectors or tokens."""

from modal_aware_jax.backbones.bert import BERT
from modal_aware_jax.backbones.clip import CLIP
from modal_aware_jax.backbones.from_pretrained import from_pretrained
from modal_aware_jax.backbones.mobilenet import MobileNetV2
from modal_aware_jax.backbones.resnet import ResNet18
from modal_aware_jax.backbones.text_cnn import TextCNN
from modal_aware_jax.backbones.text_mlp import TextMLP
from modal_aware_jax.backbones.vit import ViT

__all__ = [
    "BERT",
    "CLIP",
    "MobileNetV2",
    "ResNet18",
    "TextCNN",
    "TextMLP",
    "ViT",
    "from_pretrained",
]
