"""From the last image maps to one vector: what fusion joins with the text."""

import jax
from flax import nnx

from modal_aware_jax.backbones.dropout import drop


def mean_over_positions(maps: jax.Array) -> jax.Array:
    """The mean of maps [B, H, W, C] over positions: [B, C].

    Raises:
      ValueError: there are no positions, whose mean would be NaN.

    Example:
      >>> mean_over_positions(jax.numpy.ones((1, 2, 2, 3))).tolist()
      [[1.0, 1.0, 1.0]]
    """
    if maps.ndim != 4 or not maps.shape[1] * maps.shape[2]:
        raise ValueError(
            "mean_over_positions expects maps [B, H, W, C] with at least one position, "
            f"got {maps.shape}. Give larger images where H or W is 0."
        )
    return maps.mean(axis=(1, 2))


class MeanVector(nnx.Module):
    """The papers' network: the mean over positions, [B, H, W, C] to [B, C]."""

    reads_mean = True  # and nothing else of the maps

    def __init__(self, in_features: int, *, rngs=None):
        del rngs
        self.features = in_features

    def __call__(self, maps: jax.Array, *, train: bool, rngs=None) -> jax.Array:
        """Means of maps [B, H, W, C] over positions: [B, C]."""
        del train, rngs
        return mean_over_positions(maps)


class DenseVector(nnx.Module):
    """Mean over positions, standardised, dropout, dense, ReLU: to [B, features].

    The channels of a pretrained backbone differ in scale by orders of magnitude, and
    the text has two dense layers where the image has none. Standardised by the batch
    in training and by running averages in evaluation, and with a layer of its own, the
    image's vector generalises better (numbers in the README).

    Args:
      in_features: C.
      features: width of the layer.
      dropout_rate: of the standardised channels.
      rngs: source of the initial weights.

    Example:
      >>> vector = DenseVector(8, features=4, rngs=nnx.Rngs(0))
      >>> vector(jax.numpy.ones((2, 3, 3, 8)), train=False).shape
      (2, 4)
    """

    reads_mean = True

    def __init__(
        self,
        in_features: int,
        *,
        features: int = 1024,
        dropout_rate: float = 0.3,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.features = features
        self.dropout_rate = dropout_rate
        self.norm = nnx.BatchNorm(
            in_features, momentum=0.9, use_scale=False, use_bias=False, rngs=rngs
        )
        self.dense = nnx.Linear(in_features, features, dtype=dtype, rngs=rngs)

    def __call__(self, maps: jax.Array, *, train: bool, rngs=None) -> jax.Array:
        """Maps [B, H, W, C] to vectors [B, features].

        Args:
          train: whether the batch standardises itself, and channels are dropped.
          rngs: with a `dropout` stream; needed in training.
        """
        pooled = self.norm(mean_over_positions(maps), use_running_average=not train)
        rate = self.dropout_rate if train else 0.0
        caller = type(self).__name__
        return nnx.relu(self.dense(drop(rngs, pooled, rate, caller=caller)))
