"""A bank: the training set's latest codes, which pairwise losses compare a batch with.

The bank is a plain pair of arrays that the training step carries and passes on; no
loss keeps one behind the caller's back.
"""

import jax
import jax.numpy as jnp


def empty_bank(
    num_items: int, num_bits: int, num_labels: int
) -> tuple[jax.Array, jax.Array]:
    """Zero codes [N, K] and zero labels [N, L].

    As in public code, a row not yet seen counts as dissimilar to everything, with
    inner product 0, until its first `update_bank`.

    Example:
        >>> bank, bank_labels = empty_bank(100, 16, 24)
        >>> bank.shape, bank_labels.shape
        ((100, 16), (100, 24))
    """
    return jnp.zeros((num_items, num_bits)), jnp.zeros((num_items, num_labels), "uint8")


def update_bank(
    bank: jax.Array,
    bank_labels: jax.Array,
    index: jax.Array,
    u: jax.Array,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Replaces the rows `index` of the bank by a batch's codes and labels.

    The codes enter without gradient. An index outside the bank is dropped, so padding
    can be sent to row N.

    Args:
        bank: [N, K].
        bank_labels: [N, L].
        index: [B] integers in [0, N), without repeats.
        u: [B, K] what the loss compares with: u for `dpsh` and `dsh`, tanh(βu) for
            `hashnet`.
        labels: [B, L].

    Returns:
        The new (bank, bank_labels), in the dtypes of the old.

    Example:
        >>> import jax.numpy as jnp
        >>> bank, bank_labels = empty_bank(4, 2, 1)
        >>> u, y = jnp.array([[1.0, -1.0]]), jnp.array([[1]])
        >>> update_bank(bank, bank_labels, jnp.array([2]), u, y)[0][2].tolist()
        [1.0, -1.0]
    """
    if (
        jnp.shape(u) != (*jnp.shape(index), *jnp.shape(bank)[1:])
        or jnp.shape(labels) != (*jnp.shape(index), *jnp.shape(bank_labels)[1:])
        or len(bank) != len(bank_labels)
    ):
        raise ValueError(
            f"update_bank: expected bank [N, K], bank_labels [N, L], index [B], "
            f"u [B, K], labels [B, L], got {jnp.shape(bank)}, "
            f"{jnp.shape(bank_labels)}, {jnp.shape(index)}, {jnp.shape(u)}, "
            f"{jnp.shape(labels)}."
        )
    bank, bank_labels = jnp.asarray(bank), jnp.asarray(bank_labels)
    u = jax.lax.stop_gradient(jnp.asarray(u, bank.dtype))
    labels = jnp.asarray(labels).astype(bank_labels.dtype)
    index = jnp.asarray(index)
    index = jnp.where(index < 0, len(bank), index)  # JAX would count from the end
    return (
        bank.at[index].set(u, mode="drop"),
        bank_labels.at[index].set(labels, mode="drop"),
    )
