"""SigLIP's pairwise sigmoid loss: every pair of a batch is a yes-or-no question."""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.cross_pairs import check_embeddings, cosines, pair_masks
from modal_aware_jax.losses.triplet import mean_or_zero


def sigmoid_pairs(
    image: jax.Array,
    text: jax.Array,
    *,
    scale: jax.Array | float,
    bias: jax.Array | float,
    groups: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """−1/B Σ_i Σ_j log σ(z_ij (s·cos_ij + b)), z_ij = 1 for a pair and −1 else.

    SigLIP (arXiv:2303.15343, eq. 1): s = e^t starts at 10 and b at −10, both learned,
    because nearly all pairs are negatives. Unlike there, another sentence of the same
    image is no negative: pairs of one group leave the sum.

    Args:
        image, text: [B, D] embeddings of any length; row i of both is a pair.
        scale, bias: s and b.
        groups: whole numbers [B], the image of each row; None: all differ.
        mask: [B], true for rows that count; None: all do.

    Returns:
        A scalar of image's dtype; 0 where no row counts.

    Raises:
        ValueError: shapes do not fit, or the embeddings are not real.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.eye(2)
        >>> float(sigmoid_pairs(x, x, scale=0.0, bias=0.0))  # two questions a row
        1.38629...
    """
    check_embeddings("sigmoid_pairs", image, text)
    own, negative = pair_masks("sigmoid_pairs", len(image), groups, mask)
    logits = jnp.asarray(scale) * cosines(image, text, mask) + jnp.asarray(bias)
    losses = jax.nn.softplus(jnp.where(own, -logits, logits))
    total = jnp.sum(losses, where=own | negative)
    return mean_or_zero(total, own.sum()).astype(jnp.result_type(image))
