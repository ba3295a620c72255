"""Dropout whose randomness comes with the call."""

import jax
import jax.numpy as jnp


def drop(rngs, x: jax.Array, rate: float, *, caller: str) -> jax.Array:
    """Zeroes each number with a probability and scales up the others.

    Args:
      rngs: with a `dropout` stream; needed unless the rate is 0.
      x: numbers of any shape.
      rate: the probability.
      caller: whom the error names.
    """
    if rate == 0.0:
        return x
    if rngs is None:
        raise ValueError(
            f"{caller}: training needs fresh randomness for its dropout. Call the "
            "model with rngs=nnx.Rngs(dropout=key), in Linen apply it with "
            "rngs={'dropout': key}; another key each step."
        )
    kept = jax.random.bernoulli(rngs.dropout(), 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), 0.0).astype(x.dtype)
