"""TextCNN: windows of words, and of each filter the window it likes best.

Source: Kim, "Convolutional Neural Networks for Sentence Classification"
(arXiv:1408.5882).
"""

import jax
import jax.numpy as jnp
from flax import nnx


class TextCNN(nnx.Module):
    """Convolutions over tokens, ReLU, maximum over positions: [B, S, D] to [B, F].

    Padding is zeros, as beyond the ends of the text, and is nobody's maximum. A row
    without tokens gives zeros.

    Args:
      in_features: D.
      widths: of the windows in tokens; 3, 4 and 5 in the paper.
      features_per_width: filters of each width; 100 in the paper.
      dtype: of the computation.
      rngs: source of the initial weights.

    Attributes:
      features: F, filters of all widths.

    Example:
      >>> TextCNN(8, rngs=nnx.Rngs(0))(jnp.ones((2, 6, 8))).shape
      (2, 300)
    """

    def __init__(
        self,
        in_features: int,
        *,
        widths: tuple[int, ...] = (3, 4, 5),
        features_per_width: int = 100,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.in_features = in_features
        self.features = len(widths) * features_per_width
        self.convolutions = nnx.List(
            nnx.Conv(in_features, features_per_width, (width,), dtype=dtype, rngs=rngs)
            for width in widths
        )

    def __call__(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Maps tokens [B, S, D] to [B, F].

        Args:
          mask: [B, S], 0 for padding.
        """
        if tokens.ndim != 3 or tokens.shape[2] != self.in_features:
            raise ValueError(
                f"TextCNN expects tokens [B, S, {self.in_features}], got "
                f"{tokens.shape}."
            )
        counts = jnp.ones(tokens.shape[:2], bool) if mask is None else mask != 0
        tokens = jnp.where(counts[..., None], tokens, 0)
        # ReLU's least is 0, so a 0 in the padding takes nothing from any maximum.
        best = [
            jnp.max(jnp.where(counts[..., None], nnx.relu(convolve(tokens)), 0), axis=1)
            for convolve in self.convolutions
        ]
        return jnp.concatenate(best, axis=-1)
