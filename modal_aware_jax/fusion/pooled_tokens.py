"""Fusions of tokens that pool first: means, one modality alone, TextCNN and CNN."""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.text_cnn import TextCNN
from modal_aware_jax.blocks.token_attention import check_tokens, has_tokens, masked_mean
from modal_aware_jax.fusion.concat import Concat


class PooledFusion(nnx.Module):
    """Means of the tokens, joined by a fusion of vectors: [B, features].

    A missing modality is a vector of zeros.

    Args:
      features: D of both modalities.
      num_heads: not used; accepted so that all fusions of tokens are built alike.
      fusion: constructor `(a_features, b_features, *, rngs)`, such as `Concat` or
        `functools.partial(GatedMultimodalUnit, features=512)`.
      dtype: not used.
      rngs: source of the initial weights.

    Attributes:
      features: width of the result, that of the fusion.

    Example:
      >>> fuse = PooledFusion(8, 1, rngs=nnx.Rngs(0))
      >>> fuse(jnp.ones((1, 3, 8)), jnp.ones((1, 5, 8))).shape
      (1, 16)
    """

    def __init__(
        self, features: int, num_heads=1, *, fusion=Concat, dtype=None, rngs: nnx.Rngs
    ):
        del num_heads, dtype
        self.width = features
        self.fusion = fusion(features, features, rngs=rngs)
        self.features = self.fusion.features

    def __call__(self, text, image, *, text_mask=None, image_mask=None) -> jax.Array:
        """Fuses text [B, S, D] with image [B, M, D] into [B, features]."""
        check_tokens("PooledFusion", self.width, text, image, text_mask, image_mask)
        return self.fusion(masked_mean(text, text_mask), masked_mean(image, image_mask))


class TextAlone(nnx.Module):
    """The mean of the text's tokens, [B, D]; the image is not read.

    Args:
      features: D.
      num_heads, dtype, rngs: not used; all fusions of tokens are built alike.
    """

    def __init__(self, features: int, num_heads=1, *, dtype=None, rngs=None):
        del num_heads, dtype, rngs
        self.features = features

    def __call__(self, text, image, *, text_mask=None, image_mask=None) -> jax.Array:
        """The mean of text [B, S, D] over its tokens: [B, D]."""
        check_tokens("TextAlone", self.features, text, image, text_mask, image_mask)
        return masked_mean(text, text_mask)


class ImageAlone(nnx.Module):
    """The mean of the image's tokens, [B, D]; the text is not read.

    Args:
      features: D.
      num_heads, dtype, rngs: not used; all fusions of tokens are built alike.
    """

    def __init__(self, features: int, num_heads=1, *, dtype=None, rngs=None):
        del num_heads, dtype, rngs
        self.features = features

    def __call__(self, text, image, *, text_mask=None, image_mask=None) -> jax.Array:
        """The mean of image [B, M, D] over its tokens: [B, D]."""
        check_tokens("ImageAlone", self.features, text, image, text_mask, image_mask)
        return masked_mean(image, image_mask)


class FeatureLevelFusion(nnx.Module):
    """TextCNN's features beside a dense layer on the CNN's mean: [B, 2 D].

    The papers' feature-level fusion of two convolutional networks; the image's network
    is the one whose map the image tokens are.

    Args:
      features: D of both modalities.
      num_heads: not used; accepted so that all fusions of tokens are built alike.
      widths: of TextCNN's windows, in tokens.
      dtype: of the computation.
      rngs: source of the initial weights.

    Attributes:
      features: width of the result, 2 D.

    Example:
      >>> fuse = FeatureLevelFusion(8, 1, rngs=nnx.Rngs(0))
      >>> fuse(jnp.ones((1, 3, 8)), jnp.ones((1, 5, 8))).shape
      (1, 16)
    """

    def __init__(
        self,
        features: int,
        num_heads=1,
        *,
        widths: tuple[int, ...] = (3, 4, 5),
        dtype=None,
        rngs: nnx.Rngs,
    ):
        del num_heads
        self.width = features
        self.features = 2 * features
        self.text = TextCNN(features, widths=widths, dtype=dtype, rngs=rngs)
        self.text_out = nnx.Linear(self.text.features, features, dtype=dtype, rngs=rngs)
        self.image = nnx.Linear(features, features, dtype=dtype, rngs=rngs)

    def __call__(self, text, image, *, text_mask=None, image_mask=None) -> jax.Array:
        """Fuses text [B, S, D] with image [B, M, D] into [B, 2 D]."""
        check_tokens(
            "FeatureLevelFusion", self.width, text, image, text_mask, image_mask
        )
        of_text = nnx.relu(self.text_out(self.text(text, text_mask)))
        of_image = nnx.relu(self.image(masked_mean(image, image_mask)))
        there = has_tokens(text, text_mask), has_tokens(image, image_mask)
        parts = zip((of_text, of_image), there, strict=True)
        return jnp.concatenate(
            [jnp.where(found[:, None], part, 0) for part, found in parts], axis=-1
        )
