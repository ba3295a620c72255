"""Concatenation: the baseline every fusion is compared with."""

import jax
import jax.numpy as jnp
from flax import nnx


def check_vectors(caller: str, a_features: int, b_features: int, a, b) -> None:
    """Raises a ValueError unless a is [B, Da] and b is [B, Db].

    Args:
      caller: the module that was called, for the message.
      a_features: Da.
      b_features: Db.
      a: the first modality.
      b: the second modality.
    """
    if (
        a.ndim != 2
        or b.ndim != 2
        or a.shape != (b.shape[0], a_features)
        or b.shape[1] != b_features
    ):
        raise ValueError(
            f"{caller} expects vectors [B, {a_features}] and [B, {b_features}], got "
            f"{a.shape} and {b.shape}. Image maps are pooled first: "
            f"maps.mean(axis=(1, 2))."
        )


class Concat(nnx.Module):
    """Concatenates [B, Da] with [B, Db] into [B, Da + Db]. Has no weights.

    Args:
      a_features: Da.
      b_features: Db.
      rngs: not used; accepted so that all fusions are built alike.

    Attributes:
      features: width of the result, Da + Db.

    Example:
      >>> a, b = jax.numpy.ones((4, 512)), jax.numpy.ones((4, 300))
      >>> Concat(512, 300)(a, b).shape
      (4, 812)
    """

    def __init__(
        self, a_features: int, b_features: int, *, rngs: nnx.Rngs | None = None
    ):
        self.a_features = a_features
        self.b_features = b_features
        self.features = a_features + b_features

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Fuses a [B, Da] with b [B, Db] into [B, Da + Db]."""
        check_vectors("Concat", self.a_features, self.b_features, a, b)
        return jnp.concatenate([a, b], axis=-1)
