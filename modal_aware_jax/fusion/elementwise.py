"""Sum and element-wise product of the two modalities, each projected first."""

import jax
from flax import nnx

from modal_aware_jax.fusion.concat import check_vectors


class ElementwiseSum(nnx.Module):
    """W_a a + W_b b + bias: [B, Da] and [B, Db] to [B, features].

    The same functions as a dense layer on the concatenation.

    Args:
      a_features: Da.
      b_features: Db.
      features: width of the result.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> a, b = jax.numpy.ones((4, 512)), jax.numpy.ones((4, 300))
      >>> ElementwiseSum(512, 300, 256, rngs=nnx.Rngs(0))(a, b).shape
      (4, 256)
    """

    def __init__(
        self,
        a_features: int,
        b_features: int,
        features: int,
        *,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.a_features = a_features
        self.b_features = b_features
        self.features = features
        self.a_dense = nnx.Linear(a_features, features, dtype=dtype, rngs=rngs)
        self.b_dense = nnx.Linear(
            b_features, features, use_bias=False, dtype=dtype, rngs=rngs
        )

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Fuses a [B, Da] with b [B, Db] into [B, features]."""
        check_vectors("ElementwiseSum", self.a_features, self.b_features, a, b)
        return self.a_dense(a) + self.b_dense(b)


class ElementwiseProduct(nnx.Module):
    """(W_a a + b_a) ∘ (W_b b + b_b): [B, Da] and [B, Db] to [B, features].

    The biases let either modality pass alone; `LowRankBilinear` adds the
    nonlinearities and the output projection of MLB.

    Args:
      a_features: Da.
      b_features: Db.
      features: width of the result.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> a, b = jax.numpy.ones((4, 512)), jax.numpy.ones((4, 300))
      >>> ElementwiseProduct(512, 300, 256, rngs=nnx.Rngs(0))(a, b).shape
      (4, 256)
    """

    def __init__(
        self,
        a_features: int,
        b_features: int,
        features: int,
        *,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.a_features = a_features
        self.b_features = b_features
        self.features = features
        self.a_dense = nnx.Linear(a_features, features, dtype=dtype, rngs=rngs)
        self.b_dense = nnx.Linear(b_features, features, dtype=dtype, rngs=rngs)

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Fuses a [B, Da] with b [B, Db] into [B, features]."""
        check_vectors("ElementwiseProduct", self.a_features, self.b_features, a, b)
        return self.a_dense(a) * self.b_dense(b)
