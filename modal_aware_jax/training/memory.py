"""What a loss remembers from step to step, as variables of the model.

They ride in the statistics of the training state: the update stays pure, and a resumed
run goes on with them.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.losses.bank import empty_bank, update_bank


class Memory(nnx.Variable):
    """Saved in checkpoints, never trained."""


class StepCount(nnx.Module):
    """The number of training steps, for a loss that changes with time.

    >>> count = StepCount()
    >>> [int(count()) for _ in range(3)]
    [0, 1, 2]
    """

    def __init__(self):
        self.steps = Memory(jnp.zeros((), jnp.int32))

    def __call__(self) -> jax.Array:
        """The steps before this one, int32 scalar; counts this one."""
        step = self.steps[...]
        self.steps[...] = step + 1
        return step


class CodeBank(nnx.Module):
    """The training set's latest codes [N, K] and labels [N, L]: see `losses.bank`.

    Args:
        num_items: N.
        num_bits: K.
        num_labels: L.

    >>> bank = CodeBank(4, 2, 1)
    >>> u, labels = jnp.array([[1.0, -1.0]]), jnp.array([[1]])
    >>> codes, _ = bank(jnp.array([2]), u, labels)
    >>> codes[2].tolist()
    [1.0, -1.0]
    """

    def __init__(self, num_items: int, num_bits: int, num_labels: int):
        codes, labels = empty_bank(num_items, num_bits, num_labels)
        self.codes, self.labels = Memory(codes), Memory(labels)

    def __call__(self, rows: jax.Array, u: jax.Array, labels: jax.Array):
        """Takes a batch's codes [B, K] and labels [B, L] -> the bank with them."""
        codes, bank_labels = update_bank(
            self.codes[...], self.labels[...], rows, u, labels
        )
        self.codes[...], self.labels[...] = codes, bank_labels
        return codes, bank_labels


class NeighbourLists(nnx.Module):
    """The nearest training pairs of each training pair, nearest first: rows [N, k].

    Args:
        num_items: N.
        length: k.

    >>> lists = NeighbourLists(3, 2)
    >>> lists.rows[...] = jnp.array([[1, 2], [0, 2], [1, 0]])
    >>> lists(jnp.array([0, 2])).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """

    def __init__(self, num_items: int, length: int):
        self.rows = Memory(jnp.full((num_items, length), -1, jnp.int32))

    def __call__(self, rows: jax.Array) -> jax.Array:
        """Rows [B] -> float [B, B], from 1 for the nearest to 0 outside of both lists.

        The r-th of k, from 0, has 1 − r / k; of two rows that list each other the
        larger holds for both.
        """
        lists = self.rows[...]
        rank_weight = 1 - jnp.arange(lists.shape[1]) / lists.shape[1]
        listed = lists[rows][:, None, :] == rows[None, :, None]  # [B, B, k]
        weights = jnp.where(listed, rank_weight[None, None, :], 0).max(axis=-1)
        return jnp.maximum(weights, weights.T)
