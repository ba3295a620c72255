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


class TaughtHashHead(nnx.Module):
    """Codes by a hidden layer that learns from the network and does not change it.

    Two heads on one joint vector [B, D]. `direct` is a dense layer as `HashHead` is:
    its loss trains the network. The code is of dense, ReLU, dense, which read the same
    vector as a constant: they can follow relevances that the label head predicts
    without bending what predicts them (`losses.soft_relevance`). Told by labels
    alone so free a head learns the training pairs by heart.

    Args:
      in_features: D.
      num_bits: K.
      features: width of the hidden layer.
      rngs: source of the initial weights.

    Example:
      >>> head = TaughtHashHead(8, 4, features=16, rngs=nnx.Rngs(0))
      >>> head(jax.numpy.ones((2, 8))).shape, head.direct(jax.numpy.ones((2, 8))).shape
      ((2, 4), (2, 4))
    """

    def __init__(
        self,
        in_features: int,
        num_bits: int,
        *,
        features: int = 1024,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.in_features = in_features
        self.num_bits = num_bits
        self.direct = HashHead(in_features, num_bits, dtype=dtype, rngs=rngs)
        self.hidden = nnx.Linear(in_features, features, dtype=dtype, rngs=rngs)
        self.code = HashHead(features, num_bits, dtype=dtype, rngs=rngs)

    def __call__(self, joint: jax.Array) -> jax.Array:
        """Maps joint vectors [B, D] to relaxed bits [B, K]; no gradient to `joint`."""
        if joint.shape[-1] != self.in_features:
            raise ValueError(
                f"TaughtHashHead expects [B, {self.in_features}], got {joint.shape}."
            )
        return self.code(nnx.relu(self.hidden(jax.lax.stop_gradient(joint))))


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
