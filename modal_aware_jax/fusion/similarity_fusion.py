"""Similarity fusion: text and image tokens read each other, then become one vector.

Source: Zhang et al., SG-MFT, its similarity fusion module: two layers of
cross-attention each way, added and pooled.
"""

import jax
from flax import nnx

from modal_aware_jax.blocks.token_attention import (
    TokenAttention,
    check_tokens,
    masked,
    masked_mean,
)


class CrossLayer(nnx.Module):
    """Each modality reads the other once: LayerNorm(X + attention(X, Y)), both ways.

    Both read what stood before the layer, so their order does not matter.

    Args:
      features: D.
      num_heads: must divide D.
      dtype: of the computation.
      rngs: source of the initial weights.
    """

    def __init__(self, features: int, num_heads: int, *, dtype=None, rngs: nnx.Rngs):
        def attention():
            return TokenAttention(features, num_heads, dtype=dtype, rngs=rngs)

        def norm():
            return nnx.LayerNorm(features, dtype=dtype, rngs=rngs)

        self.text_attention, self.image_attention = attention(), attention()
        self.text_norm, self.image_norm = norm(), norm()

    def __call__(self, text, image, text_mask=None, image_mask=None):
        """Maps text [B, S, D] and image [B, M, D] to arrays of the same shapes."""
        read_by_text = self.text_attention(text, image, image_mask)
        read_by_image = self.image_attention(image, text, text_mask)
        return self.text_norm(text + read_by_text), self.image_norm(
            image + read_by_image
        )


class SimilarityFusion(nnx.Module):
    """Fuses text tokens [B, S, D] and image tokens [B, M, D] into vectors [B, D].

    `num_layers` times `CrossLayer`, then the mean of the text's tokens plus the mean of
    the image's. The paper adds before it pools, which asks for equally many tokens of
    both; with S = M and no padding the two are the same.

    Padding has no say. A row without a modality is the mean of the other's tokens after
    their layer norms, one without both is zero.

    Args:
      features: D of both modalities.
      num_heads: of each attention; must divide D.
      num_layers: of cross-attention; the paper's is 2.
      dtype: of the computation.
      rngs: source of the initial weights.

    Attributes:
      features: width of the result, D.

    Example:
      >>> import jax.numpy as jnp
      >>> fuse = SimilarityFusion(8, 2, rngs=nnx.Rngs(0))
      >>> fuse(jnp.ones((1, 3, 8)), jnp.ones((1, 5, 8))).shape
      (1, 8)
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        *,
        num_layers: int = 2,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.features = features
        self.layers = nnx.List(
            CrossLayer(features, num_heads, dtype=dtype, rngs=rngs)
            for _ in range(num_layers)
        )

    def __call__(
        self,
        text: jax.Array,
        image: jax.Array,
        *,
        text_mask: jax.Array | None = None,
        image_mask: jax.Array | None = None,
    ) -> jax.Array:
        """Fuses text [B, S, D] with image [B, M, D] into [B, D].

        Args:
          text_mask: [B, S], 0 for padding.
          image_mask: [B, M], 0 for padding.
        """
        check_tokens(
            "SimilarityFusion", self.features, text, image, text_mask, image_mask
        )
        text, image = masked(text, text_mask), masked(image, image_mask)
        for layer in self.layers:
            text, image = layer(text, image, text_mask, image_mask)
        return masked_mean(text, text_mask) + masked_mean(image, image_mask)
