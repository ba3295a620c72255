"""Encoded words and image pieces to the logits of classes."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.dropout import drop
from modal_aware_jax.blocks.similarity_interaction import SimilarityInteraction
from modal_aware_jax.blocks.token_attention import (
    check_masks,
    has_tokens,
    masked,
    masked_mean,
)
from modal_aware_jax.fusion.similarity_fusion import SimilarityFusion


class NoInteraction(nnx.Module):
    """Leaves both sets of tokens as they are: the row "w/o SIM", and the baselines'.

    Args:
      features, num_heads, hidden_features, dtype, rngs: not used.
    """

    def __init__(
        self, features, num_heads=1, hidden_features=1, *, dtype=None, rngs=None
    ):
        del features, num_heads, hidden_features, dtype, rngs

    def __call__(
        self, text, image, *, text_mask=None, image_mask=None, train=False, rngs=None
    ):
        """Returns text [B, S, D] and image [B, M, D] unchanged."""
        del text_mask, image_mask, train, rngs
        return text, image


class DenseLayers(nnx.Module):
    """Dense layers with ReLU between them, [B, D] to [B, num_classes].

    The paper classifies by five: four of `features` and the logits.

    Args:
      in_features: D.
      num_classes: C, or L labels.
      features: width of all but the last.
      num_layers: the last one among them.
      dropout_rate: before every layer, in training.
      dtype: of the computation.
      rngs: source of the initial weights.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        features: int = 512,
        num_layers: int = 5,
        dropout_rate: float = 0.0,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        if num_layers < 1:
            raise ValueError(f"DenseLayers expects num_layers >= 1, got {num_layers}.")
        widths = [in_features] + [features] * (num_layers - 1) + [num_classes]
        self.dropout_rate = dropout_rate
        self.layers = nnx.List(
            nnx.Linear(a, b, dtype=dtype, rngs=rngs)
            for a, b in zip(widths, widths[1:], strict=False)
        )

    def __call__(self, x: jax.Array, *, train: bool = False, rngs=None) -> jax.Array:
        """Maps [B, D] to logits [B, num_classes]."""
        rate = self.dropout_rate if train else 0.0
        for number, layer in enumerate(self.layers):
            x = nnx.relu(x) if number else x
            x = layer(drop(rngs, x, rate, caller="DenseLayers"))
        return x


def drop_modality(
    rngs, text_mask: jax.Array, image_mask: jax.Array, rate: float
) -> tuple[jax.Array, jax.Array]:
    """Takes from some rows one modality, so that the other must do: two masks.

    Args:
      rngs: with a `dropout` stream; needed unless the rate is 0.
      text_mask: [B, S].
      image_mask: [B, M].
      rate: share of the rows that have both and lose one, by a fair coin.
    """
    if rate == 0.0:
        return text_mask, image_mask
    if rngs is None:
        raise ValueError(
            "drop_modality: training needs fresh randomness. Call the model with "
            "rngs=nnx.Rngs(dropout=key), another key each step."
        )
    both = jnp.any(text_mask != 0, axis=1) & jnp.any(image_mask != 0, axis=1)
    draw = jax.random.uniform(rngs.dropout(), both.shape)
    no_text = both & (draw < rate / 2)
    no_image = both & (draw >= rate / 2) & (draw < rate)
    return (
        jnp.where(no_text[:, None], 0, text_mask),
        jnp.where(no_image[:, None], 0, image_mask),
    )


class TokenClassifier(nnx.Module):
    """Text and image tokens, already encoded, to the logits of classes.

        text tokens  ─ dense ┐
                             ├ interaction ─ fusion ─ dense layers ─ logits
        image tokens ─ dense ┘

    The defaults are those of SG-MFT (Zhang et al.): `SimilarityInteraction`,
    `SimilarityFusion`, five dense layers. `NoInteraction` is its row without SIM,
    `fusion=PooledFusion` the one without SFM, both of them the baseline, Concat and
    five dense layers.

    A row may lack a modality, or both: then its logits are those of nothing.

    Args:
      text_features: of the text's tokens as they come.
      image_features: of the image's tokens as they come.
      num_classes: C, or L labels.
      features: D, the width both are projected to.
      num_heads: of all attention; must divide D.
      interaction: constructor `(features, num_heads, hidden_features, *, dtype, rngs)`.
      fusion: constructor `(features, num_heads, *, dtype, rngs)` of what makes one
        vector of both; its `features` is the width of the result.
      head: constructor `(in_features, num_classes, *, dtype, rngs)`.
      unimodal: whether both modalities predict the class for themselves as well, as
        UniS-MMC and loss balance need (`outputs`).
      dropout_rate: on the tokens as they come, in training.
      modality_dropout: share of the rows that lose one modality, in training.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> model = TokenClassifier(6, 4, 3, features=8, num_heads=2, rngs=nnx.Rngs(0))
      >>> model(jnp.ones((2, 5, 6)), jnp.ones((2, 9, 4))).shape
      (2, 3)
    """

    def __init__(
        self,
        text_features: int,
        image_features: int,
        num_classes: int,
        *,
        features: int = 512,
        num_heads: int = 8,
        interaction=SimilarityInteraction,
        fusion=SimilarityFusion,
        head=DenseLayers,
        unimodal: bool = False,
        dropout_rate: float = 0.0,
        modality_dropout: float = 0.0,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        dense = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.text_features, self.image_features = text_features, image_features
        self.dropout_rate = dropout_rate
        self.modality_dropout = modality_dropout
        self.text_dense = dense(text_features, features)
        self.image_dense = dense(image_features, features)
        self.interaction = interaction(
            features, num_heads, 4 * features, dtype=dtype, rngs=rngs
        )
        self.fusion = fusion(features, num_heads, dtype=dtype, rngs=rngs)
        self.head = head(self.fusion.features, num_classes, dtype=dtype, rngs=rngs)
        heads = [dense(features, num_classes) for _ in range(2 if unimodal else 0)]
        self.unimodal_heads = nnx.List(heads)

    def _project(self, text, image, text_mask, image_mask, train, rngs):
        for name, x, width in (
            ("text tokens [B, S", text, self.text_features),
            ("image tokens [B, M", image, self.image_features),
        ):
            if x.ndim != 3 or x.shape[2] != width:
                raise ValueError(
                    f"TokenClassifier expects {name}, {width}], got {x.shape}."
                )
        check_masks("TokenClassifier", text.shape, image.shape, text_mask, image_mask)
        if text_mask is None:
            text_mask = jnp.ones(text.shape[:2], bool)
        if image_mask is None:
            image_mask = jnp.ones(image.shape[:2], bool)
        rate, lost = (self.dropout_rate, self.modality_dropout) if train else (0.0, 0.0)
        text_mask, image_mask = drop_modality(rngs, text_mask, image_mask, lost)
        text = drop(rngs, masked(text, text_mask), rate, caller="TokenClassifier")
        image = drop(rngs, masked(image, image_mask), rate, caller="TokenClassifier")
        return self.text_dense(text), self.image_dense(image), text_mask, image_mask

    def outputs(
        self,
        text: jax.Array,
        image: jax.Array,
        *,
        text_mask: jax.Array | None = None,
        image_mask: jax.Array | None = None,
        train: bool = False,
        rngs=None,
    ) -> dict[str, jax.Array]:
        """All that losses and pictures read; arguments as of the call.

        Returns:
          `logits` [B, C]; `fused`, the vector before the dense layers; `text` and
          `image` [B, D], the means of the projected tokens; with unimodal heads
          `text_logits` and `image_logits` [B, C]; `has_text` and `has_image` bool [B],
          after modality dropout.
        """
        text, image, text_mask, image_mask = self._project(
            text, image, text_mask, image_mask, train, rngs
        )
        masks = {"text_mask": text_mask, "image_mask": image_mask}
        made = {
            "text": masked_mean(text, text_mask),
            "image": masked_mean(image, image_mask),
            "has_text": has_tokens(text, text_mask),
            "has_image": has_tokens(image, image_mask),
        }
        if self.unimodal_heads:
            text_head, image_head = self.unimodal_heads
            made["text_logits"] = text_head(made["text"])
            made["image_logits"] = image_head(made["image"])
        text, image = self.interaction(text, image, **masks, train=train, rngs=rngs)
        made["fused"] = self.fusion(text, image, **masks)
        made["logits"] = self.head(made["fused"], train=train, rngs=rngs)
        return made

    def __call__(
        self,
        text: jax.Array,
        image: jax.Array,
        *,
        text_mask: jax.Array | None = None,
        image_mask: jax.Array | None = None,
        train: bool = False,
        rngs=None,
    ) -> jax.Array:
        """Maps text [B, S, text_features] and image [B, M, image_features] to [B, C].

        Args:
          text_mask: [B, S], 0 for padding; a row of zeros has no text.
          image_mask: [B, M], the same of the image.
          train: whether tokens, modalities and activations drop out.
          rngs: with a `dropout` stream; needed in training where anything drops.
        """
        return self.outputs(
            text,
            image,
            text_mask=text_mask,
            image_mask=image_mask,
            train=train,
            rngs=rngs,
        )["logits"]
