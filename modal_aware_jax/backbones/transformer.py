"""The layers of every transformer here: attention, feed-forward, and the two blocks.

A. Vaswani et al.: Attention is all you need, NeurIPS 2017 (arXiv:1706.03762).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.dropout import drop
from modal_aware_jax.backbones.token_dense import token_dense


def gelu(x: jax.Array) -> jax.Array:
    """x·Φ(x) by the error function (arXiv:1606.08415), as BERT, ViT and OpenCLIP.

    `jax.nn.gelu` takes erfc, which costs twice as much on a CPU.

    >>> float(gelu(jax.numpy.array(0.0)))
    0.0
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # 1 + erf cancels
    return (0.5 * wide * (1 + jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


def gelu_tanh(x: jax.Array) -> jax.Array:
    """The tanh approximation of `gelu`, as SigLIP."""
    return jax.nn.gelu(x, approximate=True)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x·sigmoid(1.702 x), the approximation of `gelu` that OpenAI's CLIP uses.

    >>> float(quick_gelu(jax.numpy.array(0.0)))
    0.0
    """
    return x * jax.nn.sigmoid(1.702 * x)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    num_heads: int,
    mask: jax.Array | None = None,
    is_causal: bool = False,
    implementation: str | None = None,
) -> jax.Array:
    """softmax(QKᵀ/√d)V of each head, the heads side by side.

    Args:
      query: [B, Q, D].
      key: [B, S, D].
      value: [B, S, D].
      num_heads: each reads D / num_heads = d features.
      mask: bool [B, S], False on keys that nobody may read; None reads all. Where all
        of a row's keys are hidden its values are averaged evenly: no NaN.
      is_causal: position q reads only the keys 0..q.
      implementation: of `jax.nn.dot_product_attention`; 'cudnn' takes the flash
        kernels of NVIDIA's GPUs (bfloat16 or float16).

    Returns:
      [B, Q, D].

    >>> ones = jax.numpy.ones((1, 2, 4))
    >>> attend(ones, ones, ones, num_heads=2).shape
    (1, 2, 4)
    """

    def heads(x):
        return x.reshape(*x.shape[:2], num_heads, -1)  # [B, S, heads, d]

    mixed = jax.nn.dot_product_attention(
        heads(query),
        heads(key),
        heads(value),
        mask=None if mask is None else mask.astype(bool)[:, None, None, :],
        is_causal=is_causal,
        implementation=implementation,
    )
    return mixed.reshape(query.shape)


class Attention(nnx.Module):
    """Multi-head attention with its four dense layers.

    Args:
      features: D.
      num_heads: a divisor of D.
      implementation: see `attend`.
      dtype: of the computation.
      rngs: source of the initial weights.
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        *,
        implementation: str | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        if features % num_heads:
            raise ValueError(
                f"Attention: {features} features cannot be split into {num_heads} "
                "heads. Take a number of heads that divides the features."
            )
        self.num_heads = num_heads
        self.implementation = implementation

        def dense():
            return token_dense(features, features, dtype=dtype, rngs=rngs)

        self.query, self.key, self.value, self.output = (dense() for _ in range(4))

    def __call__(
        self,
        readers: jax.Array,
        tokens: jax.Array,
        mask: jax.Array | None = None,
        *,
        is_causal: bool = False,
    ) -> jax.Array:
        """What each of the readers [B, Q, D] takes from tokens [B, S, D]: [B, Q, D]."""
        mixed = attend(
            self.query(readers),
            self.key(tokens),
            self.value(tokens),
            num_heads=self.num_heads,
            mask=mask,
            is_causal=is_causal,
            implementation=self.implementation,
        )
        return self.output(mixed)


class FeedForward(nnx.Module):
    """Two dense layers on each token: [B, S, D] to [B, S, D]."""

    def __init__(
        self,
        features: int,
        hidden_features: int,
        *,
        activation=gelu,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.activation = activation
        self.inner = token_dense(features, hidden_features, dtype=dtype, rngs=rngs)
        self.outer = token_dense(hidden_features, features, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens [B, S, D] one by one."""
        return self.outer(self.activation(self.inner(tokens)))


def layer_norm(features, *, epsilon, dtype, rngs) -> nnx.LayerNorm:
    """The norm of these transformers: the variance in two passes, as PyTorch's."""
    return nnx.LayerNorm(
        features, epsilon=epsilon, use_fast_variance=False, dtype=dtype, rngs=rngs
    )


class PreNormBlock(nnx.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): ViT's and CLIP's block.

    Args:
      features: D.
      num_heads: of the attention.
      hidden_features: of the feed-forward layer.
      activation: `gelu`, `gelu_tanh` or `quick_gelu`.
      epsilon: of the layer norms.
      dropout_rate: of what is added, in training.
      implementation: see `attend`.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> def mixed(tokens):
      ...     return PreNormBlock(8, 2, 16, rngs=nnx.Rngs(0))(tokens)
      >>> jax.eval_shape(mixed, jax.numpy.ones((1, 3, 8))).shape
      (1, 3, 8)
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        hidden_features: int,
        *,
        activation=gelu,
        epsilon: float = 1e-6,
        dropout_rate: float = 0.0,
        implementation: str | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.dropout_rate = dropout_rate
        typed = {"dtype": dtype, "rngs": rngs}
        self.attention_norm = layer_norm(features, epsilon=epsilon, **typed)
        self.attention = Attention(
            features, num_heads, implementation=implementation, **typed
        )
        self.feed_forward_norm = layer_norm(features, epsilon=epsilon, **typed)
        self.feed_forward = FeedForward(
            features, hidden_features, activation=activation, **typed
        )

    def __call__(
        self,
        tokens: jax.Array,
        mask: jax.Array | None = None,
        *,
        is_causal: bool = False,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Maps tokens [B, S, D], of which mask [B, S] hides some from all."""
        rate, caller = self.dropout_rate if train else 0.0, type(self).__name__
        normed = self.attention_norm(tokens)
        mixed = self.attention(normed, normed, mask, is_causal=is_causal)
        tokens = tokens + drop(rngs, mixed, rate, caller=caller)
        inner = self.feed_forward(self.feed_forward_norm(tokens))
        return tokens + drop(rngs, inner, rate, caller=caller)


class PostNormBlock(nnx.Module):
    """norm(x + attention(x)), then norm(x + feed_forward(x)): BERT's block.

    The arguments are those of `PreNormBlock`.

    Example:
      >>> def mixed(tokens):
      ...     return PostNormBlock(8, 2, 16, rngs=nnx.Rngs(0))(tokens)
      >>> jax.eval_shape(mixed, jax.numpy.ones((1, 3, 8))).shape
      (1, 3, 8)
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        hidden_features: int,
        *,
        activation=gelu,
        epsilon: float = 1e-12,
        dropout_rate: float = 0.0,
        implementation: str | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.dropout_rate = dropout_rate
        typed = {"dtype": dtype, "rngs": rngs}
        self.attention = Attention(
            features, num_heads, implementation=implementation, **typed
        )
        self.attention_norm = layer_norm(features, epsilon=epsilon, **typed)
        self.feed_forward = FeedForward(
            features, hidden_features, activation=activation, **typed
        )
        self.feed_forward_norm = layer_norm(features, epsilon=epsilon, **typed)

    def __call__(
        self,
        tokens: jax.Array,
        mask: jax.Array | None = None,
        *,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Maps tokens [B, S, D], of which mask [B, S] hides some from all."""
        rate, caller = self.dropout_rate if train else 0.0, type(self).__name__
        mixed = self.attention(tokens, tokens, mask)
        tokens = self.attention_norm(tokens + drop(rngs, mixed, rate, caller=caller))
        inner = drop(rngs, self.feed_forward(tokens), rate, caller=caller)
        return self.feed_forward_norm(tokens + inner)
