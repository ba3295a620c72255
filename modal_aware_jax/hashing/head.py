"""The heads: a joint vector to K relaxed bits, and to the labels in training."""

import jax
from flax import nnx


class HashHead(nnx.Module):
    """A dense layer from [B, D] to [B, K] relaxed bits, before tanh and sign.

    Example:
      >>> HashHead(512, 64, rngs=nnx.Rngs(0))(jax.numpy.ones((2, 512))).shape
      (2, 64)
    """

    def __init__(self, in_features: int, num_bits: int, *, dtype=None, rngs: nnx.Rngs):
        if num_bits < 1:
            raise ValueError(f"HashHead expects num_bits >= 1, got {num_bits}.")
        self.in_features = in_features
        self.num_bits = num_bits
        self.dense = nnx.Linear(in_features, num_bits, dtype=dtype, rngs=rngs)

    def __call__(self, joint: jax.Array) -> jax.Array:
        """Maps joint vectors [B, D] to relaxed bits [B, K]."""
        if joint.shape[-1] != self.in_features:
            raise ValueError(
                f"HashHead expects [B, {self.in_features}], got {joint.shape}."
            )
        return self.dense(joint)


def label_head(in_features: int, num_labels: int | None, *, dtype=None, rngs: nnx.Rngs):
    """A second head from [B, D] to the logits of [B, L] labels, for training alone.

    Args:
      in_features: D.
      num_labels: L; without it there is no such head.

    Example:
      >>> label_head(512, 24, rngs=nnx.Rngs(0))(jax.numpy.ones((2, 512))).shape
      (2, 24)
    """
    if not num_labels:
        return nnx.data(None)  # a static None could not become a layer later
    return nnx.Linear(in_features, num_labels, dtype=dtype, rngs=rngs)
