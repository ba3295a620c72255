"""Pairwise losses: DPSH, DSH and HashNet, as their authors' code has them.

Everywhere u [B, K] are relaxed codes before tanh, labels [B, L] are 0/1, S_ij = 1
where items i and j share a label, and means run over all pairs, i = j included.

Without a bank, a batch is compared with itself. With `bank` [N, K] and `bank_labels`
[N, L] it is compared with the bank's rows; the caller carries the bank and renews it
(`bank.update_bank`), before the loss as public code does or after.
"""

import math

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import (
    check_batch,
    check_codes,
    shared_labels,
    squared_euclidean,
    working_dtype,
)
from modal_aware_jax.losses.quantization import quantization_l1, quantization_l2


def dpsh(
    u: jax.Array,
    labels: jax.Array,
    *,
    quantization_weight: float = 0.1,
    bank: jax.Array | None = None,
    bank_labels: jax.Array | None = None,
) -> jax.Array:
    """mean[log(1 + e^θ) − S θ] + α mean (u − sgn u)², θ_ij = ½⟨u_i, u_j⟩.

    Deep pairwise-supervised hashing (arXiv:1511.03855). Its author trains with α = 10,
    SGD at 0.05 divided by 10 every 50 epochs; 0.1 is the common port's.

    Args:
        u: [B, K] relaxed codes, before tanh.
        labels: [B, L] 0/1.
        quantization_weight: α.
        bank: [N, K] the training set's codes u, or None for the batch itself.
        bank_labels: [N, L], given exactly when `bank` is.

    Returns:
        A scalar of u's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> u = jnp.array([[1.0, 1.0], [1.0, -1.0]])
        >>> float(dpsh(u, jnp.array([[1, 0], [0, 1]])))
        0.503204...
    """
    wide, other, similar = _pairs("dpsh", u, labels, bank, bank_labels)
    theta = 0.5 * _inner(wide, other)
    loss = jnp.mean(_negative_log_likelihood(theta, similar))
    loss = loss + quantization_weight * quantization_l2(wide)
    return loss.astype(jnp.result_type(u))


def dsh(
    u: jax.Array,
    labels: jax.Array,
    *,
    margin: float | None = None,
    quantization_weight: float = 0.1,
    bank: jax.Array | None = None,
    bank_labels: jax.Array | None = None,
) -> jax.Array:
    """mean[S/2 d² + (1 − S)/2 max(m − d², 0)] + α mean ||u| − 1|.

    Deep supervised hashing (Liu et al., CVPR 2016); d² is the squared Euclidean
    distance. Its authors' α is 0.01, on a regulariser summed over the bits.

    Args:
        u: [B, K] relaxed codes, before tanh.
        labels: [B, L] 0/1.
        margin: m; None for 2K, at which dissimilar codes differ in half their bits.
        quantization_weight: α.
        bank: [N, K] the training set's codes u, or None for the batch itself.
        bank_labels: [N, L], given exactly when `bank` is.

    Returns:
        A scalar of u's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> u = jnp.array([[1.0, 1.0], [1.0, -1.0]])
        >>> float(dsh(u, jnp.array([[1], [1]]))), float(dsh(u, jnp.eye(2), margin=6))
        (1.0, 0.5)
    """
    wide, other, similar = _pairs("dsh", u, labels, bank, bank_labels)
    margin = 2 * wide.shape[1] if margin is None else margin
    squared = squared_euclidean(wide, other)
    apart = jnp.maximum(margin - squared, 0)
    loss = jnp.mean(jnp.where(similar, squared, apart)) / 2
    loss = loss + quantization_weight * quantization_l1(wide)
    return loss.astype(jnp.result_type(u))


def hashnet(
    u: jax.Array,
    labels: jax.Array,
    *,
    alpha: float = 0.1,
    beta: float = 1.0,
    bank: jax.Array | None = None,
    bank_labels: jax.Array | None = None,
) -> jax.Array:
    """Mean of log(1 + e^θ) − S θ over similar pairs plus its mean over dissimilar ones.

    HashNet (arXiv:1702.00758): θ_ij = α⟨v_i, v_j⟩ with v = tanh(βu). Two means in
    place of one keep the rare similar pairs from being outvoted; a kind of pair that a
    batch does not have adds 0. Its authors' α is 10 / K.

    Args:
        u: [B, K] relaxed codes, before tanh.
        labels: [B, L] 0/1.
        alpha: scale of the inner products.
        beta: sharpness of tanh, see `hashnet_beta`; may be a traced scalar.
        bank: [N, K] the training set's tanh(βu), or None for the batch itself.
        bank_labels: [N, L], given exactly when `bank` is.

    Returns:
        A scalar of u's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> u = jnp.zeros((2, 4))
        >>> float(hashnet(u, jnp.eye(2)))  # log 2 for each kind of pair
        1.386294...
    """
    check_codes("hashnet", u)
    v = jnp.tanh(beta * jnp.asarray(u, working_dtype(u)))
    v, other, similar = _pairs("hashnet", v, labels, bank, bank_labels)
    pairs = _negative_log_likelihood(alpha * _inner(v, other), similar)

    def mean_over(mask):
        return jnp.sum(pairs, where=mask) / jnp.maximum(jnp.sum(mask), 1)

    return (mean_over(similar) + mean_over(~similar)).astype(jnp.result_type(u))


def hashnet_beta(epoch: int, *, epochs_per_stage: int = 20) -> float:
    """HashNet's continuation: β = √(⌊epoch / epochs_per_stage⌋ + 1), epochs from 0.

    Its authors count iterations: β = √(1 + 0.005·iteration), renewed every 200.

    Example:
        >>> [round(hashnet_beta(epoch), 3) for epoch in (0, 19, 20, 60)]
        [1.0, 1.0, 1.414, 2.0]
    """
    if epoch < 0 or epochs_per_stage < 1:
        raise ValueError(
            f"hashnet_beta: expected epoch >= 0 and epochs_per_stage >= 1, "
            f"got {epoch} and {epochs_per_stage}."
        )
    return math.sqrt(epoch // epochs_per_stage + 1)


def _pairs(name, u, labels, bank, bank_labels):
    """Codes to compare in the working dtype, and S: [B, K], [N, K], bool [B, N]."""
    check_batch(name, u, labels)
    wide = jnp.asarray(u, working_dtype(u))
    if bank is None and bank_labels is None:
        return wide, wide, shared_labels(labels, labels) > 0
    if bank is None or bank_labels is None:
        raise ValueError(
            f"{name}: bank and bank_labels come together, got only "
            f"{'bank_labels' if bank is None else 'bank'}."
        )
    check_batch(f"{name} (bank)", bank, bank_labels)
    if (
        jnp.shape(bank)[1] != jnp.shape(u)[1]
        or jnp.shape(bank_labels)[1] != jnp.shape(labels)[1]
    ):
        raise ValueError(
            f"{name}: expected a bank [N, {jnp.shape(u)[1]}] with labels "
            f"[N, {jnp.shape(labels)[1]}], got {jnp.shape(bank)} and "
            f"{jnp.shape(bank_labels)}."
        )
    similar = shared_labels(labels, bank_labels) > 0
    return wide, jnp.asarray(bank, wide.dtype), similar


def _inner(a, b):
    # A TPU's default would round the codes to bfloat16.
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)


def _negative_log_likelihood(theta, similar):
    """log(1 + e^θ) − S θ, which is softplus(−θ) where S = 1: nothing can overflow."""
    return jax.nn.softplus(jnp.where(similar, -theta, theta))
