"""Maps of frozen lower stages, computed once, plain and flipped, and kept on disk."""

import contextlib
import fcntl
import hashlib
import io
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.pipeline import eval_batches
from modal_aware_jax.training.cached_pictures import file_of
from modal_aware_jax.training.errors import Interrupted
from modal_aware_jax.training.progress import ProgressBar
from modal_aware_jax.training.signals import StopSignals
from modal_aware_jax.training.workdir import explain_write_errors


def frozen_maps(
    collection: Collection,
    lower_fn: Callable[[np.ndarray], jax.Array],
    weights: Any,
    *,
    path: str | os.PathLike,
    image_size: int,
    batch_size: int = 64,
    workers: int = 0,
) -> np.memmap:
    """The maps of every image and of its mirror image, from disk when they are there.

    They are computed in the order of the collection. A stopped computation goes on
    where it was; a finished one is opened at once. The file's name tells weights,
    image size and collection: if any of them changes, so does the file.

    Args:
        collection: the pairs, N of them.
        lower_fn: the frozen stages, jitted, in evaluation mode: uint8 images
            [B, S, S, 3] to maps [B, h, w, C].
        weights: all arrays that `lower_fn` depends on, as a tree.
        path: the folder of such files.
        image_size: S.
        batch_size: B.
        workers: reading processes.

    Returns:
        float16 [N, 2, h, w, C], mapped from the file, read-only: plain, flipped.

    Raises:
        Interrupted: SIGTERM or Ctrl-C; what was computed stays.
        WorkdirError: the folder cannot be written, or the disk is full.
    """
    done = cached_file("maps", weights, collection, path=path, image_size=image_size)
    with sole_writer(done) as missing:
        if missing:
            _compute(collection, lower_fn, done, image_size, batch_size, workers)
    return np.load(done, mmap_mode="r")


def cached_file(
    kind: str,
    weights: Any,
    collection: Collection,
    *,
    path: str | os.PathLike,
    image_size: int,
) -> Path:
    """Where what a frozen backbone gives of a collection is kept.

    Args:
        kind: the first part of the file's name.
        weights, collection, path, image_size: as of `frozen_maps`.
    """
    digest = fingerprint(weights, collection, image_size)
    folder = Path(os.path.abspath(os.path.expanduser(path)))
    name = f"{kind}-{collection.name}-{image_size}-{digest}.npy"
    return file_of(folder / name, collection)


@contextlib.contextmanager
def sole_writer(done: Path) -> Iterator[bool]:
    """Holds a file of the cache against other writers; yields whether it is missing.

    Waits for a process that is writing it. A file that is there is not waited for.
    """
    if done.exists():
        yield False
        return
    with explain_write_errors(done.parent):
        done.parent.mkdir(parents=True, exist_ok=True)
        lock = open(done.with_suffix(".lock"), "a")
    with lock:
        _wait_for(lock, done)
        yield not done.exists()


def fingerprint(weights: Any, collection: Collection, image_size: int) -> str:
    """16 hex digits of the weights, the image size, the ids and 32 of the images.

    >>> pairs = Collection("a", ["x"], [b"."], np.eye(1), [""], np.eye(1), ["w"], ["l"])
    >>> len(fingerprint({"w": np.zeros(2)}, pairs, 64))
    16
    """
    digest = hashlib.sha256(f"{image_size} {len(collection)}".encode())
    for leaf_path, leaf in jax.tree.leaves_with_path(weights):
        leaf = np.asarray(leaf)
        name = jax.tree_util.keystr(leaf_path)
        digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    digest.update("\n".join(map(str, collection.ids)).encode())
    some = np.linspace(0, len(collection) - 1, min(32, len(collection))).astype(int)
    for i in some:
        digest.update(bytes(collection.images[int(i)]))
    return digest.hexdigest()[:16]


def _compute(collection, lower_fn, done, image_size, batch_size, workers) -> None:
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.uint8)
    shape = (len(collection), 2, *jax.eval_shape(lower_fn, image).shape[1:])
    partial = done.with_suffix(".partial")
    with explain_write_errors(done.parent):
        file, start = _open_partial(partial, shape)
    bar = ProgressBar(len(collection), done=start, label="frozen maps")
    with file, StopSignals() as stop, bar:
        begun, count = time.monotonic(), start
        for rows in _rows(lower_fn, collection, start, image_size, batch_size, workers):
            with explain_write_errors(partial):
                file.write(rows.tobytes())
                file.flush()
            count += len(rows)
            speed = (count - start) / (time.monotonic() - begun)
            bar.update(count, f"{speed:.0f} images/s")
            if stop.signum is not None:
                raise Interrupted(
                    f"Stopped by {signal.Signals(stop.signum).name} with the maps of "
                    f"{count} of {len(collection)} images in {partial}. The same "
                    "command goes on from there.",
                    stop.signum,
                )
        with explain_write_errors(partial):
            os.fsync(file.fileno())
            partial.replace(done)


def _open_partial(partial: Path, shape: tuple) -> tuple[BinaryIO, int]:
    """A .npy file to append rows to, and how many it has: its length tells."""
    layout = {"descr": "<f2", "fortran_order": False, "shape": shape}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, layout)
    header = header.getvalue()
    file = open(partial, "a+b")
    file.seek(0)
    if file.read(len(header)) != header:  # new, or torn at its very beginning
        file.truncate(0)
        file.write(header)
        file.flush()
    row = 2 * math.prod(shape[1:])
    start = (os.path.getsize(partial) - len(header)) // row
    file.truncate(len(header) + start * row)
    return file, start


def _rows(lower_fn, collection, start, image_size, batch_size, workers):
    """Yields float16 [n, 2, h, w, C]; the device is one batch ahead."""
    if start == len(collection):
        return
    batches = eval_batches(
        collection,
        np.arange(start, len(collection)),
        batch_size=batch_size,
        image_size=image_size,
        workers=workers,
    )
    waiting = None
    for batch in batches:
        images = batch["image"]
        maps = lower_fn(images), lower_fn(np.ascontiguousarray(images[:, :, ::-1]))
        if waiting is not None:
            yield _as_float16(*waiting)
        waiting = maps, int(batch["mask"].sum())
    yield _as_float16(*waiting)


def _as_float16(maps, count):
    with np.errstate(over="ignore"):
        rows = np.stack([np.asarray(m) for m in maps], axis=1)[:count]
        rows = rows.astype(np.float16)  # [n, 2, h, w, C]
    if not np.isfinite(rows).all():
        raise ValueError(
            "frozen_maps: lower_fn gave maps beyond float16's range (65,504) or NaN. "
            "Expected activations of a few units: check the weights and the image "
            "scaling."
        )
    return rows


def _wait_for(lock, done) -> None:
    """Lets another process that computes the same file finish."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Waiting for another process to write {done}.", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
