"""Attention between sets of tokens, of which some may be padding or missing.

A modality that is missing in a row is a set whose tokens are all masked. Attention to
it is zero, everywhere in this package: no NaN, no average over padding.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.token_dense import token_dense


def masked(tokens: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Tokens [B, S, D] with zeros where the mask [B, S] is 0, whatever stood there.

    Example:
      >>> masked(jnp.array([[[1.0], [jnp.nan]]]), jnp.array([[1, 0]])).tolist()
      [[[1.0], [0.0]]]
    """
    if mask is None:
        return tokens
    return jnp.where((mask != 0)[..., None], tokens, jnp.zeros_like(tokens))


def read_tokens(
    caller: str, name: str, tokens: jax.Array, features: int, mask: jax.Array | None
) -> jax.Array:
    """The `masked` tokens of one side, for a network's first layer.

    Args:
      caller: the network, for messages.
      name: of the side there, "image" or "text".
      tokens: [B, n, features]; NaN in the padding would come back by the gradient of
        any layer.
      features: expected.
      mask: [B, n], 0 for padding, or None.

    Raises:
      ValueError: tokens or mask have another shape, or there are no tokens.
    """
    if tokens.ndim != 3 or tokens.shape[2] != features or not tokens.shape[1]:
        raise ValueError(
            f"{caller} expects {name} tokens [B, n, {features}] with n >= 1, got "
            f"{tokens.shape}. A map [B, H, W, C] is tokens after "
            "maps.reshape(B, H * W, C)."
        )
    if mask is not None and jnp.shape(mask) != tokens.shape[:2]:
        raise ValueError(
            f"{caller} expects {name}_mask [B, n] = {tokens.shape[:2]}, got "
            f"{jnp.shape(mask)}: one number a token, 0 for padding."
        )
    return masked(tokens, mask)


def masked_mean(tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """The mean of the tokens that count, [B, S, D] to [B, D]; 0 where none does.

    Example:
      >>> tokens = jnp.array([[[1.0], [3.0], [9.0]], [[1.0], [1.0], [1.0]]])
      >>> masked_mean(tokens, jnp.array([[1, 1, 0], [0, 0, 0]])).tolist()
      [[2.0], [0.0]]
    """
    if mask is None and tokens.shape[1]:
        return tokens.mean(axis=1)
    mask = jnp.ones(tokens.shape[:2], jnp.int32) if mask is None else mask
    count = jnp.sum(mask != 0, axis=1, dtype=jnp.float32)[:, None]
    total = masked(tokens, mask).sum(axis=1, dtype=jnp.float32)
    return (total / jnp.maximum(count, 1)).astype(tokens.dtype)


def has_tokens(tokens: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Which rows have the modality at all: bool [B] of tokens [B, S, D]."""
    if mask is None:
        return jnp.ones(tokens.shape[0], bool)
    return jnp.any(mask != 0, axis=1)


def masked_softmax(scores: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Softmax over the last axis in float32; masked entries are 0, so are empty rows.

    Args:
      scores: [..., M].
      mask: of the same number of axes, broadcast to the scores; 0 leaves out.

    Example:
      >>> masked_softmax(jnp.zeros((2, 3)), jnp.array([[1, 1, 0], [0, 0, 0]])).tolist()
      [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    wide = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    if mask is None:
        return jax.nn.softmax(wide, axis=-1).astype(scores.dtype)
    counts = jnp.broadcast_to(mask != 0, scores.shape)
    # The lowest finite number and not -inf: an empty row must not give inf - inf.
    weights = jax.nn.softmax(jnp.where(counts, wide, jnp.finfo(wide.dtype).min))
    return jnp.where(counts, weights, 0).astype(scores.dtype)


def attend(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    num_heads: int,
    key_mask: jax.Array | None = None,
) -> jax.Array:
    """Multi-head attention, softmax(Q Kᵀ / √d) V with d = D / heads: [B, N, D].

    Args:
      queries: [B, N, D], already projected.
      keys, values: [B, M, D], already projected.
      num_heads: into how many parts of D features each is cut.
      key_mask: [B, M], 0 where a token has no say. A row without any gives zeros.

    Example:
      >>> attend(*(jnp.ones((2, n, 8)) for n in (3, 5, 5)), num_heads=4).shape
      (2, 3, 8)
    """

    def heads(x):
        return x.reshape(*x.shape[:2], num_heads, -1)  # [B, N, heads, d]

    queries, keys, values = heads(queries), heads(keys), heads(values)
    queries = queries * (queries.shape[-1] ** -0.5)
    scores = jnp.einsum("bnhd,bmhd->bhnm", queries, keys)
    mask = None if key_mask is None else key_mask[:, None, None, :]
    weights = masked_softmax(scores, mask)
    mixed = jnp.einsum("bhnm,bmhd->bnhd", weights, values)
    return mixed.reshape(*mixed.shape[:2], -1)


class TokenAttention(nnx.Module):
    """Tokens that ask a context: multi-head attention with its four projections.

    Keys have no bias: it would move all scores of a query alike, which softmax does
    not see.

    Args:
      features: D.
      num_heads: must divide D.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> attention = TokenAttention(8, 2, rngs=nnx.Rngs(0))
      >>> attention(jnp.ones((1, 3, 8)), jnp.ones((1, 5, 8))).shape
      (1, 3, 8)
    """

    def __init__(self, features: int, num_heads: int, *, dtype=None, rngs: nnx.Rngs):
        if num_heads < 1 or features % num_heads:
            raise ValueError(
                f"TokenAttention expects a width that its heads divide, got {features} "
                f"features and {num_heads} heads."
            )

        def dense(use_bias=True):
            return token_dense(
                features, features, use_bias=use_bias, dtype=dtype, rngs=rngs
            )

        self.num_heads = num_heads
        self.query, self.key, self.value = dense(), dense(use_bias=False), dense()
        self.out = dense()

    def __call__(
        self,
        queries: jax.Array,
        context: jax.Array,
        context_mask: jax.Array | None = None,
    ) -> jax.Array:
        """Lets queries [B, N, D] read context [B, M, D]: [B, N, D].

        Args:
          context_mask: [B, M]; a row without context gives zeros, not the bias.
        """
        context = masked(context, context_mask)
        mixed = attend(
            self.query(queries),
            self.key(context),
            self.value(context),
            self.num_heads,
            context_mask,
        )
        found = has_tokens(context, context_mask)[:, None, None]
        return jnp.where(found, self.out(mixed), 0)


def check_tokens(
    caller: str,
    features: int,
    text: jax.Array,
    image: jax.Array,
    text_mask: jax.Array | None = None,
    image_mask: jax.Array | None = None,
) -> None:
    """Raises a ValueError unless text is [B, S, D], image [B, M, D], the masks fit.

    Args:
      caller: the module or function that was called, for the message.
      features: D.
    """
    shapes = jnp.shape(text), jnp.shape(image)
    if (
        any(len(shape) != 3 or shape[2] != features for shape in shapes)
        or 0 in (shapes[0][1], shapes[1][1])
        or shapes[0][0] != shapes[1][0]
    ):
        raise ValueError(
            f"{caller} expects text tokens [B, S, {features}] and image tokens "
            f"[B, M, {features}], got {shapes[0]} and {shapes[1]}. Project both to one "
            f"width first; a map [B, H, W, C] is tokens after "
            f"maps.reshape(B, H * W, C); a missing modality is one masked token."
        )
    check_masks(caller, *shapes, text_mask, image_mask)


def check_masks(caller: str, text_shape, image_shape, text_mask, image_mask) -> None:
    """Raises a ValueError unless masks, where given, have a number for each token.

    Args:
      caller: the module or function that was called, for the message.
      text_shape, image_shape: of the tokens, (B, S, ...) and (B, M, ...).
    """
    for name, shape, mask in (
        ("text_mask [B, S]", text_shape, text_mask),
        ("image_mask [B, M]", image_shape, image_mask),
    ):
        if mask is not None and jnp.shape(mask) != shape[:2]:
            raise ValueError(
                f"{caller} expects {name} = {shape[:2]}, got {jnp.shape(mask)}: one "
                f"number a token, 0 for padding; a missing modality is a row of zeros."
            )
