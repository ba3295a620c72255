"""Divide and encode: each bit reads its own slice of the features.

Source: Lai et al., "Simultaneous Feature Learning and Hash Coding with Deep Neural
Networks" (arXiv:1504.03410). Its loss is `losses.triplet.ninh`.
"""

import jax
import jax.numpy as jnp
from flax import nnx


def divide_and_encode(
    features: jax.Array, kernel: jax.Array, bias: jax.Array
) -> jax.Array:
    """Bit k is ⟨slice k of the features, kernel_k⟩ + bias_k, before the sigmoid.

    Args:
      features: [B, K·S], cut into K neighbouring slices of S.
      kernel: [K, S].
      bias: [K].

    Returns:
      [B, K] relaxed bits. The paper's output is their sigmoid; above one half there is
      above zero here, so codes are signs as with every other head.

    Example:
      >>> features, kernel = jnp.array([[1.0, 2.0, 3.0, 4.0]]), jnp.ones((2, 2))
      >>> divide_and_encode(features, kernel, jnp.array([0.0, 1.0])).tolist()
      [[3.0, 8.0]]
    """
    shape = kernel.shape
    if features.ndim != 2 or features.shape[1] != shape[0] * shape[1]:
        raise ValueError(
            f"divide_and_encode: expected features [B, K * S] for a kernel [K, S] = "
            f"{shape}, got {features.shape}."
        )
    slices = features.reshape(-1, *shape)  # [B, K, S]
    return jnp.einsum("bks,ks->bk", slices, kernel) + bias[None, :]


def piecewise_threshold(s: jax.Array, epsilon: float) -> jax.Array:
    """The paper's output, nearly binary: 0 below ½ − ε, s between, 1 above ½ + ε.

    Args:
      s: [B, K] in (0, 1), the sigmoid of the relaxed bits.
      epsilon: ε, in [0, ½].

    Returns:
      [B, K].

    Example:
      >>> piecewise_threshold(jnp.array([0.1, 0.5, 0.9]), 0.2).tolist()
      [0.0, 0.5, 1.0]
    """
    outside = jnp.where(s > 0.5, 1.0, 0.0).astype(s.dtype)
    return jnp.where(jnp.abs(s - 0.5) <= epsilon, s, outside)


class DivideAndEncodeHead(nnx.Module):
    """[B, D] to [B, K] relaxed bits: dense to K·S, ReLU, then one small unit a slice.

    Without the ReLU the two linear maps would be one, and the head a `HashHead`.

    Args:
      in_features: D.
      num_bits: K.
      slice_features: S; 50 in the paper.
      dtype: of the computation.
      rngs: source of the initial weights.

    Example:
      >>> head = DivideAndEncodeHead(512, 16, rngs=nnx.Rngs(0))
      >>> head(jnp.ones((2, 512))).shape
      (2, 16)
    """

    def __init__(
        self,
        in_features: int,
        num_bits: int,
        *,
        slice_features: int = 50,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        if num_bits < 1 or slice_features < 1:
            raise ValueError(
                f"DivideAndEncodeHead expects num_bits >= 1 and slice_features >= 1, "
                f"got {num_bits} and {slice_features}."
            )
        self.in_features = in_features
        self.num_bits = num_bits
        self.dtype = dtype
        self.dense = nnx.Linear(
            in_features, num_bits * slice_features, dtype=dtype, rngs=rngs
        )
        self.kernel = nnx.Param(
            jax.random.normal(rngs.params(), (num_bits, slice_features))
            / jnp.sqrt(slice_features)
        )
        self.bias = nnx.Param(jnp.zeros(num_bits))

    def __call__(self, joint: jax.Array) -> jax.Array:
        """Maps joint vectors [B, D] to relaxed bits [B, K], before sigmoid or tanh."""
        if joint.shape[-1] != self.in_features:
            raise ValueError(
                f"DivideAndEncodeHead expects [B, {self.in_features}], "
                f"got {joint.shape}."
            )
        features = jax.nn.relu(self.dense(joint))  # [B, K * S]
        kernel, bias = self.kernel[...], self.bias[...]
        if self.dtype is not None:
            kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        return divide_and_encode(features, kernel, bias)
