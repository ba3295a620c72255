"""From a collection to batches, with Grain: decode, augment, batch, pad and mask.

Batches are dicts of NumPy arrays:

- `image`: uint8 [B, S, S, 3], or the cached maps float16 [B, h, w, C];
- `text`: float32 [B, T], or a dict of `tokens` float32 [B, S, D] and `mask` bool
  [B, S] (with several texts an item [B, C, S, D] and [B, C, S]);
- `labels`: uint8 [B, L];
- `index`: int32 [B], positions in the collection;
- `has_image`, `has_text`: bool [B], where the collection says which rows have one;
- evaluation batches also `mask`: bool [B], False on padded rows (their `index` is -1
  and the rest zero).

Training batch number i is a pure function of the seed and i. The state of a training
iterator is one integer, and setting it gives the same batches bit for bit:

    iterator = iter(train_batches(...))
    state = iterator.get_state()
    iterator.set_state(state)

Where several processes read a batch together, `share` names a process and their number:
each gets its block of the rows that a single one would read, and nothing else differs.

Images are decoded and resized by PIL alone (bilinear with its support widened when
shrinking); other libraries differ by about 1/255.
"""

import dataclasses
import io
import os
from typing import NamedTuple

import grain
import jax
import numpy as np
from PIL import Image

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.perturbations import degrade

BATCHES_AHEAD = 4
PRESENCE = ("has_image", "has_text")


def train_batches(
    collection: Collection,
    indices: np.ndarray,
    *,
    batch_size: int,
    image_size: int,
    seed: int,
    workers: int = 0,
    threads: int | None = None,
    crop_scale: tuple[float, float] = (0.3, 1.0),
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
    degraded: float = 0.0,
    share: tuple[int, int] = (0, 1),
) -> grain.IterDataset:
    """Endless augmented batches, reshuffled each epoch; the last partial is dropped.

    Args:
      collection: where to read.
      indices: positions of the pairs to read.
      batch_size: B.
      image_size: S.
      seed: of order and augmentation.
      workers: reading processes. 0 reads in this process, on threads (decoding
        releases Python's lock), which is the faster way on few cores. Processes need
        a `if __name__ == "__main__":` guard in the starting script, and the state of
        an iterator fits the same number of processes only. The batches are the same.
      threads: reading threads of each process; None: the cores, 4 at most.
      crop_scale: range of a crop's area as a part of the image's.
      crop_ratio: range of a crop's width : height, relative to the image's.
      flip: whether half of the crops are mirrored.
      degraded: the share of crops that `perturbations.degrade` has its way with.
      share: (number, count) of the process: it reads B / count rows of each batch.

    Example:
      >>> png = io.BytesIO()
      >>> Image.new("RGB", (8, 8)).save(png, "PNG")
      >>> pairs = Collection("one", ["a"], [png.getvalue()], [[1]], ["sea"], [[1]],
      ...                    ["sea"], ["water"])
      >>> next(iter(train_batches(pairs, [0], batch_size=1, image_size=4, seed=0,
      ...                         threads=1)))["image"].shape
      (1, 4, 4, 3)
    """
    _check_indices(indices, collection, batch_size, "train_batches")
    augment = _RandomCrop(
        collection, image_size, tuple(crop_scale), tuple(crop_ratio), flip, degraded
    )
    rows = _rows_of(share, batch_size, "train_batches")
    pairs = _positions(indices).seed(seed).shuffle().random_map(augment)
    if share[1] > 1:
        pairs = _Rows(pairs, batch_size, rows)
    batches = pairs.batch(rows.stop - rows.start, drop_remainder=True).repeat()
    return _read_ahead(batches, workers, threads)


def cached_train_batches(
    maps: np.ndarray,
    collection: Collection,
    indices: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    flip: bool = True,
    degraded: tuple[np.ndarray, float] | None = None,
    share: tuple[int, int] = (0, 1),
) -> grain.IterDataset:
    """Endless batches of cached maps, plain or flipped at random for each pair.

    Args:
      maps: [N, 2, h, w, C] of the whole collection, plain and flipped, commonly a
        memory-mapped file. A batch is gathered in one vectorised read.
      collection: the pairs.
      indices: positions of the pairs to read.
      batch_size: B.
      seed: of order and flips.
      flip: whether half of the maps are flipped.
      degraded: maps [len(indices), 2, h, w, C] of the same pairs' degraded pictures
        (`degraded.degraded_pictures`), and the share of rows that read these.
      share: as in `train_batches`.
    """
    _check_indices(indices, collection, batch_size, "cached_train_batches")
    _check_maps(maps, collection, "cached_train_batches")
    rows = _rows_of(share, batch_size, "cached_train_batches")
    others = degraded and _OtherMaps(*degraded, _rows_by_position(indices, collection))
    batches = (
        _positions(indices)
        .seed(seed)
        .shuffle()
        .batch(batch_size, drop_remainder=True, batch_fn=np.asarray)
        .random_map(_GatherMaps(maps, collection, rows, flip, others))
        .repeat()
    )
    return _read_ahead(batches, 0, 1)


def eval_batches(
    collection: Collection,
    indices: np.ndarray,
    *,
    batch_size: int,
    image_size: int,
    workers: int = 0,
    threads: int | None = None,
    share: tuple[int, int] = (0, 1),
) -> grain.IterDataset:
    """One pass in the given order, unaugmented; the last batch is padded and masked.

    The whole image is squeezed to S x S, so that nothing at its edges is lost. `share`
    is as in `train_batches`.
    """
    load = _WholeBatch(collection, image_size)
    _check_indices(indices, collection, batch_size, "eval_batches", partial=True)
    rows = _rows_of(share, batch_size, "eval_batches")
    batches = _padded_positions(indices, batch_size, rows).map(load)
    return _read_ahead(batches, workers, threads)


def cached_eval_batches(
    maps: np.ndarray,
    collection: Collection,
    indices: np.ndarray,
    *,
    batch_size: int,
    share: tuple[int, int] = (0, 1),
    mirrored: bool = False,
) -> grain.IterDataset:
    """One pass over the plain cached maps; the last batch is padded and masked.

    `share` is as in `train_batches`. With `mirrored` a batch's `image` holds plain and
    flipped maps, [B, 2, h, w, C].
    """
    caller = "cached_eval_batches"
    _check_indices(indices, collection, batch_size, caller, partial=True)
    _check_maps(maps, collection, caller)
    gather = _GatherFixedMaps(maps, collection, mirrored)
    rows = _rows_of(share, batch_size, caller)
    batches = _padded_positions(indices, batch_size, rows).map(gather)
    return _read_ahead(batches, 0, 1)


def decode(encoded: bytes) -> Image.Image:
    """Decodes an image to RGB."""
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def resize(image: Image.Image, size: int, box=None) -> np.ndarray:
    """Resizes a box (left, upper, right, lower) of an image -> uint8 [S, S, 3]."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def random_box(
    width: int,
    height: int,
    rng: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[float, float, float, float]:
    """A box (left, upper, right, lower) of random area, shape and place inside.

    As in Inception's random resized crop, but the ratio is relative to the image's
    own, so that squeezed and unsqueezed images are treated alike, and a shape that
    does not fit is cut to the image instead of being drawn again.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> random_box(8, 4, rng, scale=(1.0, 1.0), ratio=(1.0, 1.0))
      (0.0, 0.0, 8.0, 4.0)
    """
    area = rng.uniform(*scale)
    stretch = np.exp(rng.uniform(*np.log(ratio)))
    part_x = min(1.0, np.sqrt(area * stretch))
    part_y = min(1.0, np.sqrt(area / stretch))
    left = rng.uniform() * (1.0 - part_x)
    upper = rng.uniform() * (1.0 - part_y)
    box = (
        left * width,
        upper * height,
        min((left + part_x) * width, width),
        min((upper + part_y) * height, height),
    )
    return tuple(float(side) for side in box)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _RandomCrop(grain.transforms.RandomMap):
    """Position -> one augmented pair."""

    collection: Collection
    image_size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: bool
    degraded: float

    def random_map(self, element, rng):
        image = decode(self.collection.images[int(element)])
        box = random_box(*image.size, rng, self.scale, self.ratio)
        pixels = resize(image, self.image_size, box)
        if self.flip and rng.uniform() < 0.5:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        if self.degraded and rng.uniform() < self.degraded:
            pixels = degrade(pixels, rng)
        return {"image": pixels, **_columns(self.collection, element)}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _WholeBatch(grain.transforms.Map):
    """Padded positions [B] -> a batch of whole images."""

    collection: Collection
    image_size: int

    def map(self, element):
        size = self.image_size
        images = np.zeros((len(element), size, size, 3), np.uint8)
        for row, position in enumerate(element):
            if position >= 0:
                image = decode(self.collection.images[int(position)])
                images[row] = resize(image, size)
        return {"image": images, **_masked_columns(self.collection, element)}


class _OtherMaps(NamedTuple):
    """Maps that a share of the rows reads, and the row of each position in them."""

    maps: np.ndarray
    share: float
    rows: np.ndarray


def _rows_by_position(indices, collection):
    rows = np.full(len(collection), -1)
    rows[indices] = np.arange(len(indices))
    return rows


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _GatherMaps(grain.transforms.RandomMap):
    """Positions [B] -> a batch, or some rows of it, of maps, plain or flipped."""

    maps: np.ndarray
    collection: Collection
    rows: slice
    flip: bool = True
    others: _OtherMaps | None = None

    def random_map(self, element, rng):
        flipped = rng.integers(0, 2, size=len(element))[self.rows] * self.flip
        drawn = rng.random(len(element))[self.rows] if self.others else None
        element = element[self.rows]
        images = self.maps[element, flipped]  # [B, h, w, C]
        if self.others:
            other = drawn < self.others.share
            rows = self.others.rows[element[other]]
            images[other] = self.others.maps[rows, flipped[other]]
        return {
            "image": images,
            **_columns(self.collection, element),
        }


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _GatherFixedMaps(grain.transforms.Map):
    """Padded positions [B] -> a batch of cached maps, plain or plain and flipped."""

    maps: np.ndarray
    collection: Collection
    mirrored: bool

    def map(self, element):
        readings = slice(None) if self.mirrored else 0
        images = np.asarray(self.maps[np.maximum(element, 0), readings])
        images[element < 0] = 0
        return {"image": images, **_masked_columns(self.collection, element)}


def _columns(collection, positions):
    """Text, labels, index and masks of one position, or of a batch of them."""
    text = collection.text[positions]
    columns = {
        "text": text if isinstance(text, dict) else text.astype(np.float32),
        "labels": collection.labels[positions],
        "index": np.asarray(positions, np.int32),
    }
    for name in PRESENCE:
        if getattr(collection, name) is not None:
            columns[name] = getattr(collection, name)[positions]
    return columns


def _masked_columns(collection, positions):
    mask = positions >= 0
    batch = _columns(collection, np.maximum(positions, 0))
    for part in jax.tree.leaves(batch["text"]):
        part[~mask] = 0
    batch["labels"][~mask] = 0
    return {**batch, "index": positions.astype(np.int32), "mask": mask}


def _positions(indices):
    return grain.MapDataset.source(np.asarray(indices, np.int64))


def padded_positions(indices: np.ndarray, batch_size: int) -> np.ndarray:
    """Rows of B positions, int64 [ceil(n / B), B], -1 where the last row is padded."""
    indices = np.asarray(indices, np.int64)
    count = -(-len(indices) // batch_size)
    padded = np.full(count * batch_size, -1, np.int64)
    padded[: len(indices)] = indices
    return padded.reshape(count, batch_size)


def _padded_positions(indices, batch_size, rows):
    return grain.MapDataset.source(padded_positions(indices, batch_size)[:, rows])


def _rows_of(share, batch_size, caller):
    """The rows of a batch that a process reads, as a slice."""
    number, count = share
    if not 0 <= number < count or batch_size % count:
        raise ValueError(
            f"{caller}: a batch of {batch_size} cannot be read in equal parts by "
            f"{count} processes, of which this is number {number}. Take a multiple of "
            f"{count}."
        )
    rows = batch_size // count
    return slice(number * rows, (number + 1) * rows)


class _Rows(grain.MapDataset):
    """Of every B elements of a dataset the same rows; the last partial B is dropped."""

    def __init__(self, parent, batch_size, rows):
        super().__init__(parent)
        self._batch_size, self._rows = batch_size, rows
        self._count = rows.stop - rows.start

    def __len__(self):
        return len(self._parent) // self._batch_size * self._count

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        epoch, index = divmod(index, len(self))
        batch, row = divmod(index, self._count)
        start = epoch * len(self._parent) + batch * self._batch_size
        return self._parent[start + self._rows.start + row]


def _read_ahead(batches, workers, threads):
    """Reads batches ahead, on threads and, if asked, in processes."""
    threads = threads or min(4, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=BATCHES_AHEAD)
    dataset = batches.to_iter_dataset(options)
    if workers:
        from absl import flags

        # Grain's processes read absl flags, which notebooks and tests never parse.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return dataset


def _check_indices(indices, collection, batch_size, caller, *, partial=False):
    """Positions must exist, and fill a batch unless a partial one will do."""
    indices = np.asarray(indices)
    if batch_size < 1:
        raise ValueError(f"{caller}: batch_size must be positive, got {batch_size}.")
    if batch_size > len(indices) and not partial:
        raise ValueError(
            f"{caller}: batch_size must not be larger than the number of pairs "
            f"({len(indices)}), got {batch_size}."
        )
    if len(indices) and not (indices.min() >= 0 and indices.max() < len(collection)):
        raise ValueError(
            f"{caller}: indices must be positions in a collection of "
            f"{len(collection)} pairs, but they range from {indices.min()} to "
            f"{indices.max()}."
        )


def _check_maps(maps, collection, caller):
    if maps.ndim != 5 or maps.shape[:2] != (len(collection), 2):
        raise ValueError(
            f"{caller}: maps must have shape [{len(collection)}, 2, h, w, C] "
            f"(plain and flipped maps of the whole collection), got {maps.shape}."
        )
