"""Batches in chunks that stay in the processor's cache.

The CPU rules hold several copies of what they read. Made of a whole large batch, the
copies would come from memory, which is slower than what the rules gain.
"""

import math

import jax
from jax import lax

CHUNK = 2**18  # numbers of a chunk in one of its copies, 1 MiB of float32


def in_chunks(
    size: int, *arrays: jax.Array, numbers: int | None = None
) -> tuple[jax.Array, ...]:
    """Arrays [B, ...] as [n, chunks, ...], for `chunk`.

    A chunk takes every so manieth sample, and a multiple of the devices' number: a
    batch that is split over devices stays split, nothing is sent between them.

    Args:
      size: numbers that a sample has in one copy.
      *arrays: of one batch size B, which is a number.
      numbers: of a chunk in one copy; CHUNK by default.
    """
    batch = len(arrays[0])
    share = batch // math.gcd(batch, jax.device_count())
    wanted = -(-share * size // (numbers or CHUNK))
    chunks = next(
        count for count in range(min(wanted, share), share + 1) if share % count == 0
    )
    return tuple(
        array.reshape(batch // chunks, chunks, *array.shape[1:]) for array in arrays
    )


def chunk(array: jax.Array, i: jax.Array) -> jax.Array:
    """The i-th chunk [n, ...] of an array [n, chunks, ...]."""
    return lax.dynamic_index_in_dim(array, i, axis=1, keepdims=False)


def put_chunk(array: jax.Array, value: jax.Array, i: jax.Array) -> jax.Array:
    """The array [n, chunks, ...] with its i-th chunk replaced."""
    return lax.dynamic_update_index_in_dim(array, value, i, axis=1)
