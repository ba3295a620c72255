"""Learned features in place of a modality that is not there."""

import jax
import jax.numpy as jnp
from flax import nnx


def stand_in_where_missing(
    features: jax.Array, vector: jax.Array, present: jax.Array | None
) -> jax.Array:
    """Puts one vector in place of the features of rows that lack the modality.

    What the features of such a row hold is read nowhere, be it NaN.

    Args:
      features: [B, ..., D], such as maps [B, H, W, C] or text [B, T].
      vector: [D].
      present: bool [B]; None: every row has the modality.

    Returns:
      [B, ..., D].

    Raises:
      ValueError: the shapes do not fit together.

    Example:
      >>> features, vector = jnp.ones((2, 3)), jnp.zeros(3)
      >>> stand_in_where_missing(features, vector, jnp.array([True, False])).tolist()
      [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    if features.shape[-1:] != vector.shape:
        raise ValueError(
            f"stand_in_where_missing: expected features [B, ..., {len(vector)}], got "
            f"{features.shape}."
        )
    if present is None:
        return features
    if jnp.shape(present) != features.shape[:1]:
        raise ValueError(
            f"stand_in_where_missing: expected a mask [{len(features)}] of the rows "
            f"that have the modality, got {jnp.shape(present)}."
        )
    axes = tuple(range(1, features.ndim))
    rows = jnp.expand_dims(jnp.asarray(present, bool), axes)
    vector = jnp.expand_dims(vector, tuple(range(features.ndim - 1)))
    return jnp.where(rows, features, vector.astype(features.dtype))


class StandIn(nnx.Module):
    """A learned vector in place of features [B, ..., D] where a row has none.

    A grey picture or an empty bag is an input like any other, of which nothing was
    learned; a stand-in is learned from rows whose modality was taken away in training,
    and can say "unknown".

    Args:
      features: D.
      rngs: not needed: the vector starts at zero.

    Example:
      >>> stand_in = StandIn(4, rngs=nnx.Rngs(0))
      >>> maps = jnp.ones((2, 3, 3, 4))
      >>> stand_in(maps, jnp.array([False, True])).mean(axis=(1, 2, 3)).tolist()
      [0.0, 1.0]
    """

    def __init__(self, features: int, *, rngs=None):
        del rngs
        self.vector = nnx.Param(jnp.zeros(features))

    def __call__(self, features: jax.Array, present: jax.Array | None) -> jax.Array:
        """See `stand_in_where_missing`."""
        return stand_in_where_missing(features, self.vector[...], present)


class NoStandIn(nnx.Module):
    """The papers' network: whatever the input holds is read."""

    def __init__(self, features: int, *, rngs=None):
        del features, rngs

    def __call__(self, features: jax.Array, present: jax.Array | None) -> jax.Array:
        """Returns the features unchanged."""
        del present
        return features
