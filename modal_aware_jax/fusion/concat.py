"""Concatenation: the plainest joint vector."""

import jax
import jax.numpy as jnp
from flax import nnx


class Concat(nnx.Module):
    """Joins [B, Da] and [B, Db] into [B, Da + Db], without parameters.

    Example:
      >>> Concat(2, 3)(jnp.ones((1, 2)), jnp.zeros((1, 3))).tolist()
      [[1.0, 1.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, a_features: int, b_features: int, *, rngs=None):
        del rngs
        self.features = a_features + b_features

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Maps [B, Da] and [B, Db] to [B, Da + Db]."""
        return jnp.concatenate([a, b], axis=-1)
