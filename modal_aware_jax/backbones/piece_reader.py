"""A pretrained text encoder as a part of a network: it is trained with the rest."""

import os

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.from_pretrained import from_pretrained
from modal_aware_jax.backbones.word_pieces import states, text_half


class PieceReader(nnx.Module):
    """Numbers of word pieces, 0 where there is none, to tokens: [B, L] to [B, L, D].

    Number n is the word piece that the tokenizer counts as n - 1
    (`data.word_ids.WordIds`). A row without a word piece keeps one token, so that no
    attention is over nothing; as of any padding, what it says means nothing.

    Args:
      encoder: a BERT, or a CLIP, of which the text's half is taken.
      length: L, of the longest text.

    Example:
      >>> from modal_aware_jax.backbones.bert import BERT
      >>> bert = BERT(9, 8, num_layers=1, num_heads=2, rngs=nnx.Rngs(0))
      >>> reader = PieceReader(bert, 4)
      >>> tokens, mask = reader(jnp.array([[3.0, 8.0, 0.0, 0.0]]))
      >>> tokens.shape, mask.tolist()
      ((1, 4, 8), [[True, True, False, False]])
    """

    def __init__(self, encoder: nnx.Module, length: int):
        self.encoder = text_half(encoder)
        self.in_features = length
        self.features = self.encoder.features

    def __call__(
        self, numbers: jax.Array, *, train: bool = False, rngs=None
    ) -> tuple[jax.Array, jax.Array]:
        """Maps numbers of word pieces [B, L] to tokens [B, L, D] and a mask [B, L].

        Args:
          numbers: of any type, whole.
          train, rngs: of the encoder's dropout.
        """
        if numbers.ndim != 2 or numbers.shape[1] != self.in_features:
            raise ValueError(
                f"PieceReader expects numbers of word pieces [B, {self.in_features}], "
                f"0 for padding, got {numbers.shape}."
            )
        numbers = numbers.astype(jnp.int32)
        first = jnp.arange(self.in_features) == 0
        mask = (numbers != 0) | (~jnp.any(numbers != 0, axis=1)[:, None] & first[None])
        ids = jnp.maximum(numbers - 1, 0)
        return states(self.encoder, ids, mask, train=train, rngs=rngs), mask


def pretrained_reader(
    folder: str | os.PathLike, length: int, *, dropout_rate: float = 0.0
) -> PieceReader:
    """The reader of a folder's text encoder, with its weights; as `from_pretrained`."""
    return PieceReader(from_pretrained(folder, dropout_rate=dropout_rate), length)
