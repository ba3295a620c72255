"""Low-rank bilinear pooling: every output is a bilinear form of small rank.

MLB (Kim et al., arXiv:1610.04325) and MFB (Yu et al., arXiv:1708.01471).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.fusion.compact_bilinear import l2_normalize, signed_sqrt
from modal_aware_jax.fusion.concat import check_vectors


def factorized_bilinear(a: jax.Array, b: jax.Array, rank: int) -> jax.Array:
    """Sums each `rank` neighbours of a ∘ b: [B, D·rank] twice to [B, D].

    Output i is Σ_r a[i·rank + r] b[i·rank + r], a bilinear form of that rank.

    Example:
      >>> a = jnp.array([[1.0, 2.0, 3.0, 4.0]])
      >>> factorized_bilinear(a, a, 2).tolist()
      [[5.0, 25.0]]
    """
    if a.shape != b.shape or a.shape[-1] % rank:
        raise ValueError(
            f"factorized_bilinear expects two arrays of the same shape [B, D * "
            f"{rank}], got {a.shape} and {b.shape}."
        )
    return (a * b).reshape(*a.shape[:-1], -1, rank).sum(axis=-1)


class LowRankBilinear(nnx.Module):
    """MLB: P (tanh(U a) ∘ tanh(V b)), [B, Da] and [B, Db] to [B, features].

    arXiv:1610.04325, with its tanh before the product and a bias in every map.

    Args:
      a_features: Da.
      b_features: Db.
      features: width of the result.
      rank: width of the product; None for `features`.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> a, b = jax.numpy.ones((4, 512)), jax.numpy.ones((4, 300))
      >>> LowRankBilinear(512, 300, 256, rngs=nnx.Rngs(0))(a, b).shape
      (4, 256)
    """

    def __init__(
        self,
        a_features: int,
        b_features: int,
        features: int,
        *,
        rank: int | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def dense(inputs, outputs):
            return nnx.Linear(inputs, outputs, dtype=dtype, rngs=rngs)

        self.a_features = a_features
        self.b_features = b_features
        self.features = features
        self.rank = features if rank is None else rank
        self.a_dense = dense(a_features, self.rank)  # U
        self.b_dense = dense(b_features, self.rank)  # V
        self.out = dense(self.rank, features)  # P

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Fuses a [B, Da] with b [B, Db] into [B, features]."""
        check_vectors("LowRankBilinear", self.a_features, self.b_features, a, b)
        return self.out(jnp.tanh(self.a_dense(a)) * jnp.tanh(self.b_dense(b)))


class FactorizedBilinear(nnx.Module):
    """MFB: unit vectors [B, features] from [B, Da] and [B, Db].

    z = sum of each `rank` neighbours of (U a) ∘ (V b), then signed square root and L2
    normalisation (arXiv:1708.01471). The dropout that its
    authors put between product and sum is left out.

    Args:
      a_features: Da.
      b_features: Db.
      features: width of the result.
      rank: k, how many products are summed; 5 in the paper.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> a, b = jax.numpy.ones((4, 512)), jax.numpy.ones((4, 300))
      >>> FactorizedBilinear(512, 300, 256, rngs=nnx.Rngs(0))(a, b).shape
      (4, 256)
    """

    def __init__(
        self,
        a_features: int,
        b_features: int,
        features: int,
        *,
        rank: int = 5,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def dense(inputs):
            return nnx.Linear(inputs, features * rank, dtype=dtype, rngs=rngs)

        self.a_features = a_features
        self.b_features = b_features
        self.features = features
        self.rank = rank
        self.a_dense = dense(a_features)  # U
        self.b_dense = dense(b_features)  # V

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Fuses a [B, Da] with b [B, Db] into unit vectors [B, features]."""
        check_vectors("FactorizedBilinear", self.a_features, self.b_features, a, b)
        fused = factorized_bilinear(self.a_dense(a), self.b_dense(b), self.rank)
        return l2_normalize(signed_sqrt(fused))
