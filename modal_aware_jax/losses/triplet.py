"""Triplet ranking losses: an item with a shared label must be nearer than one without.

Everywhere h [B, K] are relaxed codes after tanh, labels [B, L] are 0/1, d is a
distance between rows of h, and a valid triplet (i, j, k) has an anchor i, a positive
j ≠ i that shares a label with i, and a negative k that shares none. Where a batch has
no valid triplet, every loss here is 0 and so is its gradient.

`distance` is `euclidean` (the paper's, un-squared) or `squared_euclidean`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import (
    check_batch,
    euclidean,
    shared_labels,
    squared_euclidean,
    working_dtype,
)

Distance = Callable[[jax.Array, jax.Array], jax.Array]


def positives_and_negatives(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which items are positives, and which negatives, of each anchor: bool [B, B] each.

    An anchor is not its own positive.

    Example:
        >>> import jax.numpy as jnp
        >>> positive, negative = positives_and_negatives(jnp.array([[1, 0], [1, 1]]))
        >>> positive.tolist(), negative.tolist()
        ([[False, True], [True, False]], [[False, False], [False, False]])
    """
    shared = shared_labels(labels, labels)
    others = ~jnp.eye(len(shared), dtype=bool)
    return (shared > 0) & others, (shared == 0) & others


def triplet_ranking(
    h: jax.Array,
    labels: jax.Array,
    *,
    margin: float = 2.0,
    distance: Distance = euclidean,
) -> jax.Array:
    """Mean over all valid triplets of max(0, margin + d_ij − d_ik).

    Eq. 9 of the modal-aware hashing paper sums over the triplets; the mean differs
    from it by their count (about 212,000 in a batch of 100 MIR-Flickr pairs), so that
    the learning rate does not depend on the batch.

    Under `jax.grad` memory grows with B³: 4 GB of float32 at B = 1,000. Use
    `triplet_ranking_chunked` there.

    Args:
        h: [B, K] relaxed codes, after tanh.
        labels: [B, L] 0/1.
        margin: ε of eq. 9.
        distance: `euclidean` or `squared_euclidean`.

    Returns:
        A scalar of h's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> h = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])
        >>> float(triplet_ranking(h, jnp.array([[1, 0], [1, 0], [0, 1]])))
        1.5857864...
    """
    check_batch("triplet_ranking", h, labels)
    d = batch_distances(h, distance)
    positive, negative = positives_and_negatives(labels)
    total = _hinge_sum(d, d, positive, negative, margin)
    return mean_or_zero(total, _count(positive, negative)).astype(jnp.result_type(h))


def triplet_ranking_chunked(
    h: jax.Array,
    labels: jax.Array,
    *,
    margin: float = 2.0,
    distance: Distance = euclidean,
    anchors: int = 16,
) -> jax.Array:
    """`triplet_ranking` with `anchors` anchors at a time: memory anchors·B², not B³.

    The backward pass computes each chunk again instead of keeping it.

    Args:
        h: [B, K] relaxed codes, after tanh.
        labels: [B, L] 0/1.
        margin: as in `triplet_ranking`.
        distance: as in `triplet_ranking`.
        anchors: how many anchors at a time; it need not divide B.

    Returns:
        A scalar of h's dtype, equal to `triplet_ranking` up to rounding.

    Example:
        >>> import jax.numpy as jnp
        >>> h = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])
        >>> labels = jnp.array([[1, 0], [1, 0], [0, 1]])
        >>> float(triplet_ranking_chunked(h, labels, anchors=2))
        1.5857864...
    """
    check_batch("triplet_ranking_chunked", h, labels)
    if anchors < 1:
        raise ValueError(
            f"triplet_ranking_chunked: expected anchors >= 1, got {anchors}."
        )
    positive, negative = positives_and_negatives(labels)

    @jax.checkpoint
    def one_anchor(row):
        d, positive, negative = (x[None] for x in row)  # [1, B]
        return _hinge_sum(d, d, positive, negative, margin)

    d = batch_distances(h, distance)
    sums = jax.lax.map(one_anchor, (d, positive, negative), batch_size=anchors)  # [B]
    return mean_or_zero(sums.sum(), _count(positive, negative)).astype(
        jnp.result_type(h)
    )


def ninh(u: jax.Array, labels: jax.Array, *, margin: float = 1.0) -> jax.Array:
    """Mean over all valid triplets of max(0, m + ‖F_i − F_j‖² − ‖F_i − F_k‖²).

    The loss of network-in-network hashing (arXiv:1504.03410), F = σ(u) in (0, 1), for
    its head `hashing.divide_and_encode.DivideAndEncodeHead`.

    Args:
        u: [B, K] relaxed codes, before the sigmoid.
        labels: [B, L] 0/1.
        margin: m.

    Returns:
        A scalar of u's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> u, labels = jnp.zeros((3, 8)), jnp.array([[1, 0], [1, 0], [0, 1]])
        >>> float(ninh(u, labels))
        1.0
    """
    check_batch("ninh", u, labels)
    wide = jax.nn.sigmoid(jnp.asarray(u, working_dtype(u)))
    loss = triplet_ranking(wide, labels, margin=margin, distance=squared_euclidean)
    return loss.astype(jnp.result_type(u))


def batch_distances(h: jax.Array, distance: Distance) -> jax.Array:
    """Distances between the items of a batch, in the working dtype: [B, B].

    Example:
        >>> import jax.numpy as jnp
        >>> batch_distances(jnp.array([[0.0], [2.0]]), squared_euclidean).tolist()
        [[0.0, 4.0], [4.0, 0.0]]
    """
    h = jnp.asarray(h, working_dtype(h))
    return distance(h, h)  # [B, B]


def _hinge_sum(d_positive, d_negative, positive, negative, margin):
    """Sum over i, j, k of max(0, margin + d_ij − d_ik), each term masked: a scalar."""
    hinge = jnp.maximum(margin + d_positive[:, :, None] - d_negative[:, None, :], 0)
    # One axis at a time: a single float32 running sum of B³ terms loses digits.
    over_negatives = jnp.sum(hinge, axis=-1, where=negative[:, None, :])  # [B, B]
    return jnp.sum(jnp.sum(over_negatives, axis=-1, where=positive))


def _count(positive, negative):
    """The number of valid triplets, as a float: 1,000³ leaves int32's reach."""
    positive, negative = (
        jnp.sum(m, axis=-1, dtype=float) for m in (positive, negative)
    )
    return jnp.sum(positive * negative)


def mean_of_triplets(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of values [B, B, B] over the triplets of a mask [B, B, B], or 0 without any.

    Example:
        >>> import jax.numpy as jnp
        >>> values = jnp.arange(8.0).reshape(2, 2, 2)
        >>> float(mean_of_triplets(values, values > 4))
        6.0
    """
    # One axis at a time: a single float32 running sum of B³ terms loses digits.
    totals = jnp.sum(jnp.sum(values, axis=-1, where=valid), axis=-1)
    # As floats only then: the whole count may leave int32's reach.
    counts = jnp.sum(jnp.sum(valid, axis=-1), axis=-1).astype(values.dtype)
    return mean_or_zero(totals.sum(), counts.sum())


def mean_or_zero(total: jax.Array, count: jax.Array) -> jax.Array:
    """total / count, or 0 where there was nothing to count.

    Example:
        >>> import jax.numpy as jnp
        >>> float(mean_or_zero(jnp.array(6.0), jnp.array(4)))
        1.5
    """
    return total / jnp.maximum(count, 1).astype(total.dtype)
