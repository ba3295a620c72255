"""From tokens to one vector: functions of tokens [B, S, D] and a mask [B, S]."""

import jax

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
