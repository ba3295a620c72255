"""A network of pairs told apart from the hard negatives of a batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.hard_negatives import draw_hard_negatives
from modal_aware_jax.losses.matching import binary_matching, choice_among


def pairs_to_score(
    key: jax.Array,
    logits: jax.Array,
    *,
    num_rows: int,
    num_negatives: int,
    groups: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which pairs of a batch are scored: the first rows' own and their hard negatives.

    Args:
      key: a typed random key.
      logits: [B, B] similarities of images and texts, from which negatives are drawn by
        `draw_hard_negatives`.
      num_rows: R of the B rows; the batch is shuffled, so the first are as good as any.
      num_negatives: n wrong texts of each image and n wrong images of each text.
      groups: whole numbers [B], the image of each row; None: all differ.

    Returns:
      Rows of images and of texts, int32 [1 + 2n, R] each: own pairs, then n lines of
      wrong texts, then n of wrong images; and bool [1 + 2n, R], which of them count.

    Example:
      >>> logits = jnp.array([[9.0, 9.0], [9.0, 9.0]])
      >>> image, text, there = pairs_to_score(
      ...     jax.random.key(0), logits, num_rows=2, num_negatives=1)
      >>> image.tolist(), text.tolist()
      ([[0, 1], [0, 1], [1, 0]], [[0, 1], [1, 0], [0, 1]])
    """
    num_rows = min(num_rows, len(logits))
    keys = jax.random.split(key, num_negatives)
    drawn = jax.vmap(lambda k: draw_hard_negatives(k, logits, groups=groups))(keys)
    texts, images, image_has, text_has = (x[:, :num_rows] for x in drawn)
    own = jnp.arange(num_rows, dtype=jnp.int32)[None]
    again = jnp.broadcast_to(own, texts.shape)
    there = jnp.concatenate([own >= 0, image_has, text_has])
    image = jnp.concatenate([own, again, images])
    return image, jnp.concatenate([own, texts, again]), there


def choice_loss(scores: jax.Array, there: jax.Array) -> jax.Array:
    """Each image picks its text among the wrong ones, each text its image, added.

    Args:
      scores: [1 + 2n, R] of `pairs_to_score`.
      there: likewise, which count.

    Example:
      >>> zeros = jnp.zeros((3, 2))
      >>> float(choice_loss(zeros, zeros == 0))  # 2 log 2
      1.38629...
    """
    half = (len(scores) - 1) // 2
    sides = (slice(1, 1 + half), slice(1 + half, None))
    return sum(
        choice_among(scores[0], scores[side].T, mask=there[side].T) for side in sides
    )


def binary_loss(scores: jax.Array, there: jax.Array) -> jax.Array:
    """Each pair is judged for itself: `binary_matching` of what `choice_loss` takes."""
    is_pair = jnp.zeros(scores.shape).at[0].set(1)
    return binary_matching(scores, is_pair, mask=there)


PAIR_LOSSES: dict[str, Callable] = {"choice": choice_loss, "binary": binary_loss}
