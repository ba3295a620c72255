"""Codes that rank as a label head does, ever nearer to signs.

Of pairs that were never trained on, a network's label probabilities rank better than
its codes do. Here codes learn from those probabilities alone, by the distances that the
evaluator sees: relaxed bits of full length, ranked by soft average precision.
"""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import check_codes
from modal_aware_jax.losses.soft_relevance import (
    full_length,
    predicted_relevance,
    soft_relevance_ap_loss,
)


def steepness(step: jax.Array, num_steps: int, last: float = 1000.0) -> jax.Array:
    """β of tanh(β u) after some of the steps: from 1 to `last`, by equal factors.

    Relaxed codes rank better than their signs as long as they are not near them; the
    shorter the codes, the nearer they have to come. The continuation of Cao et al.,
    "HashNet" (ICCV 2017), sec. 3.3, without stages.

    Example:
      >>> [round(float(steepness(step, 4)), 2) for step in range(5)]
      [1.0, 5.62, 31.62, 177.83, 1000.0]
    """
    return jnp.power(last, jnp.clip(step / num_steps, 0, 1))


def taught_code_loss(u: jax.Array, logits: jax.Array, beta=1.0) -> jax.Array:
    """`soft_relevance_ap_loss` of tanh(β u) by the relevances that logits predict.

    Args:
      u: [B, K] relaxed bits, before tanh.
      logits: [B, L] of labels; constants to the gradient.
      beta: β, of `steepness`.

    Returns:
      A scalar of u's dtype.

    Raises:
      ValueError: the shapes do not fit, or u is not real.

    Example:
      >>> u = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])
      >>> sure = jnp.array([[99.0, -99.0], [99.0, -99.0], [-99.0, 99.0]])
      >>> round(float(taught_code_loss(u, sure, 99.0)), 4)  # of AP .75 and 1
      0.125
    """
    check_codes("taught_code_loss", u)
    h = full_length(jnp.tanh(beta * u))
    return soft_relevance_ap_loss(h, predicted_relevance(logits, logits))
