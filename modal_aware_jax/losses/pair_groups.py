"""A network of pairs told apart in groups of alike images and texts.

Negatives that each row draws for itself teach such a network another thing than
matching: the texts drawn most often are those near to many images, so that "this text
is near to many" tells a negative, whatever the image. On Flickr8k a graph that learned
so was right about 66 % of hard negatives and about none of the others (numbers in
README). In a group all pairs are scored, each text is right once and wrong as often as
any other, and nothing but the match tells the two apart.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.cross_pairs import pair_masks
from modal_aware_jax.losses.matching import binary_matching


class PairGroups(NamedTuple):
    """Groups of rows of a batch, all pairs of which are scored.

    Attributes:
      rows: int32 [G, m], of images and of texts alike.
      there: bool [G, m, m], which pairs of image and text count: those of a row and
        those of different images.
    """

    rows: jax.Array
    there: jax.Array


def draw_groups(
    key: jax.Array,
    logits: jax.Array,
    *,
    num_groups: int,
    size: int,
    groups: jax.Array | None = None,
) -> PairGroups:
    """Draws for each of the first rows the rest of its group, the alike likelier.

    Row j joins the group of row i with a probability proportional to
    exp((logit_ij + logit_ji) / 2) among those not yet drawn (Gumbel noise and the first
    m - 1; Kool et al., arXiv:1903.06059). A network whose similarities say nothing yet
    draws alike, and harder groups as it learns.

    Args:
      key: a typed random key.
      logits: [B, B] scaled similarities of images and texts; no gradient passes.
      num_groups: G; the batch is shuffled, so the first rows are as good as any.
      size: m of each.
      groups: whole numbers [B], the image of each row; None: all differ.

    Raises:
      ValueError: the logits are not square, or the groups do not fit into a batch.

    Example:
      >>> logits = jnp.array([[9.0, 0.0, 50.0], [0.0, 9.0, 0.0], [50.0, 0.0, 9.0]])
      >>> drawn = draw_groups(jax.random.key(0), logits, num_groups=1, size=2)
      >>> drawn.rows.tolist(), drawn.there.all().tolist()
      ([[0, 2]], True)
    """
    if jnp.ndim(logits) != 2 or logits.shape[0] != logits.shape[1]:
        raise ValueError(f"draw_groups: expected logits [B, B], got {logits.shape}.")
    if not (1 <= num_groups <= len(logits) and 2 <= size <= len(logits)):
        raise ValueError(
            f"draw_groups: {num_groups} groups of {size} do not fit into a batch of "
            f"{len(logits)}. Expected 1 to {len(logits)} groups of 2 to {len(logits)}."
        )
    positive, negative = pair_masks("draw_groups", len(logits), groups)
    alike = jax.lax.stop_gradient(logits + logits.T)[:num_groups] / 2
    noisy = alike + jax.random.gumbel(key, alike.shape, alike.dtype)
    itself = jnp.eye(*noisy.shape, dtype=bool)
    _, rows = jax.lax.top_k(jnp.where(itself, jnp.inf, noisy), size)
    pairs = rows[:, :, None], rows[:, None, :]
    return PairGroups(rows.astype(jnp.int32), (positive | negative)[pairs])


def choice_loss(scores: jax.Array, there: jax.Array) -> jax.Array:
    """Each image picks its text in its group, and each text its image, added.

    InfoNCE of pair scores: what a search put near must be told apart, not judged one
    by one.

    Args:
      scores: [G, m, m] of the images and texts of each group.
      there: likewise, which count; the diagonal does.

    Example:
      >>> zeros = jnp.zeros((1, 4, 4))
      >>> float(choice_loss(zeros, zeros == 0))  # 2 log 4
      2.77258...
    """
    scores = jnp.where(there, scores, 0)
    right = jnp.diagonal(scores, axis1=1, axis2=2)
    total = sum(
        jnp.mean(jax.nn.logsumexp(scores, axis=axis, where=there) - right)
        for axis in (1, 2)
    )
    return total.astype(scores.dtype)


def binary_loss(scores: jax.Array, there: jax.Array) -> jax.Array:
    """Each pair is judged for itself: `binary_matching` of what `choice_loss` takes."""
    is_pair = jnp.broadcast_to(jnp.eye(scores.shape[1]), scores.shape)
    return binary_matching(scores, is_pair, mask=there)


PAIR_LOSSES: dict[str, Callable] = {"choice": choice_loss, "binary": binary_loss}
