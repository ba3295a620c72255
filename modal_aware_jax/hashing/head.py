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
    """Codes of label probabilities, by a hidden layer that changes nothing before it.

    Three heads on one joint vector [B, D]. `direct` is a dense layer as `HashHead` is,
    and `labels` one to the logits of L labels: their losses train the network. The code
    is of dense, ReLU, dense, and reads the label probabilities alone, as constants. It
    learns to rank as they do (`losses.taught_codes`): what it has to know is a function
    of what it reads, so that it cannot learn the training pairs by heart, as a dense
    layer on the joint vector does. Numbers are in README.

    Args:
      in_features: D.
      num_bits: K.
      num_labels: L.
      features: width of the hidden layer.
      rngs: source of the initial weights.

    Example:
      >>> head = TaughtHashHead(8, 4, num_labels=3, rngs=nnx.Rngs(0))
      >>> joint = jax.numpy.ones((2, 8))
      >>> head(joint).shape, head.direct(joint).shape, head.labels(joint).shape
      ((2, 4), (2, 4), (2, 3))
    """

    def __init__(
        self,
        in_features: int,
        num_bits: int,
        *,
        num_labels: int,
        features: int = 512,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.in_features = in_features
        self.num_bits = num_bits
        self.direct = HashHead(in_features, num_bits, dtype=dtype, rngs=rngs)
        self.labels = label_head(in_features, num_labels, dtype=dtype, rngs=rngs)
        self.hidden = nnx.Linear(num_labels, features, dtype=dtype, rngs=rngs)
        self.code = HashHead(features, num_bits, dtype=dtype, rngs=rngs)

    def __call__(self, joint: jax.Array) -> jax.Array:
        """Maps joint vectors [B, D] to relaxed bits [B, K]; no gradient to `joint`."""
        if joint.shape[-1] != self.in_features:
            raise ValueError(
                f"TaughtHashHead expects [B, {self.in_features}], got {joint.shape}."
            )
        return self.of_labels(self.labels(joint))

    def of_labels(self, logits: jax.Array) -> jax.Array:
        """Maps label logits [B, L] to relaxed bits [B, K]; no gradient to them."""
        probabilities = jax.nn.sigmoid(jax.lax.stop_gradient(logits))
        return self.code(nnx.relu(self.hidden(probabilities)))


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


def label_head_beside(head, in_features: int, num_labels, *, dtype=None, rngs):
    """`label_head` beside a head of codes that has none of its own."""
    if isinstance(head, TaughtHashHead):
        return nnx.data(None)
    return label_head(in_features, num_labels, dtype=dtype, rngs=rngs)


def label_logits(network, joint: jax.Array) -> jax.Array:
    """Logits [B, L] of joint vectors [B, D], by the label head that a network has."""
    own = network.head.labels if network.label_head is None else network.label_head
    return own(joint)
