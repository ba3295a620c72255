"""From batches to packed codes, or to the relaxed bits that they are the signs of."""

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
    return _collect(lambda batch: _pack_finite(relaxed(batch)), batches, progress)


def relax(
    relaxed: Callable, batches: Iterable[dict], *, progress: Callable = lambda n: None
) -> tuple[np.ndarray, np.ndarray]:
    """As `encode`, but gives the relaxed bits themselves.

    Returns:
      Relaxed bits, float32 [N, K], and their positions in the collection, int64 [N].

    Example:
      >>> batches = [{"x": np.array([[1.5, -1.0]]), "index": np.array([7])}]
      >>> relax(lambda batch: batch["x"], batches)[0]
      array([[ 1.5, -1. ]], dtype=float32)
    """
    return _collect(lambda batch: _with_finite(relaxed(batch)), batches, progress)


def _collect(run, batches, progress):
    """What `run` gives of each batch, with whether each row is finite; positions."""
    rows, positions, waiting = [], [], []

    def collect(some, finite, kept):
        if not bool(np.asarray(finite)[kept].all()):
            raise ValueError(
                "encode: the model gave relaxed bits that are not finite (NaN or "
                "infinite); its weights or the input are broken."
            )
        rows.append(np.asarray(some)[kept])

    for batch in batches:
        index = np.asarray(batch["index"])
        kept = np.asarray(batch.get("mask", np.ones(len(index), bool)))
        waiting.append((*run(batch), kept))
        positions.append(index[kept])
        if len(waiting) > 2:  # let the device run ahead of the copies
            collect(*waiting.pop(0))
        progress(int(kept.sum()))
    for entry in waiting:
        collect(*entry)
    if not rows:
        raise ValueError("encode: there was no batch to encode.")
    return np.concatenate(rows), np.concatenate(positions).astype(np.int64)


@jax.jit
def _pack_finite(relaxed):
    """Packed codes [B, Wd] and whether each row was finite [B]."""
    finite = jnp.isfinite(relaxed).all(axis=-1)
    return pack(binarize(jnp.nan_to_num(relaxed))), finite


@jax.jit
def _with_finite(relaxed):
    """Relaxed bits [B, K] in float32 and whether each row was finite [B]."""
    return relaxed.astype(jnp.float32), jnp.isfinite(relaxed).all(axis=-1)
