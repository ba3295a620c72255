"""A picture and its words as tokens, from a backbone's maps to logits of classes."""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.blocks.token_attention import masked_mean
from modal_aware_jax.models.classifier import TokenClassifier


class TokenNetwork(nnx.Module):
    """A `TokenClassifier` behind an image backbone whose positions are the tokens.

    Its joint value is all that the classifier gives (`TokenClassifier.outputs`). A
    modality that a row lacks is masked, in training too.

    Args:
      backbone: a module with `lower(images, *, train)` and `upper(maps, *, train)`.
      classifier: of the text's tokens and of the image's, `backbone.upper_features`
        wide.
      side: maps are averaged to side × side tokens; 0 keeps every position.
      reader: from numbers of word pieces to tokens, such as `PieceReader`, where texts
        come as numbers; None where they come as tokens.

    Example:
      >>> class Same(nnx.Module):
      ...     def lower(self, images, *, train):
      ...         return images
      ...     upper = lower
      >>> sizes = {"features": 8, "num_heads": 2}
      >>> classify = TokenClassifier(4, 3, 2, **sizes, rngs=nnx.Rngs(0))
      >>> network = TokenNetwork(Same(), classify)
      >>> text = {"tokens": jnp.ones((1, 6, 4)), "mask": jnp.ones((1, 6))}
      >>> outputs = network.joint(jnp.ones((1, 5, 5, 3)), text, train=False)
      >>> network.head(outputs).shape
      (1, 2)
    """

    reads_means = False  # but every position of the last maps
    has_stand_ins = True  # masks, that is

    def __init__(
        self,
        backbone: nnx.Module,
        classifier: TokenClassifier,
        side=0,
        *,
        reader: nnx.Module | None = None,
    ):
        self.backbone = backbone
        self.classifier = classifier
        self.side = side
        self.reader = nnx.data(reader)

    def head(self, outputs: dict) -> jax.Array:
        """The logits [B, C] of `joint`'s outputs."""
        return outputs["logits"]

    def read(self, text, *, train: bool, rngs=None) -> dict:
        """Texts as tokens and their mask: as they come, or read from numbers [B, L]."""
        if self.reader is None:
            return text
        tokens, _ = self.reader(text, train=train, rngs=rngs)
        return {"tokens": tokens, "mask": text != 0}

    def joint_from_last(
        self, last, text, *, train: bool, rngs=None, present=None
    ) -> dict:
        """The backbone's last maps [B, H, W, C] and text to outputs.

        Args:
          text: `tokens` [B, S, D] and `mask` [B, S]; or what the reader reads.
          train: whether dropout drops.
          rngs: with a `dropout` stream.
          present: which rows have an `image`, which a `text`, bool [B]; None for all.
        """
        text = self.read(text, train=train, rngs=rngs)
        last, present = averaged(last, self.side), present or {}
        image = last.reshape(last.shape[0], -1, last.shape[-1])  # [B, M, C]
        masks = text["mask"], jnp.ones(image.shape[:2], bool)
        rows = present.get("text"), present.get("image")
        masks = [
            mask
            if own is None
            else (jnp.asarray(mask) != 0) & jnp.asarray(own, bool)[:, None]
            for mask, own in zip(masks, rows, strict=True)
        ]
        words, image, masks = self.tokens(text["tokens"], image, *masks)
        return self.classifier.outputs(words, image, **masks, train=train, rngs=rngs)

    def joint_from_maps(self, maps, text, *, train: bool, **options) -> dict:
        """The same from maps [B, h, w, C] of the backbone's lower half."""
        last = self.backbone.upper(maps, train=train)
        return self.joint_from_last(last, text, train=train, **options)

    def joint(self, images, text, *, train: bool, **options) -> dict:
        """The same from images [B, H, W, 3]."""
        maps = self.backbone.lower(images, train=train)
        return self.joint_from_maps(maps, text, train=train, **options)

    def tokens(self, text, image, text_mask, image_mask):
        """What the classifier reads: text, image and their masks by name."""
        return text, image, {"text_mask": text_mask, "image_mask": image_mask}


class OneVectorNetwork(TokenNetwork):
    """`TokenNetwork` on the mean of each modality's tokens: one token each.

    The paper's own case, S = M = 1, in which no attention attends.
    """

    def tokens(self, text, image, text_mask, image_mask):
        """The means [B, 1, D] and whether each modality is there."""
        masks = {"text_mask": text_mask, "image_mask": image_mask}
        there = {
            name: jnp.any(mask != 0, axis=1)[:, None] for name, mask in masks.items()
        }
        text = masked_mean(text, text_mask)[:, None]
        return text, masked_mean(image, image_mask)[:, None], there


def averaged(maps: jax.Array, side: int) -> jax.Array:
    """The means of side × side windows of maps [B, H, W, C]; 0 keeps the maps.

    Windows are cut as even as they can be: their borders are ⌊i H / side⌋.

    Example:
      >>> averaged(jnp.arange(9.0).reshape(1, 3, 3, 1), 2)[0, ..., 0].tolist()
      [[0.0, 1.5], [4.5, 6.0]]
    """
    if not side:
        return maps
    height, width = maps.shape[1:3]
    if side > min(height, width):
        raise ValueError(
            f"config.model.image_side={side}: the last maps are {height}x{width}. Take "
            "a smaller side, or 0 for all positions."
        )
    for axis, size in ((1, height), (2, width)):
        cuts = [i * size // side for i in range(side + 1)]
        parts = [
            jax.lax.slice_in_dim(maps, a, b, axis=axis).mean(axis=axis, keepdims=True)
            for a, b in zip(cuts, cuts[1:], strict=False)
        ]
        maps = jnp.concatenate(parts, axis=axis)
    return maps
