"""A frozen backbone's last maps or their means, kept on disk beside its lower maps."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.training.cache import cached_file, sole_writer
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
    kind: str = "means",
    dtype=np.float32,
    batch_size: int = 128,
) -> np.ndarray:
    """The mean over positions of the last maps of every image and its mirror image.

    Where a network reads nothing else of a frozen backbone, its steps need no
    convolution. Or the last maps themselves, for a network that reads positions.

    Args:
        maps: of `cache.frozen_maps`, [N, 2, h, w, C].
        mean_fn: the rest of the backbone and the mean, jitted, in evaluation mode:
            maps [B, h, w, C] to [B, 1, 1, D]; or without the mean, to [B, h', w', D].
        weights: all arrays that maps and `mean_fn` depend on, as a tree.
        collection: the pairs, N of them; this, the weights and the size of the images
            give the file its name.
        path: the folder of such files.
        image_size: of the images that the maps are of.
        kind: of the file, the first part of its name.
        dtype: of the file's numbers.
        batch_size: B.

    Returns:
        [N, 2, 1, 1, D] or [N, 2, h', w', D], mapped from the file, read-only: plain,
        flipped.

    Raises:
        WorkdirError: the folder cannot be written, or the disk is full.
    """
    done = cached_file(kind, weights, collection, path=path, image_size=image_size)
    with sole_writer(done) as missing:
        if missing:
            partial = done.with_suffix(".partial")
            with explain_write_errors(partial):
                _compute(maps, mean_fn, partial, np.dtype(dtype), batch_size)
                partial.replace(done)
    return np.load(done, mmap_mode="r")


def _compute(maps, mean_fn, partial, dtype, batch_size):
    """Writes what `mean_fn` gives of all maps, a batch at a time."""
    count = 2 * len(maps)
    rows = maps.reshape(count, *maps.shape[2:])
    with (
        open(partial, "wb") as file,
        ProgressBar(count, label="last maps or means") as bar,
    ):
        for start in range(0, count, batch_size):
            # The last batch ends at the end, so that every batch has one size.
            begin = max(0, min(start, count - batch_size))
            some = np.asarray(mean_fn(rows[begin : begin + batch_size]))
            some = some[start - begin :].astype(dtype)
            if start == 0:
                shape = (len(maps), 2, *some.shape[1:])
                layout = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, layout)
            file.write(np.ascontiguousarray(some).tobytes())
            bar.advance(len(some))
        file.flush()
        os.fsync(file.fileno())
