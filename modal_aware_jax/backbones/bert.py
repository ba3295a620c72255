"""BERT: the tokens of a text, each read with those on both sides of it.

J. Devlin et al.: BERT, NAACL 2019 (arXiv:1810.04805).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.dropout import drop
from modal_aware_jax.backbones.transformer import PostNormBlock, gelu, layer_norm


class BERT(nnx.Module):
    """BERT without its pooler and its heads. The defaults are BERT-base's.

    Args:
      vocabulary_size: word pieces.
      features: D.
      num_layers: blocks.
      num_heads: of the attention.
      hidden_features: of the feed-forward layers; None takes 4 D.
      max_length: the longest text, in word pieces.
      num_segments: rows of the table that marks the sentences of a pair. Only its
        first row is read here: a text is one sentence.
      activation: of the feed-forward layers.
      epsilon: of the layer norms.
      dropout_rate: of the embedding and of each addition, in training. The attention's
        shares are not dropped, unlike in the paper: fused kernels have no place for it.
      implementation: of the attention, see `transformer.attend`.
      dtype: of the computation; the weights stay float32.
      rngs: source of the initial weights.

    Example:
      >>> def tokens(ids, mask):
      ...     bert = BERT(100, 8, num_layers=1, num_heads=2, rngs=nnx.Rngs(0))
      ...     return bert(ids, mask)
      >>> jax.eval_shape(tokens, jnp.array([[1, 5, 0]]), jnp.array([[1, 1, 0]])).shape
      (1, 3, 8)
    """

    def __init__(
        self,
        vocabulary_size: int = 30522,
        features: int = 768,
        *,
        num_layers: int = 12,
        num_heads: int = 12,
        hidden_features: int | None = None,
        max_length: int = 512,
        num_segments: int = 2,
        activation=gelu,
        epsilon: float = 1e-12,
        dropout_rate: float = 0.0,
        implementation: str | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def embedding(rows):
            init = nnx.initializers.truncated_normal(0.02)
            return nnx.Embed(
                rows, features, embedding_init=init, dtype=dtype, rngs=rngs
            )

        self.features = features
        self.max_length = max_length
        self.dropout_rate = dropout_rate
        self.words = embedding(vocabulary_size)
        self.positions = embedding(max_length)
        self.segments = embedding(num_segments)
        self.norm = layer_norm(features, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            PostNormBlock(
                features,
                num_heads,
                hidden_features or 4 * features,
                activation=activation,
                epsilon=epsilon,
                dropout_rate=dropout_rate,
                implementation=implementation,
                dtype=dtype,
                rngs=rngs,
            )
            for _ in range(num_layers)
        )

    def __call__(
        self,
        ids: jax.Array,
        mask: jax.Array,
        train: bool = False,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Tokens [B, S, D] of word pieces [B, S].

        Args:
          ids: int [B, S], the first and last as the tokenizer puts them.
          mask: [B, S], true or 1 on word pieces, false or 0 on padding, which nobody
            reads. The tokens of the padding itself mean nothing.
          train: whether dropout drops.
          rngs: with a `dropout` stream; needed in training with dropout.
        """
        check_text(ids, mask, self.max_length, type(self).__name__)
        positions = self.positions(jnp.arange(ids.shape[1]))  # [S, D]
        positions = positions + self.segments(jnp.zeros((1,), jnp.int32))
        tokens = self.norm(self.words(ids) + positions[None])
        rate = self.dropout_rate if train else 0.0
        tokens = drop(rngs, tokens, rate, caller=type(self).__name__)
        for block in self.blocks:
            tokens = block(tokens, mask, train=train, rngs=rngs)
        return tokens


def check_text(ids, mask, max_length, caller):
    """Refuses word pieces and masks of wrong shapes, and texts that are too long."""
    if ids.ndim != 2 or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(
            f"{caller}: ids are integers [B, S], got {ids.dtype} {ids.shape}."
        )
    if mask is not None and mask.shape != ids.shape:
        raise ValueError(
            f"{caller}: the mask has the shape of the ids, {ids.shape}, got "
            f"{mask.shape}."
        )
    if ids.shape[1] > max_length:
        raise ValueError(
            f"{caller}: texts have at most {max_length} word pieces, got "
            f"{ids.shape[1]}. Cut them: tokenizer.enable_truncation({max_length})."
        )
