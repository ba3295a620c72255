"""Merge, co- and asymmetric co-attention: three ways to fuse two sets of tokens.

    merge         one sequence of both: self-attention, feed-forward
    co-attention  each: self-attention, cross-attention to the other, feed-forward
    asymmetric    the text as in co-attention; the image is read and stays as it is

Each sublayer is LayerNorm(x + f(x)). Sources: Dou et al., METER (arXiv:2111.02387,
sec. 3.3), merged attention and co-attention; Li et al., mPLUG (arXiv:2205.12005,
eqs. 1-3), asymmetric co-attention. The result is one vector, the mean of the tokens.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.blocks.guided_feed_forward import FeedForward
from modal_aware_jax.blocks.token_attention import (
    TokenAttention,
    check_tokens,
    has_tokens,
    masked,
    masked_mean,
)


class SelfLayer(nnx.Module):
    """x <- LayerNorm(x + attention(x, x)), then x <- LayerNorm(x + feed-forward(x)).

    Args:
      features: D.
      num_heads: must divide D.
      dtype: of the computation.
      rngs: source of the initial weights. The feed-forward is 4 D wide.
    """

    def __init__(self, features: int, num_heads: int, *, dtype=None, rngs: nnx.Rngs):
        self.attention = TokenAttention(features, num_heads, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.feed_forward = FeedForward(features, 4 * features, dtype=dtype, rngs=rngs)
        self.out_norm = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)

    def __call__(self, tokens, mask=None) -> jax.Array:
        """Maps tokens [B, S, D] to [B, S, D]."""
        tokens = self.norm(tokens + self.attention(tokens, tokens, mask))
        return self.out_norm(tokens + self.feed_forward(tokens))


class ReadingLayer(nnx.Module):
    """`SelfLayer` with a cross-attention to another modality before its feed-forward.

    Args:
      features: D.
      num_heads: must divide D.
      dtype: of the computation.
      rngs: source of the initial weights. The feed-forward is 4 D wide.
    """

    def __init__(self, features: int, num_heads: int, *, dtype=None, rngs: nnx.Rngs):
        self.attention = TokenAttention(features, num_heads, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.cross = TokenAttention(features, num_heads, dtype=dtype, rngs=rngs)
        self.cross_norm = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.feed_forward = FeedForward(features, 4 * features, dtype=dtype, rngs=rngs)
        self.out_norm = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)

    def __call__(self, tokens, other, mask=None, other_mask=None) -> jax.Array:
        """Maps tokens [B, S, D] that read other [B, M, D] to [B, S, D]."""
        tokens = self.norm(tokens + self.attention(tokens, tokens, mask))
        tokens = self.cross_norm(tokens + self.cross(tokens, other, other_mask))
        return self.out_norm(tokens + self.feed_forward(tokens))


class MergeAttention(nnx.Module):
    """Both modalities as one sequence under self-attention: vectors [B, D].

    A learned vector for each modality is added to its tokens, for attention must not
    take words for pieces of the image.

    Padding has no say; a row without a modality is the other's sequence alone, one
    without both is zero.

    Args:
      features: D of both modalities.
      num_heads: must divide D.
      num_layers: of self-attention and feed-forward.
      dtype: of the computation.
      rngs: source of the initial weights.

    Attributes:
      features: width of the result, D.

    Example:
      >>> fuse = MergeAttention(8, 2, num_layers=1, rngs=nnx.Rngs(0))
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
        init = nnx.initializers.normal(0.02)
        self.modality = nnx.Param(init(rngs.params(), (2, features)))
        self.layers = nnx.List(
            SelfLayer(features, num_heads, dtype=dtype, rngs=rngs)
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
            "MergeAttention", self.features, text, image, text_mask, image_mask
        )
        kind = self.modality[...].astype(text.dtype)[:, None, None]  # [2, 1, 1, D]
        tokens = jnp.concatenate([text + kind[0], image + kind[1]], axis=1)
        mask = None
        if text_mask is not None or image_mask is not None:
            masks = (text, text_mask), (image, image_mask)
            mask = jnp.concatenate(
                [
                    jnp.ones(x.shape[:2], bool) if m is None else m != 0
                    for x, m in masks
                ],
                axis=1,
            )
        tokens = masked(tokens, mask)
        for layer in self.layers:
            tokens = layer(tokens, mask)
        return masked_mean(tokens, mask)


class CoAttention(nnx.Module):
    """Two streams that read each other: vectors [B, D].

    The result is the mean of the text's tokens plus the mean of the image's. Padding
    has no say; a row without a modality is the other's stream alone, one without both
    is zero.

    Args:
      features: D of both modalities.
      num_heads: must divide D.
      num_layers: of each stream.
      dtype: of the computation.
      rngs: source of the initial weights.

    Attributes:
      features: width of the result, D.

    Example:
      >>> fuse = CoAttention(8, 2, num_layers=1, rngs=nnx.Rngs(0))
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
        def stream():
            return nnx.List(
                ReadingLayer(features, num_heads, dtype=dtype, rngs=rngs)
                for _ in range(num_layers)
            )

        self.features = features
        self.text_layers, self.image_layers = stream(), stream()

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
        check_tokens("CoAttention", self.features, text, image, text_mask, image_mask)
        text, image = masked(text, text_mask), masked(image, image_mask)
        for text_layer, image_layer in zip(
            self.text_layers, self.image_layers, strict=True
        ):
            text, image = (
                text_layer(text, image, text_mask, image_mask),
                image_layer(image, text, image_mask, text_mask),
            )
        return masked_mean(text, text_mask) + masked_mean(image, image_mask)


class AsymmetricCoAttention(nnx.Module):
    """The text reads the image, which stays as it is: vectors [B, D].

    The result is the mean of the text's tokens. A row without a text has nobody who
    reads: its vector is the mean of the image's tokens as they came. Padding has no
    say; a row without both is zero.

    Args:
      features: D of both modalities.
      num_heads: must divide D.
      num_layers: of the text's stream.
      dtype: of the computation.
      rngs: source of the initial weights.

    Attributes:
      features: width of the result, D.

    Example:
      >>> fuse = AsymmetricCoAttention(8, 2, num_layers=1, rngs=nnx.Rngs(0))
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
            ReadingLayer(features, num_heads, dtype=dtype, rngs=rngs)
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
            "AsymmetricCoAttention", self.features, text, image, text_mask, image_mask
        )
        text, image = masked(text, text_mask), masked(image, image_mask)
        for layer in self.layers:
            text = layer(text, image, text_mask, image_mask)
        seen = masked_mean(image, image_mask).astype(text.dtype)
        readers = has_tokens(text, text_mask)[:, None]
        return jnp.where(readers, masked_mean(text, text_mask), seen)
