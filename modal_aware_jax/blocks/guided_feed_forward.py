"""Feed-forwards of the similarity interaction: one modality is guided by the other.

Source: Zhang et al., SG-MFT, the similarity-aware feed-forward and its Table 4.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.token_dense import token_dense


class FeedForward(nnx.Module):
    """ReLU(x W_1 + b_1) W_2 + b_2 for each token: [B, S, D] to [B, S, D].

    Args:
      features: D.
      hidden_features: width of the inner layer.
      dtype: of the computation.
      rngs: source of the initial weights.
    """

    def __init__(
        self, features: int, hidden_features: int, *, dtype=None, rngs: nnx.Rngs
    ):
        self.inner = token_dense(features, hidden_features, dtype=dtype, rngs=rngs)
        self.outer = token_dense(hidden_features, features, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens [B, S, D] to [B, S, D]."""
        return self.outer(nnx.relu(self.inner(tokens)))


class GuidedFeedForward(nnx.Module):
    """ReLU(x W_1 + (P y) W_3 + b_1) W_2 + b_2: each token beside what is like it.

    Args:
      features: D.
      hidden_features: width of the inner layer.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> guided = GuidedFeedForward(4, 8, rngs=nnx.Rngs(0))
      >>> x, y, p = jnp.ones((1, 3, 4)), jnp.ones((1, 5, 4)), jnp.full((1, 3, 5), 0.2)
      >>> guided(x, y, p).shape
      (1, 3, 4)
    """

    def __init__(
        self, features: int, hidden_features: int, *, dtype=None, rngs: nnx.Rngs
    ):
        self.inner = token_dense(features, hidden_features, dtype=dtype, rngs=rngs)
        self.guide = token_dense(
            features, hidden_features, use_bias=False, dtype=dtype, rngs=rngs
        )
        self.outer = token_dense(hidden_features, features, dtype=dtype, rngs=rngs)

    def __call__(
        self, tokens: jax.Array, others: jax.Array, similarity: jax.Array
    ) -> jax.Array:
        """Maps tokens [B, S, D] to [B, S, D].

        Args:
          tokens: x.
          others: y, [B, M, D].
          similarity: P, [B, S, M]; rows of zeros give the plain feed-forward.
        """
        alike = jnp.einsum("bsm,bmd->bsd", similarity, others)
        return self.outer(nnx.relu(self.inner(tokens) + self.guide(alike)))


class TextWiseFeedForward(nnx.Module):
    """The paper's: the text is guided by the image, the image has a plain one.

    Args:
      features: D.
      hidden_features: width of the inner layers.
      dtype: of the computation.
      rngs: source of the initial weights.
    """

    def __init__(
        self, features: int, hidden_features: int, *, dtype=None, rngs: nnx.Rngs
    ):
        self.text = GuidedFeedForward(features, hidden_features, dtype=dtype, rngs=rngs)
        self.image = FeedForward(features, hidden_features, dtype=dtype, rngs=rngs)

    def __call__(self, text, image, text_similarity, image_similarity):
        """Maps text [B, S, D] and image [B, M, D] to what is added to each.

        Args:
          text_similarity: [B, S, M], rows over the image's tokens.
          image_similarity: [B, M, S], rows over the text's tokens; not read.
        """
        del image_similarity
        return self.text(text, image, text_similarity), self.image(image)


class ImageWiseFeedForward(nnx.Module):
    """Table 4's other form: the image is guided by the text, the text has a plain one.

    Args:
      features: D.
      hidden_features: width of the inner layers.
      dtype: of the computation.
      rngs: source of the initial weights.
    """

    def __init__(
        self, features: int, hidden_features: int, *, dtype=None, rngs: nnx.Rngs
    ):
        self.text = FeedForward(features, hidden_features, dtype=dtype, rngs=rngs)
        self.image = GuidedFeedForward(
            features, hidden_features, dtype=dtype, rngs=rngs
        )

    def __call__(self, text, image, text_similarity, image_similarity):
        """Maps text [B, S, D] and image [B, M, D] to what is added to each.

        Args:
          text_similarity: [B, S, M], rows over the image's tokens; not read.
          image_similarity: [B, M, S], rows over the text's tokens.
        """
        del text_similarity
        return self.text(text), self.image(image, text, image_similarity)
