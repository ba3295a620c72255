"""A kernel network whose weights are shared out among an image's positions."""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.blocks.kernel_network import check_pair, position_scores


class PositionKernel(nnx.Module):
    """Moves weight between image positions by their learned similarity to the text.

    With affine maps V and T to R numbers, over the H W positions i of one image:

        image_i <- H W softmax_i(<V f^I_i, T f^T> / sqrt(R)) f^I_i    text <- text

    The first half of the papers' kernel network (arXiv:1911.08479) with weights that
    average one. Plain inner products, or any weight of the whole image or text, scale
    a sample's features as a whole, which cost accuracy on tagged photographs where it
    was measured; what is left is where to look. T starts at zero, all weights at one.

    Args:
      image_features, text_features: C and T.
      rank: inner width R.
      rngs: source of the initial weights.

    Example:
      >>> kernel = PositionKernel(8, 5, rngs=nnx.Rngs(0))
      >>> image, text = kernel(jnp.ones((2, 3, 3, 8)), jnp.ones((2, 5)))
      >>> bool(jnp.allclose(image, 1.0)), text.shape
      (True, (2, 5))
    """

    def __init__(
        self,
        image_features: int,
        text_features: int,
        *,
        rank: int = 128,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.image_features = image_features
        self.text_features = text_features
        self.rank = rank

        self.image_key = nnx.Linear(image_features, rank, dtype=dtype, rngs=rngs)  # V
        zeros = nnx.initializers.zeros
        self.text_query = nnx.Linear(  # T
            text_features, rank, kernel_init=zeros, dtype=dtype, rngs=rngs
        )

    def weights(self, image: jax.Array, text: jax.Array):
        """The weights of positions and text: [B, H, W], of mean one, and ones [B]."""
        check_pair(
            "PositionKernel", image, text, self.image_features, self.text_features
        )
        scores = position_scores(image, self.image_key, self.text_query(text))
        batch, height, width = scores.shape
        shares = nnx.softmax(scores.reshape(batch, -1) / self.rank**0.5)
        weights = shares.reshape(scores.shape) * (height * width)
        return weights, jnp.ones(batch, text.dtype)

    def __call__(self, image: jax.Array, text: jax.Array):
        """Maps image [B, H, W, C] and text [B, T] to arrays of the same shapes."""
        positions, _ = self.weights(image, text)
        return positions[..., None] * image, text
