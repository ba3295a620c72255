"""Triplet losses graded by how many labels two items share.

Here a triplet (i, j, k), j ≠ i, is valid where j shares more labels with the anchor
than k does: s_ij > s_ik. The negative may share labels too. Memory grows with B³.
"""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import check_batch, euclidean, shared_labels
from modal_aware_jax.losses.triplet import Distance, batch_distances, mean_of_triplets


def graded_margin(
    h: jax.Array,
    labels: jax.Array,
    *,
    margin: float = 2.0,
    distance: Distance = euclidean,
) -> jax.Array:
    """Mean of max(0, margin · (s_ij − s_ik) / |y_i| + d_ij − d_ik).

    |y_i| is the anchor's number of labels: the whole margin is asked between an item
    that has all of them and one that has none.

    Args:
        h: [B, K] relaxed codes, after tanh.
        labels: [B, L] 0/1.
        margin: the largest margin.
        distance: `euclidean` or `squared_euclidean`.

    Returns:
        A scalar of h's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> h, labels = jnp.zeros((3, 4)), jnp.array([[1, 1], [1, 0], [0, 0]])
        >>> float(graded_margin(h, labels, margin=3.0))  # margins 3/2 and 3
        2.25
    """
    check_batch("graded_margin", h, labels)
    d = batch_distances(h, distance)
    rise, valid = _graded(labels, lambda shared, own: shared / own)
    hinge = jnp.maximum(margin * rise + d[:, :, None] - d[:, None, :], 0)
    return mean_of_triplets(hinge, valid).astype(jnp.result_type(h))


def graded_weight(
    h: jax.Array,
    labels: jax.Array,
    *,
    margin: float = 2.0,
    distance: Distance = euclidean,
) -> jax.Array:
    """Mean of max(0, margin + d_ij − d_ik) with weights (2^s_ij − 2^s_ik) / 2^|y_i|.

    The gains of NDCG, as in deep semantic ranking (arXiv:1501.06272). That paper
    divides by an anchor's ideal DCG; dividing by its own gain bounds weights by 1.

    Args:
        h: [B, K] relaxed codes, after tanh.
        labels: [B, L] 0/1.
        margin: the same for every triplet.
        distance: `euclidean` or `squared_euclidean`.

    Returns:
        A scalar of h's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> h, labels = jnp.zeros((3, 4)), jnp.array([[1, 1], [1, 0], [0, 0]])
        >>> float(graded_weight(h, labels, margin=3.0))
        3.0
    """
    check_batch("graded_weight", h, labels)
    d = batch_distances(h, distance)
    rise, valid = _graded(labels, lambda shared, own: jnp.exp2(shared - own))
    hinge = jnp.maximum(margin + d[:, :, None] - d[:, None, :], 0)
    totals = jnp.sum(jnp.sum(rise * hinge, axis=-1, where=valid), axis=-1)
    weights = jnp.sum(jnp.sum(rise, axis=-1, where=valid), axis=-1)
    weights = jnp.where(valid.any(), weights.sum(), 1.0).astype(d.dtype)
    return (totals.sum() / weights).astype(jnp.result_type(h))


def _graded(labels, grade):
    """Rise of the grade from k to j, and the valid triplets: [B, B, B] each."""
    shared = shared_labels(labels, labels)
    own = jnp.maximum(jnp.diagonal(shared)[:, None], 1)  # [B, 1]
    graded = grade(shared, own)
    rise = graded[:, :, None] - graded[:, None, :]
    others = ~jnp.eye(len(shared), dtype=bool)
    valid = (shared[:, :, None] > shared[:, None, :]) & others[:, :, None]
    return rise, valid
