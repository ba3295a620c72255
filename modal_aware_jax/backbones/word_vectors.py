"""A text branch that reads bags of words as sums of fixed word vectors."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modal_aware_jax.backbones.text_mlp import TextMLP


@nnx.register_variable_name("word_vectors")
class FixedVectors(nnx.Variable):
    """Vectors of words: saved in checkpoints, never trained."""


def sum_of_words(bags: jax.Array, vectors: jax.Array) -> jax.Array:
    """Sums of the vectors of each document's words, over the root of their number.

    So long and short documents have features of one size. A document without words is
    zero.

    Args:
      bags: [B, T] of 0 and 1.
      vectors: [T, D].

    Returns:
      [B, D].

    Example:
      >>> sum_of_words(jnp.array([[1, 1, 0, 0]]), jnp.eye(4) * 2**0.5).round(4).tolist()
      [[1.0, 1.0, 0.0, 0.0]]
    """
    bags = jnp.asarray(bags, vectors.dtype)
    count = jnp.maximum(bags.sum(axis=-1, keepdims=True), 1)
    return bags @ vectors / jnp.sqrt(count)


class WordVectorMLP(nnx.Module):
    """`TextMLP` over fixed vectors of the words: bags [B, T] in, as for the other.

    Words are dropped from the bag, before the sum. The vectors stay as they are: a
    layer of their own would learn the training pairs' rare words by heart.

    Args:
      text_features: T.
      widths: features of the wide and of the narrow vector.
      vectors: [T, D], see `data.word_vectors`.
      rngs: source of the initial weights.

    Raises:
      ValueError: the vectors are not [T, D].

    Example:
      >>> text = WordVectorMLP(3, (8, 4), vectors=np.eye(3), rngs=nnx.Rngs(0))
      >>> text(jnp.ones((2, 3))).shape
      (2, 4)
    """

    def __init__(
        self,
        text_features: int,
        widths: tuple[int, int] = (8192, 512),
        *,
        vectors: np.ndarray,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        if np.ndim(vectors) != 2 or len(vectors) != text_features:
            raise ValueError(
                f"WordVectorMLP: expected vectors of {text_features} words, [T, D], "
                f"got {np.shape(vectors)}."
            )
        self.text_features = text_features
        self.vectors = FixedVectors(jnp.asarray(vectors, jnp.float32))
        self.mlp = TextMLP(np.shape(vectors)[1], widths, dtype=dtype, rngs=rngs)

    def wide(self, text: jax.Array) -> jax.Array:
        """Maps bags [B, T] to the wide vector, after ReLU."""
        if text.ndim != 2 or text.shape[-1] != self.text_features:
            raise ValueError(
                f"WordVectorMLP expects bags [B, {self.text_features}], got "
                f"{text.shape}."
            )
        return self.mlp.wide(sum_of_words(text, self.vectors[...]))

    def narrow(self, wide: jax.Array) -> jax.Array:
        """Maps the wide vector to the narrow one, without ReLU."""
        return self.mlp.narrow(wide)

    def __call__(self, text: jax.Array) -> jax.Array:
        """Maps bags [B, T] to the narrow vector."""
        return self.narrow(self.wide(text))
