"""A hidden layer between the joint vector and the hash head."""

import jax
from flax import nnx

from modal_aware_jax.backbones.dropout import drop


class HiddenLayer(nnx.Module):
    """Dropout, dense, ReLU, dropout: [B, D] to [B, features].

    The papers go from the joint vector to the bits in one dense layer. On 10,000 pairs
    with a frozen backbone a regularised layer between them generalises better.

    Args:
      in_features: D.
      features: width of the layer.
      dropout_rates: before the dense layer and after the ReLU.
      rngs: source of the initial weights.
    """

    def __init__(
        self,
        in_features: int,
        *,
        features: int = 512,
        dropout_rates: tuple[float, float] = (0.5, 0.2),
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.features = features
        self.dropout_rates = dropout_rates
        self.dense = nnx.Linear(in_features, features, dtype=dtype, rngs=rngs)

    def __call__(self, joint: jax.Array, *, train: bool, rngs=None) -> jax.Array:
        """Maps joint vectors [B, D] to [B, features].

        Args:
          rngs: with a `dropout` stream; needed in training.
        """
        before, after = self.dropout_rates if train else (0.0, 0.0)
        caller = type(self).__name__
        hidden = nnx.relu(self.dense(drop(rngs, joint, before, caller=caller)))
        return drop(rngs, hidden, after, caller=caller)


class NoHiddenLayer(nnx.Module):
    """The papers' network: the hash head reads the joint vector itself."""

    def __init__(self, in_features: int, *, rngs=None):
        del rngs
        self.features = in_features

    def __call__(self, joint: jax.Array, *, train: bool, rngs=None) -> jax.Array:
        """Returns [B, D] unchanged."""
        del train, rngs
        return joint
