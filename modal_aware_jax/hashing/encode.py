"""From batches to packed codes: the model on device, only bits come back."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from modal_aware_jax.hashing.codes import binarize, pack


def encode(
    relaxed: Callable, batches: Iterable[dict], *, progress: Callable = lambda n: None
) -> tuple[np.ndarray, np.ndarray]:
    """Encodes a collection batch by batch, keeping a few batches in flight.

    Args:
      relaxed: maps a batch to relaxed bits [B, K]; jitted by the caller.
      batches: dicts with at least `index` [B] and, where the last one is padded,
        `mask` [B], as from `data.pipeline.eval_batches`.
      progress: is told the number of pairs after each batch.

    Returns:
      Packed codes, uint32 [N, Wd], and their positions in the collection, int64 [N].

    Raises:
      ValueError: if a relaxed bit is not finite: its sign would mean nothing.

    Example:
      >>> batches = [{"x": np.array([[1.0, -1.0]]), "index": np.array([7])}]
      >>> encode(lambda batch: batch["x"], batches)
      (array([[1]], dtype=uint32), array([7]))
    """
    codes, positions, waiting = [], [], []

    def collect(packed, finite, kept):
        if not bool(np.asarray(finite)[kept].all()):
            raise ValueError(
                "encode: the model gave relaxed bits that are not finite (NaN or "
                "infinite); its weights or the input are broken."
            )
        codes.append(np.asarray(packed)[kept])

    for batch in batches:
        index = np.asarray(batch["index"])
        kept = np.asarray(batch.get("mask", np.ones(len(index), bool)))
        packed, finite = _pack_finite(relaxed(batch))
        waiting.append((packed, finite, kept))
        positions.append(index[kept])
        if len(waiting) > 2:  # let the device run ahead of the copies
            collect(*waiting.pop(0))
        progress(int(kept.sum()))
    for entry in waiting:
        collect(*entry)
    if not codes:
        raise ValueError("encode: there was no batch to encode.")
    return np.concatenate(codes), np.concatenate(positions).astype(np.int64)


@jax.jit
def _pack_finite(relaxed):
    """Packed codes [B, Wd] and whether each row was finite [B]."""
    finite = jnp.isfinite(relaxed).all(axis=-1)
    return pack(binarize(jnp.nan_to_num(relaxed))), finite
