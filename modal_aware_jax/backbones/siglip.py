"""SigLIP's encoders: an image pooled by attention, a text by its last token.

X. Zhai et al.: Sigmoid loss for language image pre-training, ICCV 2023
(arXiv:2303.15343). SigLIP 2 (arXiv:2502.14786) has the same encoders.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.clip import TokenEmbedding
from modal_aware_jax.backbones.transformer import (
    Attention,
    FeedForward,
    PreNormBlock,
    gelu_tanh,
    layer_norm,
)
from modal_aware_jax.backbones.vit import PatchEmbedding


class AttentionPool(nnx.Module):
    """A learned token reads all others: [B, M, D] to [B, D].

    The arguments are those of `PreNormBlock`, without dropout.

    Example:
      >>> def pooled():
      ...     pool = AttentionPool(8, 2, 16, rngs=nnx.Rngs(0))
      ...     return pool(jnp.ones((3, 5, 8)))
      >>> jax.eval_shape(pooled).shape
      (3, 8)
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        hidden_features: int,
        *,
        activation=gelu_tanh,
        epsilon: float = 1e-6,
        implementation: str | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        typed = {"dtype": dtype, "rngs": rngs}
        init = nnx.initializers.truncated_normal(0.02)
        self.probe = nnx.Param(init(rngs.params(), (features,)))
        self.attention = Attention(
            features, num_heads, implementation=implementation, **typed
        )
        self.norm = layer_norm(features, epsilon=epsilon, **typed)
        self.feed_forward = FeedForward(
            features, hidden_features, activation=activation, **typed
        )

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """What the learned token has read from tokens [B, M, D]."""
        shape = tokens.shape[0], 1, tokens.shape[-1]
        probe = jnp.broadcast_to(self.probe[...].astype(tokens.dtype), shape)
        read = self.attention(probe, tokens)
        return (read + self.feed_forward(self.norm(read)))[:, 0]


class SigLIPImage(nnx.Module):
    """The ViT of SigLIP: no class token, pooled by attention.

    The defaults are those of B/16. The arguments are those of `ViT`.
    """

    def __init__(
        self,
        image_size=224,
        patch_size=16,
        features: int = 768,
        *,
        num_layers: int = 12,
        num_heads: int = 12,
        hidden_features: int | None = None,
        activation=gelu_tanh,
        epsilon: float = 1e-6,
        dropout_rate: float = 0.0,
        implementation: str | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.features = self.projected_features = features
        typed = {"dtype": dtype, "rngs": rngs}
        shared = {
            "activation": activation,
            "epsilon": epsilon,
            "implementation": implementation,
            **typed,
        }
        hidden_features = hidden_features or 4 * features
        self.embedding = PatchEmbedding(
            image_size, patch_size, features, class_token=False, **typed
        )
        self.blocks = nnx.List(
            PreNormBlock(
                features,
                num_heads,
                hidden_features,
                dropout_rate=dropout_rate,
                **shared,
            )
            for _ in range(num_layers)
        )
        self.norm = layer_norm(features, epsilon=epsilon, **typed)
        self.pool = AttentionPool(features, num_heads, hidden_features, **shared)

    def tokens(self, images, train: bool = False, *, rngs=None) -> jax.Array:
        """Tokens [B, M, D] of images [B, H, W, 3]."""
        tokens = self.embedding(images)
        for block in self.blocks:
            tokens = block(tokens, train=train, rngs=rngs)
        return self.norm(tokens)

    def project(self, tokens: jax.Array) -> jax.Array:
        """Tokens [B, M, D] pooled: [B, D], which is the shared space."""
        return self.pool(tokens)

    def __call__(self, images, train: bool = False, *, rngs=None) -> jax.Array:
        """Images [B, H, W, 3] in the shared space: [B, D]."""
        return self.project(self.tokens(images, train, rngs=rngs))


class SigLIPText(nnx.Module):
    """The text transformer of SigLIP: all tokens read all, the last is projected.

    It was trained on texts padded to `max_length` whose padding was read like words:
    pad new ones so, and give no mask.

    Args:
      vocabulary_size: word pieces.
      features: D.
      projected_features: F, of the space shared with the images.
      max_length: the longest text, in word pieces.
      num_layers: blocks; the other arguments are those of `PreNormBlock`.
    """

    def __init__(
        self,
        vocabulary_size: int = 32000,
        features: int = 768,
        projected_features: int = 768,
        *,
        max_length: int = 64,
        num_layers: int = 12,
        num_heads: int = 12,
        hidden_features: int | None = None,
        activation=gelu_tanh,
        epsilon: float = 1e-6,
        dropout_rate: float = 0.0,
        implementation: str | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.features, self.projected_features = features, projected_features
        self.max_length = max_length
        typed = {"dtype": dtype, "rngs": rngs}
        self.embedding = TokenEmbedding(vocabulary_size, features, max_length, **typed)
        self.blocks = nnx.List(
            PreNormBlock(
                features,
                num_heads,
                hidden_features or 4 * features,
                activation=activation,
                epsilon=epsilon,
                dropout_rate=dropout_rate,
                implementation=implementation,
                **typed,
            )
            for _ in range(num_layers)
        )
        self.norm = layer_norm(features, epsilon=epsilon, **typed)
        self.projection = nnx.Linear(features, projected_features, **typed)

    def tokens(self, ids, mask=None, train: bool = False, *, rngs=None) -> jax.Array:
        """Tokens [B, S, D] of word pieces [B, S]."""
        tokens = self.embedding(ids, mask)
        for block in self.blocks:
            tokens = block(tokens, mask, train=train, rngs=rngs)
        return self.norm(tokens)

    def project(self, tokens: jax.Array, ids: jax.Array) -> jax.Array:
        """The last token of each text in the shared space: [B, F]."""
        del ids
        return self.projection(tokens[:, -1])

    def __call__(self, ids, mask=None, train: bool = False, *, rngs=None) -> jax.Array:
        """Word pieces [B, S] in the shared space: [B, F]."""
        return self.project(self.tokens(ids, mask, train, rngs=rngs), ids)
