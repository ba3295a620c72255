"""From tokens to one vector: functions of tokens [B, S, D] and a mask [B, S]."""

import jax
import jax.numpy as jnp

from modal_aware_jax.blocks.token_attention import masked
from modal_aware_jax.blocks.token_attention import masked_mean as masked_mean


def first_token(tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """The first token, [B, S, D] to [B, D]: the class token of a ViT or of BERT.

    Zeros where the mask leaves it out.

    Example:
      >>> first_token(jax.numpy.array([[[1.0], [3.0]]])).tolist()
      [[1.0]]
    """
    if tokens.shape[1] == 0:
        raise ValueError(f"first_token expects a token or more, got {tokens.shape}.")
    return masked(tokens, mask)[:, 0]


def unit_mean(tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """The mean of the tokens that count, of length one: [B, S, D] to [B, D].

    What sentence encoders such as MiniLM make of their last hidden states. Zeros where
    no token counts.

    Example:
      >>> tokens = jax.numpy.array([[[3.0, 0.0], [3.0, 8.0], [9.0, 9.0]]])
      >>> unit_mean(tokens, jax.numpy.array([[1, 1, 0]])).round(3).tolist()
      [[0.6000000238418579, 0.800000011920929]]
    """
    mean = masked_mean(tokens, mask)
    squared = jnp.sum(jnp.square(mean), axis=-1, keepdims=True)
    some = squared > 0
    return jnp.where(some, mean / jnp.sqrt(jnp.where(some, squared, 1)), 0)
