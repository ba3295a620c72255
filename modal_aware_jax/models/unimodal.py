"""The same network with one modality only: the baselines a joint code must beat."""

import jax
from flax import nnx

from modal_aware_jax.backbones.image_vector import MeanVector
from modal_aware_jax.backbones.text_mlp import TextMLP
from modal_aware_jax.backbones.text_vector import PlainText
from modal_aware_jax.hashing.head import HashHead, label_head_beside
from modal_aware_jax.hashing.hidden import NoHiddenLayer


class ImageHashing(nnx.Module):
    """Images alone as K relaxed bits: backbone, mean over positions, hash head.

    With the triplet ranking loss it is the row "DTH" of the papers' tables.

    Args:
      backbone: as for `MultimodalHashing`, and so are `image_vector`, `hidden`
        and `num_labels`.
      num_bits: K.
      head: constructor `(in_features, num_bits, *, dtype, rngs)` of the last layers,
        such as `DivideAndEncodeHead`.
      rngs: source of the initial weights.
    """

    def __init__(
        self,
        backbone,
        num_bits: int,
        *,
        image_vector=MeanVector,
        hidden=NoHiddenLayer,
        head=HashHead,
        num_labels: int | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.backbone = backbone
        self.image_vector = image_vector(backbone.upper_features, rngs=rngs)
        self.hidden = hidden(self.image_vector.features, rngs=rngs)
        features = self.hidden.features
        self.head = head(features, num_bits, dtype=dtype, rngs=rngs)
        self.label_head = label_head_beside(
            self.head, features, num_labels, dtype=dtype, rngs=rngs
        )

    @property
    def reads_means(self) -> bool:
        """Whether all it reads of the last maps is their mean."""
        return self.image_vector.reads_mean

    def joint_from_maps(self, maps, text=None, *, train: bool, rngs=None) -> jax.Array:
        """Maps conv4 maps [B, h, w, C] to vectors [B, D]; the text is not read."""
        del text
        maps = self.backbone.upper(maps, train=train)
        return self.joint_from_means(maps, train=train, rngs=rngs)

    def joint_from_means(self, means, text=None, *, train: bool, rngs=None):
        """Maps means of the last maps, [B, 1, 1, C], to [B, D]; as do the maps."""
        del text
        vector = self.image_vector(means, train=train, rngs=rngs)
        return self.hidden(vector, train=train, rngs=rngs)

    def joint(self, images, text=None, *, train: bool, rngs=None) -> jax.Array:
        """Maps images [B, H, W, 3] to vectors [B, D]; the text is not read."""
        maps = self.backbone.lower(images, train=train)
        return self.joint_from_maps(maps, text, train=train, rngs=rngs)

    def __call__(self, images, text=None, *, train: bool, rngs=None) -> jax.Array:
        """Maps images [B, H, W, 3] to relaxed bits [B, K]."""
        return self.head(self.joint(images, text, train=train, rngs=rngs))


class TextHashing(nnx.Module):
    """Text alone as K relaxed bits: the text branch and the hash head ("TextHash").

    Args:
      text_features: T.
      num_bits: K.
      text_widths: features of the two dense layers; this, `text_branch`,
        `text_vector`, `hidden`, `head` and `num_labels` as in `MultimodalHashing`.
      rngs: source of the initial weights.
    """

    def __init__(
        self,
        text_features: int,
        num_bits: int,
        *,
        text_widths: tuple[int, int] = (8192, 512),
        text_branch=TextMLP,
        text_vector=PlainText,
        hidden=NoHiddenLayer,
        head=HashHead,
        num_labels: int | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.text = text_branch(text_features, text_widths, dtype=dtype, rngs=rngs)
        self.text_vector = text_vector(text_widths[1], rngs=rngs)
        self.hidden = hidden(text_widths[1], rngs=rngs)
        features = self.hidden.features
        self.head = head(features, num_bits, dtype=dtype, rngs=rngs)
        self.label_head = label_head_beside(
            self.head, features, num_labels, dtype=dtype, rngs=rngs
        )

    def joint(self, images, text, *, train: bool, rngs=None) -> jax.Array:
        """Maps text [B, T] to vectors [B, D]; the images, or maps, are not read."""
        del images
        vector = self.text_vector(self.text(text), train=train)
        return self.hidden(vector, train=train, rngs=rngs)

    joint_from_maps = joint
    reads_means = False

    def __call__(self, images, text, *, train: bool, rngs=None) -> jax.Array:
        """Maps text [B, T] to relaxed bits [B, K]; the images are not read."""
        return self.head(self.joint(images, text, train=train, rngs=rngs))
