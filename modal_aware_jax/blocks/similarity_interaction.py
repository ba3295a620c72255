"""Similarity interaction: how alike text and image are decides how far they mix.

Source: Zhang et al., SG-MFT (similarity-guided multimodal fusion transformer), its
similarity interaction module. S tokens of text, M of an image, D features:

    modality similarity   P^m = softmax(f_t ∘ f_i)   over D, f the mean of the tokens
    element similarity    P^e = softmax(F_t F_iᵀ)    over M, for each token of the text
    interpolation         X = cross ∘ P^m + self ∘ (1 − P^m)     X^C = LayerNorm(X + F)
    feed-forward          ReLU(X_t^C W_1 + P^e X_i^C W_3 + b_1) W_2 + b_2   of the text

Where this departs from the printed paper: its eq. 9 asks with the *other* modality's
queries, so that an update of M image tokens has as many rows as there are words. That
fits only where S = M. Here the updated modality asks and the other answers, the usual
cross-attention. `AskedByOther` is eq. 9 as printed; the paper has one vector a
modality, S = M = 1, where every attention weight is 1 and no attention attends.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.dropout import drop
from modal_aware_jax.blocks.guided_feed_forward import TextWiseFeedForward
from modal_aware_jax.blocks.token_attention import (
    TokenAttention,
    check_tokens,
    has_tokens,
    masked,
    masked_mean,
    masked_softmax,
)


def modality_similarity(text: jax.Array, image: jax.Array) -> jax.Array:
    """softmax over D of text ∘ image, both [B, D]: the literal P^m, [B, D].

    Its mean is 1 / D, so at D = 512 nearly all of X is self-attention.

    Example:
      >>> modality_similarity(jnp.ones((1, 4)), jnp.ones((1, 4))).tolist()
      [[0.25, 0.25, 0.25, 0.25]]
    """
    _check_vectors("modality_similarity", text, image)
    return masked_softmax(text * image)


def mean_one_similarity(text: jax.Array, image: jax.Array) -> jax.Array:
    """D softmax(text ∘ image), both [B, D]: shares of mean one.

    Not the paper's. A share above one takes more than all of the cross-attention and
    subtracts self-attention.

    Example:
      >>> mean_one_similarity(jnp.ones((1, 4)), jnp.ones((1, 4))).tolist()
      [[1.0, 1.0, 1.0, 1.0]]
    """
    _check_vectors("mean_one_similarity", text, image)
    return masked_softmax(text * image) * text.shape[-1]


def sigmoid_similarity(text: jax.Array, image: jax.Array) -> jax.Array:
    """σ(text ∘ image), both [B, D]: each feature's own share, ½ where one is zero.

    Not the paper's.

    Example:
      >>> sigmoid_similarity(jnp.zeros((1, 2)), jnp.ones((1, 2))).tolist()
      [[0.5, 0.5]]
    """
    _check_vectors("sigmoid_similarity", text, image)
    return jax.nn.sigmoid(text * image)


def _check_vectors(caller, text, image):
    if text.ndim != 2 or text.shape != image.shape:
        raise ValueError(
            f"{caller} expects a text and an image vector [B, D] of one width, got "
            f"{text.shape} and {image.shape}. Pool tokens first: masked_mean(tokens)."
        )


def element_similarity(
    text: jax.Array, image: jax.Array, image_mask: jax.Array | None = None
) -> jax.Array:
    """softmax over M of F_t F_iᵀ: how much each word has of each image token.

    Literal, without a scale: tokens of large norm give nearly one-hot rows.

    Args:
      text: [B, S, D].
      image: [B, M, D].
      image_mask: [B, M], 0 for padding; a row without an image gives zeros.

    Returns:
      [B, S, M], rows that sum to 1.

    Example:
      >>> text, image = jnp.ones((1, 2, 3)), jnp.ones((1, 4, 3))
      >>> element_similarity(text, image, jnp.array([[1, 1, 0, 0]]))[0, 0].tolist()
      [0.5, 0.5, 0.0, 0.0]
    """
    features = text.shape[-1]
    check_tokens("element_similarity", features, text, image, None, image_mask)
    scores = jnp.einsum("bsd,bmd->bsm", text, masked(image, image_mask))
    return masked_softmax(scores, None if image_mask is None else image_mask[:, None])


def interpolate(cross: jax.Array, own: jax.Array, share: jax.Array) -> jax.Array:
    """cross ∘ share + own ∘ (1 − share).

    Args:
      cross, own: what was read from the other modality and from the own, [..., D].
      share: of the same shape, or [B, D] for tokens [B, S, D].

    Example:
      >>> interpolate(jnp.array([1.0]), jnp.array([0.0]), jnp.array([0.25])).tolist()
      [0.25]
    """
    if share.ndim == 2 and cross.ndim == 3:
        share = share[:, None, :]
    return cross * share + own * (1 - share)


class AskingOther(nnx.Module):
    """Cross-attention: queries of the updated modality, keys and values of the other.

    Args:
      features: D.
      num_heads: must divide D.
      rngs: source of the initial weights.
    """

    def __init__(self, features: int, num_heads: int, *, dtype=None, rngs: nnx.Rngs):
        self.attention = TokenAttention(features, num_heads, dtype=dtype, rngs=rngs)

    def __call__(self, own, other, own_mask=None, other_mask=None) -> jax.Array:
        """Own tokens [B, N, D] read the other's [B, M, D]: [B, N, D]."""
        del own_mask
        return self.attention(own, other, other_mask)


class AskedByOther(nnx.Module):
    """Eq. 9 as printed: queries of the other modality, keys and values of the own.

    The result has a row for each query, so it can be added to the own tokens only where
    both modalities have equally many. With one vector each (pooled tokens) its single
    weight is 1: it is a linear map of the own vector, and of the other modality it sees
    nothing; queries and keys get no gradient.

    Args:
      features: D.
      num_heads: must divide D.
      rngs: source of the initial weights.
    """

    def __init__(self, features: int, num_heads: int, *, dtype=None, rngs: nnx.Rngs):
        self.attention = TokenAttention(features, num_heads, dtype=dtype, rngs=rngs)

    def __call__(self, own, other, own_mask=None, other_mask=None) -> jax.Array:
        """The other's tokens [B, N, D] read the own [B, N, D]: [B, N, D].

        Rows whose query is padding are zeros.
        """
        if own.shape != other.shape:
            raise ValueError(
                f"AskedByOther, eq. 9 as printed, expects as many tokens of text as of "
                f"the image, got {own.shape} and {other.shape}. Pool both to one "
                f"vector, [B, 1, D], or use AskingOther."
            )
        return masked(self.attention(other, own, own_mask), other_mask)


class SimilarityInteraction(nnx.Module):
    """Text and image tokens that read each other as far as they are alike.

    See the top of this file for the equations and for where they depart from the paper.

    Padding has no say: what stands in a masked token changes nothing, and its result is
    zero. Where a row lacks a modality the other's share is 0: it keeps its
    self-attention alone, and its feed-forward is a plain one.

    Args:
      features: D of both modalities.
      num_heads: of each attention; must divide D. The paper's is 8.
      hidden_features: width of the feed-forwards.
      share: P^m as a function of the mean tokens, [B, D] twice to [B, D]:
        `modality_similarity` (literal), `mean_one_similarity`, `sigmoid_similarity`.
      cross: constructor `(features, num_heads, *, dtype, rngs)` of the attention
        between the modalities: `AskingOther`, or eq. 9 as printed, `AskedByOther`.
      feed_forward: constructor `(features, hidden_features, *, dtype, rngs)`:
        `TextWiseFeedForward` (the paper's), or its Table 4's `ImageWiseFeedForward`.
      dropout_rate: on what attention and feed-forward add, in training.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> interact = SimilarityInteraction(8, 2, 16, rngs=nnx.Rngs(0))
      >>> text, image = interact(jnp.ones((1, 3, 8)), jnp.ones((1, 5, 8)))
      >>> text.shape, image.shape
      ((1, 3, 8), (1, 5, 8))
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        hidden_features: int,
        *,
        share=modality_similarity,
        cross=AskingOther,
        feed_forward=TextWiseFeedForward,
        dropout_rate: float = 0.0,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def norm():
            return nnx.LayerNorm(features, dtype=dtype, rngs=rngs)

        self.features = features
        self.share = share
        self.dropout_rate = dropout_rate
        self.text_self = TokenAttention(features, num_heads, dtype=dtype, rngs=rngs)
        self.image_self = TokenAttention(features, num_heads, dtype=dtype, rngs=rngs)
        self.text_cross = cross(features, num_heads, dtype=dtype, rngs=rngs)
        self.image_cross = cross(features, num_heads, dtype=dtype, rngs=rngs)
        self.text_norm, self.image_norm = norm(), norm()
        self.feed_forward = feed_forward(
            features, hidden_features, dtype=dtype, rngs=rngs
        )
        self.text_out_norm, self.image_out_norm = norm(), norm()

    def shares(self, text, image, text_mask=None, image_mask=None) -> jax.Array:
        """P^m [B, D] of tokens [B, S, D] and [B, M, D]; 0 where a modality lacks."""
        share = self.share(masked_mean(text, text_mask), masked_mean(image, image_mask))
        both = has_tokens(text, text_mask) & has_tokens(image, image_mask)
        return jnp.where(both[:, None], share, 0)

    def __call__(
        self,
        text: jax.Array,
        image: jax.Array,
        *,
        text_mask: jax.Array | None = None,
        image_mask: jax.Array | None = None,
        train: bool = False,
        rngs=None,
    ) -> tuple[jax.Array, jax.Array]:
        """Maps text [B, S, D] and image [B, M, D] to arrays of the same shapes.

        Args:
          text_mask: [B, S], 0 for padding.
          image_mask: [B, M], 0 for padding.
          train: whether dropout drops.
          rngs: with a `dropout` stream; needed in training with dropout.
        """
        caller = type(self).__name__
        check_tokens(caller, self.features, text, image, text_mask, image_mask)
        rate = self.dropout_rate if train else 0.0
        # Before any layer: a NaN in the padding would come back by the gradient.
        text, image = masked(text, text_mask), masked(image, image_mask)

        share = self.shares(text, image, text_mask, image_mask)
        text_mixed = interpolate(
            self.text_cross(text, image, text_mask, image_mask),
            self.text_self(text, text, text_mask),
            share,
        )
        image_mixed = interpolate(
            self.image_cross(image, text, image_mask, text_mask),
            self.image_self(image, image, image_mask),
            share,
        )
        text_mixed = drop(rngs, text_mixed, rate, caller=caller)
        image_mixed = drop(rngs, image_mixed, rate, caller=caller)
        text_aware = self.text_norm(text_mixed + text)  # X_t^C
        image_aware = self.image_norm(image_mixed + image)  # X_i^C

        text_added, image_added = self.feed_forward(
            text_aware,
            image_aware,
            element_similarity(text, image, image_mask),
            element_similarity(image, text, text_mask),
        )
        text_added = drop(rngs, text_added, rate, caller=caller)
        image_added = drop(rngs, image_added, rate, caller=caller)
        return (
            masked(self.text_out_norm(text_aware + text_added), text_mask),
            masked(self.image_out_norm(image_aware + image_added), image_mask),
        )
