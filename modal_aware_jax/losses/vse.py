"""The hinges of visual-semantic embeddings: over all negatives, or the hardest."""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.cross_pairs import check_embeddings, cosines, pair_masks
from modal_aware_jax.losses.triplet import mean_or_zero


def sum_hinge(
    image: jax.Array,
    text: jax.Array,
    *,
    margin: float = 0.2,
    groups: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Mean over pairs i of Σ_j [α − c_ii + c_ij]₊ + Σ_j [α − c_ii + c_ji]₊.

    The sum of hinges (Kiros et al., arXiv:1411.2539; VSE++, arXiv:1707.05612, eq. 5),
    c the cosine, j the negatives of the batch. Public code adds up the batch; the mean
    over its pairs is eq. 3.

    Args:
        image, text: [B, D] embeddings of any length; row i of both is a pair.
        margin: α.
        groups: whole numbers [B], the image of each row: pairs of one group are no
            negatives; None: all differ.
        mask: [B], true for rows that count; None: all do.

    Returns:
        A scalar of image's dtype; 0 where no row counts.

    Raises:
        ValueError: shapes do not fit, or the embeddings are not real.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.eye(2)
        >>> round(float(sum_hinge(x, x[::-1])), 4)  # 2 (.2 - 0 + 1)
        2.4
    """
    hinges, own = _hinges("sum_hinge", image, text, margin, groups, mask)
    total = sum(hinge.sum() for hinge in hinges)
    return mean_or_zero(total, own.sum()).astype(jnp.result_type(image))


def max_hinge(
    image: jax.Array,
    text: jax.Array,
    *,
    margin: float = 0.2,
    groups: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Mean over pairs i of max_j [α − c_ii + c_ij]₊ + max_j [α − c_ii + c_ji]₊.

    VSE++ (arXiv:1707.05612, eq. 6): the hardest negative of each direction alone. The
    arguments, the result and the errors are `sum_hinge`'s.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.eye(3)
        >>> round(float(max_hinge(x, x[jnp.array([1, 2, 0])])), 4)
        2.4
    """
    hinges, own = _hinges("max_hinge", image, text, margin, groups, mask)
    total = sum(hinge.max(axis=1, initial=0).sum() for hinge in hinges)
    return mean_or_zero(total, own.sum()).astype(jnp.result_type(image))


def _hinges(name, image, text, margin, groups, mask):
    """The hinges of both directions, [B, B] each with 0 at what is no negative."""
    check_embeddings(name, image, text)
    own, negative = pair_masks(name, len(image), groups, mask)
    cosine = cosines(image, text, mask)
    right = jnp.diagonal(cosine)[:, None]  # [B, 1]
    both = [
        jnp.where(allowed, jnp.maximum(margin - right + wrong, 0), 0)
        for wrong, allowed in ((cosine, negative), (cosine.T, negative.T))
    ]
    return both, own
