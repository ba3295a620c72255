"""Gated multimodal unit: each output chooses how much to believe each modality.

Source: Arevalo et al., "Gated Multimodal Units for Information Fusion"
(arXiv:1702.01992). This is the published formula, whose gate reads the raw inputs; the
authors' code gates on the two projected vectors instead.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.fusion.concat import check_vectors


def gate_two(a: jax.Array, b: jax.Array, logits: jax.Array) -> jax.Array:
    """z ∘ tanh a + (1 − z) ∘ tanh b with z = σ(logits), all [B, D].

    Example:
      >>> one = jnp.ones((1, 1))
      >>> float(gate_two(100 * one, -100 * one, 0 * one)[0, 0])
      0.0
    """
    z = jax.nn.sigmoid(logits)
    return z * jnp.tanh(a) + (1 - z) * jnp.tanh(b)


def gate_many(projected: jax.Array, logits: jax.Array) -> jax.Array:
    """Σ_m σ(logits_m) ∘ tanh(projected_m) over modalities: [B, M, D] twice to [B, D].

    Example:
      >>> float(gate_many(jnp.full((1, 3, 1), 100.0), jnp.zeros((1, 3, 1)))[0, 0])
      1.5
    """
    return jnp.sum(jax.nn.sigmoid(logits) * jnp.tanh(projected), axis=1)


class GatedMultimodalUnit(nnx.Module):
    """Fuses [B, Da] with [B, Db] into [B, features] by one gate per output.

        z = σ(W_z [a; b])        h = z ∘ tanh(W_a a) + (1 − z) ∘ tanh(W_b b)

    Args:
      a_features: Da.
      b_features: Db.
      features: width of the result.
      use_bias: the published formula writes none; True adds one to each map.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> a, b = jax.numpy.ones((4, 512)), jax.numpy.ones((4, 300))
      >>> GatedMultimodalUnit(512, 300, 256, rngs=nnx.Rngs(0))(a, b).shape
      (4, 256)
    """

    def __init__(
        self,
        a_features: int,
        b_features: int,
        features: int,
        *,
        use_bias: bool = False,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def dense(inputs):
            return nnx.Linear(
                inputs, features, use_bias=use_bias, dtype=dtype, rngs=rngs
            )

        self.a_features = a_features
        self.b_features = b_features
        self.features = features
        self.a_dense = dense(a_features)  # W_a
        self.b_dense = dense(b_features)  # W_b
        self.gate = dense(a_features + b_features)  # W_z

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Fuses a [B, Da] with b [B, Db] into [B, features]."""
        check_vectors("GatedMultimodalUnit", self.a_features, self.b_features, a, b)
        logits = self.gate(jnp.concatenate([a, b], axis=-1))
        return gate_two(self.a_dense(a), self.b_dense(b), logits)


class MultiGatedUnit(nnx.Module):
    """Fuses any number of modalities [B, D_m] into [B, features], each with its gate.

        z_m = σ(W_m [x_1; ...; x_M])        h = Σ_m z_m ∘ tanh(V_m x_m)

    The general form of arXiv:1702.01992. The gates need not sum to one,
    so with two modalities it is not `GatedMultimodalUnit`.

    Args:
      in_features: D_m of each modality.
      features: width of the result.
      use_bias: the published formula writes none; True adds one to each map.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> xs = [jnp.ones((4, n)) for n in (8, 9, 10)]
      >>> MultiGatedUnit((8, 9, 10), 16, rngs=nnx.Rngs(0))(*xs).shape
      (4, 16)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        features: int,
        *,
        use_bias: bool = False,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def dense(inputs, outputs):
            return nnx.Linear(
                inputs, outputs, use_bias=use_bias, dtype=dtype, rngs=rngs
            )

        if not in_features:
            raise ValueError("MultiGatedUnit expects at least one modality, got none.")
        self.in_features = tuple(in_features)
        self.features = features
        self.projections = nnx.List(dense(n, features) for n in self.in_features)
        self.gates = dense(sum(self.in_features), len(self.in_features) * features)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Fuses one [B, D_m] a modality, in the constructor's order: [B, features]."""
        shapes = [x.shape for x in inputs]
        expected = [(shapes[0][0], n) for n in self.in_features] if shapes else None
        if shapes != expected:
            raise ValueError(
                f"MultiGatedUnit expects one vector [B, D] for each of "
                f"D = {self.in_features}, got shapes {shapes}."
            )
        pairs = zip(self.projections, inputs, strict=True)
        projected = jnp.stack([dense(x) for dense, x in pairs], axis=1)  # [B, M, D]
        logits = self.gates(jnp.concatenate(inputs, axis=-1))
        return gate_many(projected, logits.reshape(projected.shape))
