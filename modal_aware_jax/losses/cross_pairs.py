"""The B x B pairs of a batch's images and texts: cosines, and who is a negative.

Row i of the images and row i of the texts are a pair. All losses here see the global
batch: under `jax.jit` with sharded inputs the compiler gathers the other devices' rows.
"""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import check_real, working_dtype


def unit(x: jax.Array) -> jax.Array:
    """Rows [..., D] of length one; zeros stay zero, and so does their gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])).round(3).tolist()
        [[0.6..., 0.8...], [0.0, 0.0]]
    """
    # Scaled before it is squared: 1e30 and 1e-30 have a length in float32 too.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    some = largest > 0
    scaled = x / jnp.where(some, largest, 1)
    squared = jnp.sum(jnp.square(scaled), axis=-1, keepdims=True)
    length = jnp.sqrt(jnp.where(some, squared, 1))
    return jnp.where(some, scaled / length, 0)


def cosines(image: jax.Array, text: jax.Array, mask=None) -> jax.Array:
    """Cosine of every image with every text of a batch: [B, D] each to [B, B].

    Float32 at least, whatever the inputs are. Rows that `mask` [B] leaves out count as
    zeros, so that whatever they hold has no gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> cosines(jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.eye(2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if mask is not None:
        there = (jnp.asarray(mask) != 0)[:, None]
        image, text = (jnp.where(there, x, 0) for x in (image, text))
    image, text = (unit(jnp.asarray(x, working_dtype(x))) for x in (image, text))
    # A TPU's default would round the embeddings to bfloat16.
    return jnp.matmul(image, text.T, precision=jax.lax.Precision.HIGHEST)


def pair_masks(name: str, size: int, groups=None, mask=None):
    """The pairs that are positives and those that are negatives: bool [B, B] each.

    Positive is a row's own pair. Two rows of one group (two sentences of one image) are
    neither: the other sentence is right too, only not the one drawn. Rows that are
    masked out belong to no pair.

    Args:
        name: the calling function, for messages.
        size: B.
        groups: whole numbers [B], the image of each row; None: all differ.
        mask: [B], true for rows that count; None: all do.

    Example:
        >>> import jax.numpy as jnp
        >>> positive, negative = pair_masks("here", 3, jnp.array([7, 7, 8]))
        >>> negative.astype(int).tolist()
        [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    """
    own = jnp.eye(size, dtype=bool)
    negative = ~own
    if groups is not None:
        _check_vector(name, "groups", groups, size)
        groups = jnp.asarray(groups)
        negative = negative & (groups[:, None] != groups[None, :])
    if mask is None:
        return own, negative
    _check_vector(name, "mask", mask, size)
    there = jnp.asarray(mask) != 0
    both = there[:, None] & there[None, :]
    return own & both, negative & both


def check_embeddings(name: str, image, text) -> None:
    """Raises `ValueError` unless image and text are real and both [B, D].

    Args:
        name: the calling function, for the message.
    """
    shapes = jnp.shape(image), jnp.shape(text)
    if len(shapes[0]) != 2 or shapes[0] != shapes[1]:
        raise ValueError(
            f"{name}: expected image and text embeddings [B, D] of one shape, row i of "
            f"both a pair, got {shapes[0]} and {shapes[1]}."
        )
    for side, x in (("image", image), ("text", text)):
        check_real(name, f"{side} embeddings", x)


def _check_vector(name, what, values, size):
    if jnp.shape(values) != (size,):
        raise ValueError(
            f"{name}: expected {what} of shape ({size},), one a pair, got "
            f"{jnp.shape(values)}."
        )
