"""Triplet losses that do not weigh all valid triplets alike: active, hard, semi-hard.

Notation, valid triplets and `distance` as in `triplet`.
"""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import check_batch, euclidean
from modal_aware_jax.losses.triplet import (
    Distance,
    batch_distances,
    mean_of_triplets,
    mean_or_zero,
    positives_and_negatives,
)


def active_triplets(
    h: jax.Array,
    labels: jax.Array,
    *,
    margin: float = 2.0,
    distance: Distance = euclidean,
) -> jax.Array:
    """Mean of margin + d_ij − d_ik over the valid triplets where it is above 0.

    "Batch all, ≠ 0" of arXiv:1703.07737: the gradient does not fade as more triplets
    are satisfied, and the value falls little while training goes well.

    Args:
        h: [B, K] relaxed codes, after tanh.
        labels: [B, L] 0/1.
        margin: by how much a negative must be farther than a positive.
        distance: `euclidean` or `squared_euclidean`.

    Returns:
        A scalar of h's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> h = jnp.array([[0.0], [1.0], [2.0]])
        >>> float(active_triplets(h, jnp.array([[1, 0], [1, 0], [0, 1]]), margin=1.0))
        1.0
    """
    check_batch("active_triplets", h, labels)
    d = batch_distances(h, distance)
    positive, negative = positives_and_negatives(labels)
    violation = margin + d[:, :, None] - d[:, None, :]  # [B, B, B]
    active = positive[:, :, None] & negative[:, None, :] & (violation > 0)
    return mean_of_triplets(violation, active).astype(jnp.result_type(h))


def batch_hard(
    h: jax.Array,
    labels: jax.Array,
    *,
    margin: float = 2.0,
    distance: Distance = euclidean,
) -> jax.Array:
    """Mean over anchors of max(0, margin + max_j d_ij − min_k d_ik).

    The farthest positive against the nearest negative (arXiv:1703.07737), over
    the anchors that have both.

    Args:
        h: [B, K] relaxed codes, after tanh.
        labels: [B, L] 0/1.
        margin: by how much a negative must be farther than a positive.
        distance: `euclidean` or `squared_euclidean`.

    Returns:
        A scalar of h's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> h = jnp.array([[0.0], [1.0], [3.0]])
        >>> float(batch_hard(h, jnp.array([[1, 0], [1, 0], [0, 1]]), margin=2.0))
        0.5
    """
    check_batch("batch_hard", h, labels)
    d = batch_distances(h, distance)
    positive, negative = positives_and_negatives(labels)
    valid = positive.any(axis=1) & negative.any(axis=1)  # [B]
    farthest = jnp.max(d, axis=1, where=positive, initial=0)
    nearest = jnp.min(d, axis=1, where=negative, initial=jnp.inf)
    hinge = jnp.maximum(margin + farthest - jnp.where(valid, nearest, 0), 0)
    total = jnp.sum(hinge, where=valid)
    return mean_or_zero(total, valid.sum()).astype(jnp.result_type(h))


def semi_hard(
    h: jax.Array,
    labels: jax.Array,
    *,
    margin: float = 2.0,
    distance: Distance = euclidean,
) -> jax.Array:
    """Mean over positive pairs of max(0, margin + d_ij − d_ik), k semi-hard.

    k is the nearest negative that is farther than the positive, or the farthest
    negative where all are nearer (FaceNet, arXiv:1503.03832; the rule is that of its
    usual TensorFlow implementation). Pairs whose anchor has no negative are left out.

    Args:
        h: [B, K] relaxed codes, after tanh.
        labels: [B, L] 0/1.
        margin: by how much a negative must be farther than a positive.
        distance: `euclidean` or `squared_euclidean`.

    Returns:
        A scalar of h's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> h = jnp.array([[0.0], [1.0], [3.0]])
        >>> float(semi_hard(h, jnp.array([[1, 0], [1, 0], [0, 1]]), margin=2.0))
        0.5
    """
    check_batch("semi_hard", h, labels)
    d = batch_distances(h, distance)
    positive, negative = positives_and_negatives(labels)
    pairs = positive & negative.any(axis=1)[:, None]  # [B, B]
    farther = negative[:, None, :] & (d[:, None, :] > d[:, :, None])  # [B, B, B]
    candidates = jnp.broadcast_to(d[:, None, :], farther.shape)
    outside = jnp.min(candidates, axis=-1, where=farther, initial=jnp.inf)
    inside = jnp.max(d, axis=1, where=negative, initial=0)[:, None]  # [B, 1]
    chosen = jnp.where(farther.any(axis=-1), outside, inside)
    hinge = jnp.maximum(margin + d - chosen, 0)
    total = jnp.sum(hinge, where=pairs)
    return mean_or_zero(total, pairs.sum()).astype(jnp.result_type(h))
