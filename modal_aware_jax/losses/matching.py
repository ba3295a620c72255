"""Losses of a matching head: does this text belong to this image?"""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import check_real, working_dtype
from modal_aware_jax.losses.triplet import mean_or_zero


def binary_matching(
    logits: jax.Array, is_pair: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:
    """Mean of the cross-entropy of σ(logit) with 1 for a pair and 0 for another.

    Image-text matching of UNITER (arXiv:1909.11740, sec. 3.2) and ALBEF
    (arXiv:2107.07651, eq. 4; two logits there, of which one is enough).

    Args:
        logits: [...] scores of pairs.
        is_pair: of the same shape, 0 or 1.
        mask: of the same shape, true for those that count; None: all do.

    Returns:
        A scalar of logits' dtype; 0 where none counts.

    Raises:
        ValueError: the shapes differ, or the logits are not real.

    Example:
        >>> import jax.numpy as jnp
        >>> float(binary_matching(jnp.zeros(3), jnp.array([1, 0, 0])))
        0.693147...
    """
    for name, values in (("is_pair", is_pair), ("mask", mask)):
        if values is not None and jnp.shape(values) != jnp.shape(logits):
            raise ValueError(
                f"binary_matching: expected {name} of the logits' shape "
                f"{jnp.shape(logits)}, got {jnp.shape(values)}."
            )
    check_real("binary_matching", "logits", logits)
    wide = jnp.asarray(logits, working_dtype(logits))
    counts = jnp.ones(wide.shape, bool) if mask is None else jnp.asarray(mask) != 0
    wide = jnp.where(counts, wide, 0)
    losses = jax.nn.softplus(jnp.where(jnp.asarray(is_pair) != 0, -wide, wide))
    total = jnp.sum(losses, where=counts)
    return mean_or_zero(total, counts.sum()).astype(jnp.result_type(logits))


def choice_among(
    right: jax.Array, wrong: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:
    """Mean of −log softmax of the right pair's logit among the wrong ones'.

    The form for re-ranking: what a search put near must be told apart, not judged one
    by one.

    Args:
        right: [B] logits of the pairs.
        wrong: [B, n] logits of n negatives of each.
        mask: [B, n], true for negatives that count; None: all do. A row without any
            adds 0.

    Returns:
        A scalar of right's dtype.

    Raises:
        ValueError: the shapes do not fit, or the logits are not real.

    Example:
        >>> import jax.numpy as jnp
        >>> float(choice_among(jnp.zeros(2), jnp.zeros((2, 3))))  # log 4
        1.38629...
    """
    shapes = jnp.shape(right), jnp.shape(wrong)
    fits = len(shapes[0]) == 1 and len(shapes[1]) == 2 and shapes[0][0] == shapes[1][0]
    if not fits or (mask is not None and jnp.shape(mask) != shapes[1]):
        raise ValueError(
            f"choice_among: expected right [B], wrong [B, n] and mask [B, n] or None, "
            f"got {shapes[0]}, {shapes[1]} and "
            f"{None if mask is None else jnp.shape(mask)}."
        )
    check_real("choice_among", "logits", right)
    wide = working_dtype(right)
    logits = jnp.concatenate(
        [jnp.asarray(right, wide)[:, None], jnp.asarray(wrong, wide)], axis=1
    )
    counts = jnp.ones(shapes[1], bool) if mask is None else jnp.asarray(mask) != 0
    counts = jnp.concatenate([jnp.ones((shapes[0][0], 1), bool), counts], axis=1)
    logits = jnp.where(counts, logits, 0)
    total = jax.nn.logsumexp(logits, axis=1, where=counts)
    return jnp.mean(total - logits[:, 0]).astype(jnp.result_type(right))
