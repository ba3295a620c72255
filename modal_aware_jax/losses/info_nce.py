"""Symmetric InfoNCE: an image picks its text among the batch's, a text its image."""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.cross_pairs import check_embeddings, cosines, pair_masks
from modal_aware_jax.losses.distance import shared_labels
from modal_aware_jax.losses.triplet import mean_or_zero


def info_nce(
    image: jax.Array,
    text: jax.Array,
    *,
    scale: jax.Array | float,
    groups: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """½ mean_i[−log softmax_j(s·cos_ij)_i] + ½ mean_j[−log softmax_i(s·cos_ij)_j].

    CLIP (arXiv:2103.00020, Fig. 3), there with a learned s = e^t, started at 1/0.07
    and kept below 100. Here s comes as an argument, so that it may be learned, fixed or
    clipped by the caller; its gradient is that of any other input.

    Unlike CLIP's, another sentence of the same image is no negative: pairs (i, j) of
    one group leave the denominator.

    Args:
        image, text: [B, D] embeddings of any length; row i of both is a pair.
        scale: s, the inverse temperature.
        groups: whole numbers [B], the image of each row, where a batch may hold an
            image more than once; None: all differ.
        mask: [B], true for rows that count; None: all do.

    Returns:
        A scalar of image's dtype; 0 where no row counts.

    Raises:
        ValueError: shapes do not fit, or the embeddings are not real.

    Example:
        >>> import jax.numpy as jnp
        >>> float(info_nce(jnp.eye(2), jnp.eye(2), scale=1.0))  # log(1 + 1/e)
        0.31326...
        >>> float(info_nce(jnp.eye(2), jnp.eye(2), scale=1.0, groups=jnp.zeros(2, int)))
        0.0
    """
    check_embeddings("info_nce", image, text)
    own, negative = pair_masks("info_nce", len(image), groups, mask)
    logits = jnp.asarray(scale) * cosines(image, text, mask)
    return _both_ways(logits, own, own | negative).astype(jnp.result_type(image))


def label_info_nce(
    image: jax.Array,
    text: jax.Array,
    labels: jax.Array,
    *,
    scale: jax.Array | float,
    mask: jax.Array | None = None,
) -> jax.Array:
    """InfoNCE whose positives are all pairs that share a label, weighted alike.

        −½ mean_i 1/|P_i| Σ_{j ∈ P_i} log softmax_j(s·cos_ij)_j, and likewise texts

    UniCL (arXiv:2204.03610, eq. 2 and 3). P_i always holds i itself, so that a pair
    without labels is trained as `info_nce` trains it.

    Args:
        image, text, scale, mask: as for `info_nce`.
        labels: 0/1 [B, L]. For groups in place of labels give their one-hot rows: then
            an image's other sentences are positives.

    Returns:
        A scalar of image's dtype; 0 where no row counts.

    Example:
        >>> import jax.numpy as jnp
        >>> float(label_info_nce(jnp.eye(2), jnp.eye(2), jnp.ones((2, 1)), scale=0.0))
        0.69314...
    """
    check_embeddings("label_info_nce", image, text)
    if jnp.ndim(labels) != 2 or len(labels) != len(image):
        raise ValueError(
            f"label_info_nce: expected 0/1 labels [{len(image)}, L], got "
            f"{jnp.shape(labels)}. One label a pair as an integer? Use jax.nn.one_hot."
        )
    own, negative = pair_masks("label_info_nce", len(image), None, mask)
    logits = jnp.asarray(scale) * cosines(image, text, mask)
    valid = own | negative
    positive = own | (valid & (shared_labels(labels, labels) > 0))
    return _both_ways(logits, positive, valid).astype(jnp.result_type(image))


def _both_ways(logits, positive, valid):
    return (
        _cross_entropy(logits, positive, valid)
        + _cross_entropy(logits.T, positive.T, valid.T)
    ) / 2


def _cross_entropy(logits, positive, valid):
    """Mean over rows of −log softmax among the valid, at the positives on average."""
    there = valid.any(axis=1)
    # A row without valid columns would be a logsumexp of nothing.
    counted = valid | ~there[:, None]
    total = jax.nn.logsumexp(logits, axis=1, where=counted)  # [B]
    number = jnp.maximum(positive.sum(axis=1), 1)
    mean = jnp.sum(logits, axis=1, where=positive) / number
    rows = jnp.sum(total - mean, where=there)
    return mean_or_zero(rows, there.sum())
