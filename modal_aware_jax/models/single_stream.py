"""A single stream: image and text tokens in one transformer, with a matching head."""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.token_dense import token_dense
from modal_aware_jax.backbones.transformer import PostNormBlock
from modal_aware_jax.blocks.token_attention import read_tokens


class SingleStream(nnx.Module):
    """Scores a pair of token sets by one transformer over both.

    UNITER's form (Chen et al., arXiv:1909.11740): tokens of both are projected to one
    width and normalised, each with a learned vector of its modality; a learned class
    token in front reads all, and a dense layer on its tanh pooling is the matching
    logit. There the tokens are detected regions and word pieces with positions of their
    own; here they come from any encoder, whose positions they carry.

    It has no embedding of one side: it re-ranks what another method found.

    Args:
      image_features, text_features: of the tokens that come in.
      features: D of the stream.
      num_heads: must divide D.
      num_layers: transformer blocks (BERT's) with 4 D hidden features.
      dropout_rate: of what each block adds.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> def score(image, text):
      ...     return SingleStream(8, 6, features=4, num_heads=2, rngs=nnx.Rngs(0))(
      ...         image, text)
      >>> jax.eval_shape(score, jnp.ones((2, 9, 8)), jnp.ones((2, 3, 6))).shape
      (2,)
    """

    def __init__(
        self,
        image_features: int,
        text_features: int,
        *,
        features: int = 256,
        num_heads: int = 4,
        num_layers: int = 2,
        dropout_rate: float = 0.0,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def dense(in_features, out_features):
            return token_dense(in_features, out_features, dtype=dtype, rngs=rngs)

        init = nnx.initializers.normal(0.02)
        self.image_tokens = dense(image_features, features)
        self.text_tokens = dense(text_features, features)
        self.image_norm = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.text_norm = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)
        # Of the class token, of the image's and of the text's.
        self.kinds = nnx.Param(init(rngs.params(), (3, features)))
        self.blocks = nnx.List(
            PostNormBlock(
                features,
                num_heads,
                4 * features,
                dropout_rate=dropout_rate,
                dtype=dtype,
                rngs=rngs,
            )
            for _ in range(num_layers)
        )
        self.pool = dense(features, features)
        self.score = dense(features, 1)

    def encode_image(
        self, image, *, image_mask=None, train: bool = False, rngs=None
    ) -> jax.Array:
        """Maps image tokens [B, M, Di] to tokens [B, M, D] that the stream takes."""
        tokens = self._read(self.image_tokens, "image", image, image_mask)
        return self.image_norm(tokens) + self._kind(1, tokens)

    def encode_text(
        self, text, *, text_mask=None, train: bool = False, rngs=None
    ) -> jax.Array:
        """Maps text tokens [B, S, Dt] to tokens [B, S, D] that the stream takes."""
        tokens = self._read(self.text_tokens, "text", text, text_mask)
        return self.text_norm(tokens) + self._kind(2, tokens)

    def _read(self, layer, name, tokens, mask):
        width = layer.in_features
        return layer(read_tokens("SingleStream", name, tokens, width, mask))

    def _kind(self, number, tokens):
        return self.kinds[number].astype(tokens.dtype)[None, None]

    def embed_pair(
        self,
        image: jax.Array,
        text: jax.Array,
        *,
        image_mask: jax.Array | None = None,
        text_mask: jax.Array | None = None,
        train: bool = False,
        rngs=None,
    ) -> jax.Array:
        """Maps pairs of tokens [B, M, Di] and [B, S, Dt] to one vector each, [B, D].

        Args:
          image_mask, text_mask: [B, M] and [B, S], 0 for padding.
          train: whether dropout drops.
          rngs: with a `dropout` stream; needed in training with dropout.
        """
        image = self.encode_image(image, image_mask=image_mask)
        text = self.encode_text(text, text_mask=text_mask)
        return self._joint(image, text, image_mask, text_mask, train=train, rngs=rngs)

    def _joint(self, image, text, image_mask, text_mask, *, train, rngs):
        if len(image) != len(text):
            raise ValueError(
                f"SingleStream expects as many texts as images, got {len(image)} "
                f"images and {len(text)} texts."
            )
        if image_mask is None:
            image_mask = jnp.ones(image.shape[:2], bool)
        if text_mask is None:
            text_mask = jnp.ones(text.shape[:2], bool)
        kind = self._kind(0, image)
        first = jnp.broadcast_to(kind, (image.shape[0], 1, image.shape[2]))
        tokens = jnp.concatenate([first, image, text], axis=1)  # [B, 1 + M + S, D]
        there = jnp.ones((image.shape[0], 1), bool)
        mask = jnp.concatenate([there, image_mask != 0, text_mask != 0], axis=1)
        for block in self.blocks:
            tokens = block(tokens, mask, train=train, rngs=rngs)
        return jnp.tanh(self.pool(tokens[:, 0]))

    def score_pairs(self, image: jax.Array, text: jax.Array, **arguments) -> jax.Array:
        """Matching logits [B]; the arguments are those of `embed_pair`."""
        return self.score(self.embed_pair(image, text, **arguments))[:, 0]

    __call__ = score_pairs

    def score_encoded(
        self, image, text, *, image_mask=None, text_mask=None, train=False, rngs=None
    ) -> jax.Array:
        """Matching logits [B] of tokens that `encode_image`, `encode_text` gave."""
        return self.score(
            self._joint(image, text, image_mask, text_mask, train=train, rngs=rngs)
        )[:, 0]
