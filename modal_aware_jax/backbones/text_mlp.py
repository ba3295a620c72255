"""The text branch: a bag of words through two dense layers."""

import jax
from flax import nnx


class TextMLP(nnx.Module):
    """Text [B, T] to a wide vector after ReLU, and that to a narrow one.

    The two steps are called apart: in `MultimodalHashing` a block stands between them.

    Source: Zeng et al., "Modal-aware Features for Multimodal Hashing"
    (arXiv:1911.08479), Fig. 5; its weights start from N(0, 0.01^2).

    Args:
      text_features: T.
      widths: features of the wide and of the narrow vector.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> text = TextMLP(100, (64, 16), rngs=nnx.Rngs(0))
      >>> text(jax.numpy.ones((2, 100))).shape
      (2, 16)
    """

    def __init__(
        self,
        text_features: int,
        widths: tuple[int, int] = (8192, 512),
        *,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def dense(inputs, outputs):
            init = nnx.initializers.normal(0.01)
            return nnx.Linear(inputs, outputs, kernel_init=init, dtype=dtype, rngs=rngs)

        self.text_features = text_features
        self.wide_features, self.narrow_features = widths
        self.dense_wide = dense(text_features, self.wide_features)
        self.dense_narrow = dense(self.wide_features, self.narrow_features)

    def wide(self, text: jax.Array) -> jax.Array:
        """Maps text [B, T] to the wide vector, after ReLU."""
        if text.ndim != 2 or text.shape[-1] != self.text_features:
            raise ValueError(
                f"TextMLP expects text [B, {self.text_features}], got {text.shape}."
            )
        return nnx.relu(self.dense_wide(text))

    def narrow(self, wide: jax.Array) -> jax.Array:
        """Maps the wide vector to the narrow one, without ReLU."""
        return self.dense_narrow(wide)

    def __call__(self, text: jax.Array) -> jax.Array:
        """Maps text [B, T] to the narrow vector."""
        return self.narrow(self.wide(text))
