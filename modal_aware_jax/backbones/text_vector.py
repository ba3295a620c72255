"""From the text after the last block to the vector that fusion reads."""

import jax
from flax import nnx


class PlainText(nnx.Module):
    """The papers' network: the text as it is, [B, T] to [B, T]."""

    def __init__(self, features: int, *, rngs=None):
        del features, rngs

    def __call__(self, text: jax.Array, *, train: bool) -> jax.Array:
        """Returns text [B, T] unchanged."""
        del train
        return text


class StandardText(nnx.Module):
    """Each text feature standardised, [B, T] to [B, T].

    Two dense layers that start from N(0, 0.01^2) leave text features of about 0.01
    beside image features of about 1: for many epochs what is fused is the image.
    Standardised by the batch in training and by running averages in evaluation, both
    have the same say from the first step (numbers in the README).

    Args:
      features: T.

    Example:
      >>> text = StandardText(2, rngs=nnx.Rngs(0))
      >>> text(jax.numpy.array([[0.1, 5.0], [0.3, 7.0]]), train=True).round(1).tolist()
      [[-1.0, -1.0], [1.0, 1.0]]
    """

    def __init__(self, features: int, *, dtype=None, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(
            features,
            momentum=0.9,
            use_scale=False,
            use_bias=False,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, text: jax.Array, *, train: bool) -> jax.Array:
        """Maps text [B, T] to vectors of the same shape.

        Args:
          train: whether the batch standardises itself.
        """
        return self.norm(text, use_running_average=not train)
