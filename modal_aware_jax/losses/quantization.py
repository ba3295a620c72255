"""Quantisation terms: how far relaxed codes are from ±1.

Add one, weighted, to a loss that has none: `triplet_ranking(h, labels) + .1 *
quantization_l2(h)`.
"""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import check_codes, working_dtype


def quantization_l2(x: jax.Array) -> jax.Array:
    """mean (x − sgn x)², where sgn 0 = +1 as everywhere in this package.

    Args:
        x: [..., K] relaxed codes, any range.

    Returns:
        A scalar of x's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> float(quantization_l2(jnp.array([1.0, -3.0, 0.5, 0.0])))
        1.3125
    """
    check_codes("quantization_l2", x)
    wide = jnp.asarray(x, working_dtype(x))
    sign = jnp.where(wide < 0, -1.0, 1.0)
    return jnp.mean(jnp.square(wide - sign)).astype(jnp.result_type(x))


def quantization_l1(x: jax.Array) -> jax.Array:
    """mean ||x| − 1|.

    Args:
        x: [..., K] relaxed codes, any range.

    Returns:
        A scalar of x's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> float(quantization_l1(jnp.array([1.0, -3.0, 0.5, 0.0])))
        0.875
    """
    check_codes("quantization_l1", x)
    wide = jnp.asarray(x, working_dtype(x))
    return jnp.mean(jnp.abs(jnp.abs(wide) - 1)).astype(jnp.result_type(x))
