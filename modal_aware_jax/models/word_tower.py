"""A text tower that reads bags of words as sums of fixed word vectors."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modal_aware_jax.backbones.word_vectors import FixedVectors, sum_of_words


class WordTower(nnx.Module):
    """Bags [B, T] to embeddings: `sum_of_words`, then a tower.

    Takes the place of a `TwoTower`'s text tower. Words are dropped from the bag, before
    the sum.

    Args:
      vectors: [T, D] of the words; they stay as they are.
      tower: of the sums, such as a `Tower` of D features.

    Attributes:
      in_features: T.

    Raises:
      ValueError: the tower does not read vectors of D features.

    Example:
      >>> from modal_aware_jax.models.two_tower import Tower
      >>> tower = Tower(4, 2, hidden_features=8, rngs=nnx.Rngs(0))
      >>> WordTower(np.ones((9, 4)), tower)(jnp.ones((3, 9))).shape
      (3, 2)
    """

    def __init__(self, vectors: np.ndarray, tower: nnx.Module):
        if np.ndim(vectors) != 2 or np.shape(vectors)[1] != tower.in_features:
            raise ValueError(
                f"WordTower expects vectors of words [T, {tower.in_features}], as wide "
                f"as its tower reads, got {np.shape(vectors)}."
            )
        self.in_features = len(vectors)
        self.vectors = FixedVectors(jnp.asarray(vectors, jnp.float32))
        self.tower = tower

    def __call__(
        self, bags: jax.Array, mask=None, *, train: bool = False, rngs=None
    ) -> jax.Array:
        """Maps bags [B, T] to embeddings [B, F].

        Args:
          mask: None, as a bag has no padding.
          train: whether dropout drops.
          rngs: with a `dropout` stream; needed in training with dropout.
        """
        if mask is not None or bags.ndim != 2 or bags.shape[1] != self.in_features:
            raise ValueError(
                f"WordTower expects bags [B, {self.in_features}] without a mask, got "
                f"{bags.shape} and {None if mask is None else jnp.shape(mask)}."
            )
        return self.tower(sum_of_words(bags, self.vectors[...]), train=train, rngs=rngs)
