"""A small transformer that reads words by their numbers, learned from the start."""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.bert import BERT


class WordReader(nnx.Module):
    """Numbers of words, 0 where there is none, to tokens: [B, L] to [B, L, D].

    `BERT` in small; the mask comes from the numbers. A row without a word keeps one
    token, that of the padding, so that no attention is over nothing.

    Args:
      num_words: the numbers in use, padding included.
      length: L, of the longest text.
      features: D.
      num_layers: blocks; with none, tokens are words and places alone.
      num_heads: of the attention.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> reader = WordReader(9, 4, 8, num_layers=1, num_heads=2, rngs=nnx.Rngs(0))
      >>> tokens, mask = reader(jnp.array([[3.0, 8.0, 0.0, 0.0]]))
      >>> tokens.shape, mask.tolist()
      ((1, 4, 8), [[True, True, False, False]])
    """

    def __init__(
        self,
        num_words: int,
        length: int,
        features: int,
        *,
        num_layers: int = 2,
        num_heads: int = 4,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.in_features = length
        self.features = features
        self.transformer = BERT(
            num_words,
            features,
            num_layers=num_layers,
            num_heads=num_heads,
            hidden_features=2 * features,
            max_length=length,
            num_segments=1,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(
        self, numbers: jax.Array, *, train: bool = False, rngs=None
    ) -> tuple[jax.Array, jax.Array]:
        """Maps numbers of words [B, L] to tokens [B, L, D] and their mask [B, L].

        Args:
          numbers: of any type, whole.
          train, rngs: of the transformer's dropout.
        """
        if numbers.ndim != 2 or numbers.shape[1] != self.in_features:
            raise ValueError(
                f"WordReader expects numbers of words [B, {self.in_features}], 0 for "
                f"padding, got {numbers.shape}."
            )
        numbers = numbers.astype(jnp.int32)
        first = jnp.arange(self.in_features) == 0
        mask = (numbers != 0) | (~jnp.any(numbers != 0, axis=1)[:, None] & first[None])
        return self.transformer(numbers, mask, train, rngs=rngs), mask
