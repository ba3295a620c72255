"""Hard negatives for a matching head, drawn by the similarities of two towers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.cross_pairs import pair_masks


class HardNegatives(NamedTuple):
    """A negative of each row of a batch, int32 [B], and whether there is one, bool [B].

    Attributes:
      text_of_image: row of the text that was drawn for each image.
      image_of_text: row of the image that was drawn for each text.
      image_has, text_has: false where a row has no negative in the batch; its draw is
        then its own row.
    """

    text_of_image: jax.Array
    image_of_text: jax.Array
    image_has: jax.Array
    text_has: jax.Array


def draw_hard_negatives(
    key: jax.Array,
    logits: jax.Array,
    *,
    groups: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> HardNegatives:
    """Draws j for i with a probability proportional to exp(logit_ij) among negatives.

    ALBEF (arXiv:2107.07651, sec. 3.2): one text for each image and one image for each
    text, the more alike the likelier. No gradient passes. Another sentence of the same
    image is never drawn.

    Args:
        key: a typed random key.
        logits: [B, B] scaled similarities of images (rows) and texts (columns).
        groups: whole numbers [B], the image of each row; None: all differ.
        mask: [B], true for rows that count; None: all do.

    Raises:
        ValueError: the logits are not square, or groups or mask do not fit.

    Example:
        >>> logits = jnp.array([[9.0, -90.0, 5.0], [0.0, 9.0, 90.0], [0.0, -90.0, 9.0]])
        >>> drawn = draw_hard_negatives(jax.random.key(0), logits)
        >>> drawn.text_of_image.tolist(), drawn.image_of_text.tolist()[2]
        ([2, 2, 0], 1)
    """
    if jnp.ndim(logits) != 2 or logits.shape[0] != logits.shape[1]:
        raise ValueError(
            f"draw_hard_negatives: expected logits [B, B], got {jnp.shape(logits)}."
        )
    size = len(logits)
    _, negative = pair_masks("draw_hard_negatives", size, groups, mask)
    logits = jax.lax.stop_gradient(logits)
    keys = jax.random.split(key)
    rows = jnp.arange(size)

    def draw(key, logits, negative):
        has = negative.any(axis=1)
        drawn = jax.random.categorical(key, jnp.where(negative, logits, -jnp.inf))
        return jnp.where(has, drawn, rows).astype(jnp.int32), has

    texts, image_has = draw(keys[0], logits, negative)
    images, text_has = draw(keys[1], logits.T, negative.T)
    return HardNegatives(texts, images, image_has, text_has)
