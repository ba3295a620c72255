"""Distances and label agreement between the items of a batch."""

import jax
import jax.numpy as jnp


def working_dtype(x: jax.Array) -> jnp.dtype:
    """The dtype a loss computes in: that of `x`, but float32 at least.

    A mean over 200,000 triplets means nothing in bfloat16; losses compute here and
    return a scalar in the input's own dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> working_dtype(jnp.zeros((1, 2), jnp.bfloat16))
        dtype('float32')
    """
    return jnp.promote_types(jnp.asarray(x).dtype, jnp.float32)


def squared_euclidean(a: jax.Array, b: jax.Array) -> jax.Array:
    """Squared Euclidean distances between the rows of [B, K] and [N, K]: [B, N].

    The differences are formed one by one. The cheaper ‖a‖² + ‖b‖² − 2⟨a, b⟩ cancels:
    equal rows would come out at a small random distance, with a large random gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> a, b = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0], [0.0, 0.0]])
        >>> squared_euclidean(a, b).tolist()
        [[25.0, 0.0]]
    """
    return jnp.sum(jnp.square(a[:, None, :] - b[None, :, :]), axis=-1)


def euclidean(a: jax.Array, b: jax.Array) -> jax.Array:
    """Euclidean distances between the rows of [B, K] and [N, K]: [B, N].

    Exact values, and the gradient at distance zero is zero, not NaN: both branches of
    the square root are guarded, where adding an epsilon would bend every value.

    Example:
        >>> import jax.numpy as jnp
        >>> a, b = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0], [0.0, 0.0]])
        >>> euclidean(a, b).tolist()
        [[5.0, 0.0]]
    """
    squared = squared_euclidean(a, b)
    # Below the smallest normal number the square root's derivative overflows.
    positive = squared >= jnp.finfo(squared.dtype).tiny
    root = jnp.sqrt(jnp.where(positive, squared, 1.0))
    return jnp.where(positive, root, 0.0)


def shared_labels(a: jax.Array, b: jax.Array) -> jax.Array:
    """How many labels the rows of [B, L] and [N, L] have in common: float32 [B, N].

    Example:
        >>> import numpy as np
        >>> a = np.array([[1, 1, 0]], np.uint8)
        >>> shared_labels(a, np.array([[1, 1, 1], [0, 0, 1]], np.uint8)).tolist()
        [[2.0, 0.0]]
    """
    a, b = jnp.asarray(a) != 0, jnp.asarray(b) != 0  # uint8 products would wrap
    return a.astype(jnp.float32) @ b.astype(jnp.float32).T


def check_batch(name: str, codes: jax.Array, labels: jax.Array) -> None:
    """Raises `ValueError` unless `codes` is [B, K] and `labels` [B, L].

    Args:
        name: the calling function, for the message.
        codes: [B, K].
        labels: [B, L].
    """
    shapes = jnp.shape(codes), jnp.shape(labels)
    if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][0] != shapes[1][0]:
        raise ValueError(
            f"{name}: expected codes [B, K] and 0/1 labels [B, L] of the same batch, "
            f"got {shapes[0]} and {shapes[1]}. One label per item as an integer? Use "
            f"jax.nn.one_hot(labels, num_labels)."
        )
    check_codes(name, codes)


def check_codes(name: str, codes: jax.Array) -> None:
    """Raises `ValueError` unless codes [..., K] are real."""
    check_real(
        name, "codes", codes, "Losses are taken on relaxed codes, before binarize()."
    )


def check_real(name: str, what: str, values: jax.Array, cure: str = "") -> None:
    """Raises `ValueError` unless values are of a floating type.

    A loss has its input's dtype, in which one of whole numbers would be cut.

    Args:
        name: the calling function, for the message; and
        what: the values'.
        cure: the message's last sentence.
    """
    dtype = jnp.asarray(values).dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name}: expected real {what}, got {dtype}. {cure}".rstrip())
