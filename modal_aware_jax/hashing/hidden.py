"""A hidden layer between the joint vector and the hash head."""

import jax
from flax import nnx


def drop(rngs, x: jax.Array, rate: float) -> jax.Array:
    """Zeroes each number with a probability and scales up the others."""
    if rate == 0.0:
        return x
    kept = jax.random.bernoulli(rngs.dropout(), 1.0 - rate, x.shape)
    return jax.numpy.where(kept, x / (1.0 - rate), 0.0).astype(x.dtype)


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
        if train and rngs is None:
            raise ValueError(
                "HiddenLayer: training needs fresh randomness for its dropout. Call "
                "the model with rngs=nnx.Rngs(dropout=key), another key each step."
            )
        before, after = self.dropout_rates if train else (0.0, 0.0)
        hidden = nnx.relu(self.dense(drop(rngs, joint, before)))
        return drop(rngs, hidden, after)


class NoHiddenLayer(nnx.Module):
    """The papers' network: the hash head reads the joint vector itself."""

    def __init__(self, in_features: int, *, rngs=None):
        del rngs
        self.features = in_features

    def __call__(self, joint: jax.Array, *, train: bool, rngs=None) -> jax.Array:
        """Returns [B, D] unchanged."""
        del train, rngs
        return joint
