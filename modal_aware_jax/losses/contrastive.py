"""Contrastive loss on pairs of relaxed codes."""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import (
    check_batch,
    euclidean,
    shared_labels,
    squared_euclidean,
    working_dtype,
)


def contrastive(h: jax.Array, labels: jax.Array, *, margin: float = 2.0) -> jax.Array:
    """mean[S d² + (1 − S) max(0, m − d)²] over all pairs, i = j included.

    Hadsell et al. (CVPR 2006); S_ij = 1 where items i and j share a label, d is the
    Euclidean distance.

    Args:
        h: [B, K] relaxed codes, after tanh.
        labels: [B, L] 0/1.
        margin: m.

    Returns:
        A scalar of h's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> h = jnp.array([[0.0, 0.0], [0.6, 0.8]])
        >>> float(contrastive(h, jnp.eye(2))), float(contrastive(h, jnp.ones((2, 1))))
        (0.5, 0.5)
    """
    check_batch("contrastive", h, labels)
    wide = jnp.asarray(h, working_dtype(h))
    similar = shared_labels(labels, labels) > 0
    apart = jnp.square(jnp.maximum(margin - euclidean(wide, wide), 0))
    pairs = jnp.where(similar, squared_euclidean(wide, wide), apart)
    return jnp.mean(pairs).astype(jnp.result_type(h))
