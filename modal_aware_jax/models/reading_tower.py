"""A tower that reads words by their numbers, with a reader of its own."""

import jax
from flax import nnx


class ReadingTower(nnx.Module):
    """Numbers of words to an embedding: a reader's tokens through a `Tower`.

    Takes the place of a `TwoTower`'s text tower where no frozen sentence model gives
    the features: both parts are learned.

    Args:
      reader: such as `WordReader`: numbers [B, L] to tokens [B, L, D] and their mask;
        has `in_features`, L.
      tower: of the tokens, such as a `Tower`, which pools them.

    Attributes:
      in_features: L.

    Example:
      >>> import jax.numpy as jnp
      >>> from modal_aware_jax.backbones.word_reader import WordReader
      >>> from modal_aware_jax.models.two_tower import Tower
      >>> rngs = nnx.Rngs(0)
      >>> reader = WordReader(9, 4, 8, num_layers=1, num_heads=2, rngs=rngs)
      >>> tower = ReadingTower(reader, Tower(8, 2, hidden_features=8, rngs=rngs))
      >>> tower(jnp.array([[3.0, 8.0, 0.0, 0.0]])).shape
      (1, 2)
    """

    def __init__(self, reader: nnx.Module, tower: nnx.Module):
        self.in_features = reader.in_features
        self.reader = reader
        self.tower = tower

    def __call__(
        self, numbers: jax.Array, mask=None, *, train: bool = False, rngs=None
    ) -> jax.Array:
        """Maps numbers of words [B, L], 0 for none, to embeddings [B, F].

        Args:
          mask: None, as the numbers tell it.
          train: whether dropout drops.
          rngs: with a `dropout` stream; needed in training with dropout.
        """
        if mask is not None:
            raise ValueError("ReadingTower expects no mask: padding has the number 0.")
        tokens, mask = self.reader(numbers, train=train, rngs=rngs)
        return self.tower(tokens, mask, train=train, rngs=rngs)
