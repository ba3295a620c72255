"""Align before fuse: two encoders aligned by a contrast, then fused by cross-attention.

Source: Li et al., ALBEF (arXiv:2107.07651). One step of its training, in the words of
this package:

    image, text = model.embed_image(...), model.embed_text(...)
    slow_image, slow_text = the same by the momentum copy of the parameters
    contrast = momentum_info_nce(image, text, slow_image, slow_text, scale=s)
    drawn = draw_hard_negatives(key, s * cosines(image, text), groups=groups)
    logits = score_pairs of (own, own), (own, drawn text), (drawn image, own)
    loss = contrast + binary_matching(logits, 1 for the first, 0 for the others)
    copy = moving_average(copy, parameters)

Its third loss, masked language modelling, needs a vocabulary and is left out.
"""

import jax
from flax import nnx

from modal_aware_jax.backbones.dropout import drop
from modal_aware_jax.backbones.token_dense import token_dense
from modal_aware_jax.backbones.transformer import FeedForward, PostNormBlock
from modal_aware_jax.blocks.pooling import masked_mean
from modal_aware_jax.blocks.token_attention import TokenAttention, masked, read_tokens
from modal_aware_jax.models.temperature import Temperature


class FusionBlock(nnx.Module):
    """Text tokens read themselves, then the image's, then a feed-forward layer.

    Each sublayer is LayerNorm(x + dropout(f(x))). An image without any token adds
    nothing.

    Args:
      features: D.
      num_heads: must divide D.
      dropout_rate: of what is added.
      dtype: of the computation.
      rngs: source of the initial weights. The feed-forward is 4 D wide.
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        *,
        dropout_rate: float = 0.0,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def norm():
            return nnx.LayerNorm(features, dtype=dtype, rngs=rngs)

        self.dropout_rate = dropout_rate
        self.own = TokenAttention(features, num_heads, dtype=dtype, rngs=rngs)
        self.cross = TokenAttention(features, num_heads, dtype=dtype, rngs=rngs)
        self.feed_forward = FeedForward(features, 4 * features, dtype=dtype, rngs=rngs)
        self.own_norm, self.cross_norm, self.out_norm = norm(), norm(), norm()

    def __call__(
        self, text, image, text_mask=None, image_mask=None, *, train=False, rngs=None
    ) -> jax.Array:
        """Maps text tokens [B, S, D] that read image tokens [B, M, D] to [B, S, D]."""

        def add(x, norm, change):
            rate = self.dropout_rate if train else 0.0
            return norm(x + drop(rngs, change, rate, caller="FusionBlock"))

        text = add(text, self.own_norm, self.own(text, text, text_mask))
        text = add(text, self.cross_norm, self.cross(text, image, image_mask))
        return add(text, self.out_norm, self.feed_forward(text))


class AlignBeforeFuse(nnx.Module):
    """Embeddings of each side by its own encoder, and a score of a pair by fusion.

    There the encoders are a ViT and half of BERT; here a projection and a few
    transformer blocks over the tokens of any encoder, whose positions they carry. The
    fusion reads the encoders' tokens.

    Args:
      image_features, text_features: of the tokens that come in.
      features: F of the embeddings.
      width: D of the encoders and the fusion.
      num_heads: must divide D.
      image_layers, text_layers, fusion_layers: numbers of blocks.
      pool: a function of tokens and their mask, `masked_mean`, or `first_token` where
        both encoders have a class token (the paper's).
      dropout_rate: of what each block adds.
      scale: of `Temperature` at the start.
      dtype: of the computation.
      rngs: source of the initial weights.

    Attributes:
      temperature: a `Temperature` for the contrast.

    Example:
      >>> import jax.numpy as jnp
      >>> def score(image, text):
      ...     model = AlignBeforeFuse(8, 6, 4, width=4, num_heads=2, rngs=nnx.Rngs(0))
      ...     return model.score_pairs(image, text)
      >>> jax.eval_shape(score, jnp.ones((2, 9, 8)), jnp.ones((2, 3, 6))).shape
      (2,)
    """

    def __init__(
        self,
        image_features: int,
        text_features: int,
        features: int,
        *,
        width: int = 256,
        num_heads: int = 4,
        image_layers: int = 1,
        text_layers: int = 1,
        fusion_layers: int = 2,
        pool=masked_mean,
        dropout_rate: float = 0.0,
        scale: float = 1 / 0.07,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        typed = {"dtype": dtype, "rngs": rngs}

        def blocks(count):
            return nnx.List(
                PostNormBlock(
                    width, num_heads, 4 * width, dropout_rate=dropout_rate, **typed
                )
                for _ in range(count)
            )

        self.pool = pool
        self.image_tokens = token_dense(image_features, width, **typed)
        self.text_tokens = token_dense(text_features, width, **typed)
        self.image_blocks, self.text_blocks = blocks(image_layers), blocks(text_layers)
        self.image_head = nnx.Linear(width, features, **typed)
        self.text_head = nnx.Linear(width, features, **typed)
        self.fusion = nnx.List(
            FusionBlock(width, num_heads, dropout_rate=dropout_rate, **typed)
            for _ in range(fusion_layers)
        )
        self.score = nnx.Linear(width, 1, **typed)
        self.temperature = Temperature(scale)

    def encode_image(self, image, *, image_mask=None, train=False, rngs=None):
        """Maps image tokens [B, M, Di] to tokens [B, M, D]; no text is there."""
        return _encode(
            self.image_tokens,
            self.image_blocks,
            "image",
            image,
            image_mask,
            train,
            rngs,
        )

    def encode_text(self, text, *, text_mask=None, train=False, rngs=None):
        """Maps text tokens [B, S, Dt] to tokens [B, S, D]; no image is there."""
        layers = self.text_tokens, self.text_blocks
        return _encode(*layers, "text", text, text_mask, train, rngs)

    def embed_image(self, image, *, image_mask=None, train=False, rngs=None):
        """Maps image tokens [B, M, Di] to embeddings [B, F]; no text is there."""
        tokens = self.encode_image(image, image_mask=image_mask, train=train, rngs=rngs)
        return self.image_head(self.pool(tokens, image_mask))

    def embed_text(self, text, *, text_mask=None, train=False, rngs=None):
        """Maps text tokens [B, S, Dt] to embeddings [B, F]; no image is there."""
        tokens = self.encode_text(text, text_mask=text_mask, train=train, rngs=rngs)
        return self.text_head(self.pool(tokens, text_mask))

    def score_encoded(
        self, image, text, *, image_mask=None, text_mask=None, train=False, rngs=None
    ) -> jax.Array:
        """Matching logits [B] of tokens that `encode_image`, `encode_text` gave.

        Hard negatives are rows of the same tokens in another order: no encoder runs
        again.
        """
        for block in self.fusion:
            text = block(text, image, text_mask, image_mask, train=train, rngs=rngs)
            text = masked(text, text_mask)
        return self.score(self.pool(text, text_mask))[:, 0]

    def score_pairs(
        self, image, text, *, image_mask=None, text_mask=None, train=False, rngs=None
    ) -> jax.Array:
        """Matching logits [B] of tokens [B, M, Di] and [B, S, Dt].

        Args:
          image_mask, text_mask: [B, M] and [B, S], 0 for padding.
          train: whether dropout drops.
          rngs: with a `dropout` stream; needed in training with dropout.
        """
        way = {"train": train, "rngs": rngs}
        return self.score_encoded(
            self.encode_image(image, image_mask=image_mask, **way),
            self.encode_text(text, text_mask=text_mask, **way),
            image_mask=image_mask,
            text_mask=text_mask,
            **way,
        )

    def __call__(
        self, image, text, *, image_mask=None, text_mask=None, train=False, rngs=None
    ) -> tuple[jax.Array, jax.Array]:
        """`embed_image` and `embed_text`, [B, F] each."""
        return (
            self.embed_image(image, image_mask=image_mask, train=train, rngs=rngs),
            self.embed_text(text, text_mask=text_mask, train=train, rngs=rngs),
        )


def _encode(project, blocks, name, tokens, mask, train, rngs):
    width = project.in_features
    tokens = project(read_tokens("AlignBeforeFuse", name, tokens, width, mask))
    for block in blocks:
        tokens = block(tokens, mask, train=train, rngs=rngs)
    return masked(tokens, mask)
