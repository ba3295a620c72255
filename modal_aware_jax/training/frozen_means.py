"""Means of a frozen backbone's last maps, kept on disk beside the maps they are of."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.training.cache import fingerprint, sole_writer
from modal_aware_jax.training.progress import ProgressBar
from modal_aware_jax.training.workdir import explain_write_errors


def frozen_means(
    maps: np.ndarray,
    mean_fn: Callable[[np.ndarray], jax.Array],
    weights: Any,
    *,
    collection: Collection,
    path: str | os.PathLike,
    image_size: int,
    batch_size: int = 128,
) -> np.ndarray:
    """The mean over positions of the last maps of every image and its mirror image.

    Where a network without blocks reads nothing else of a frozen backbone, its steps
    need no convolution.

    Args:
        maps: of `cache.frozen_maps`, [N, 2, h, w, C].
        mean_fn: the rest of the backbone and the mean, jitted, in evaluation mode:
            maps [B, h, w, C] to [B, 1, 1, D].
        weights: all arrays that maps and `mean_fn` depend on, as a tree.
        collection: the pairs, N of them; this, the weights and the size of the images
            give the file its name.
        path: the folder of such files.
        image_size: of the images that the maps are of.
        batch_size: B.

    Returns:
        float32 [N, 2, 1, 1, D], mapped from the file, read-only: plain, flipped.

    Raises:
        WorkdirError: the folder cannot be written, or the disk is full.
    """
    digest = fingerprint(weights, collection, image_size)
    folder = Path(os.path.abspath(os.path.expanduser(path)))
    done = folder / f"means-{collection.name}-{image_size}-{digest}.npy"
    with sole_writer(done) as missing:
        if missing:
            means = _compute(maps, mean_fn, batch_size)
            partial = done.with_suffix(".partial")
            with explain_write_errors(partial), open(partial, "wb") as file:
                np.save(file, means)
                file.flush()
                os.fsync(file.fileno())
                partial.replace(done)
    return np.load(done, mmap_mode="r")


def _compute(maps, mean_fn, batch_size):
    count = len(maps)
    rows = maps.reshape(2 * count, *maps.shape[2:])
    parts = []
    with ProgressBar(len(rows), label="means of the maps") as bar:
        for start in range(0, len(rows), batch_size):
            # The last batch ends at the end, so that every batch has one size.
            first = max(0, min(start, len(rows) - batch_size))
            means = np.asarray(mean_fn(rows[first : first + batch_size]), np.float32)
            parts.append(means[start - first :])
            bar.advance(len(parts[-1]))
    means = np.concatenate(parts)
    return means.reshape(count, 2, *means.shape[1:])
