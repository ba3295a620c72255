"""The dense layer that maps each token of a set."""

from flax import nnx

from modal_aware_jax.cpu.rows import dot_of_rows


def token_dense(in_features: int, out_features: int, **options) -> nnx.Linear:
    """An `nnx.Linear` for tokens [B, S, in_features] to [B, S, out_features].

    Its gradient is quicker on a CPU: see `dot_of_rows`.

    Args:
      in_features, out_features: of a token.
      **options: the other arguments of `nnx.Linear`.

    Example:
      >>> import jax.numpy as jnp
      >>> token_dense(8, 4, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 8))).shape
      (2, 5, 4)
    """
    return nnx.Linear(in_features, out_features, dot_general=dot_of_rows, **options)
