"""The learned scale and bias of similarities in contrastive losses."""

import math

import jax
import jax.numpy as jnp
from flax import nnx


class Temperature(nnx.Module):
    """Two trained numbers: the scale s = e^t of cosines, and a bias b.

    CLIP (arXiv:2103.00020) starts s at 1/0.07 and keeps it at 100 or below; SigLIP
    (arXiv:2303.15343) starts s at 10 and b at −10.

    Args:
      scale: s at the start.
      bias: b at the start.
      max_scale: above it s stays there. The gradient passes, so that t comes down again
        when the loss asks for it.

    Raises:
      ValueError: scale is not between 0 and max_scale.

    Example:
      >>> round(float(Temperature(10.0).scale()), 3)
      10.0
    """

    def __init__(
        self,
        scale: float = 1 / 0.07,
        bias: float = 0.0,
        *,
        max_scale: float = 100.0,
        rngs=None,
    ):
        del rngs
        if not 0 < scale <= max_scale:
            raise ValueError(
                f"Temperature expects 0 < scale <= max_scale, got {scale} and "
                f"{max_scale}."
            )
        self.max_log_scale = math.log(max_scale)
        self.log_scale = nnx.Param(jnp.asarray(math.log(scale), jnp.float32))
        self.bias = nnx.Param(jnp.asarray(bias, jnp.float32))

    def scale(self) -> jax.Array:
        """s, a scalar between 0 and max_scale."""
        log = self.log_scale[...]
        too_much = jnp.maximum(log - self.max_log_scale, 0)
        return jnp.exp(log - jax.lax.stop_gradient(too_much))
