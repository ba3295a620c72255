"""Perturbed pairs through finished networks: from a condition to MAP.

Images are perturbed as the network reads them, at its size. Where networks were
trained on cached maps of a frozen lower half, that half runs again on the perturbed
images, once for all that share it. All networks see the same perturbed pairs.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from modal_aware_jax.build import Experiment
from modal_aware_jax.compare.cells import Cell
from modal_aware_jax.data import pipeline
from modal_aware_jax.data.perturbations import LEVELS, perturb_image, perturb_words
from modal_aware_jax.hashing.encode import encode
from modal_aware_jax.modes.encoder import lower_half
from modal_aware_jax.retrieval.metrics import mean_average_precision
from modal_aware_jax.training import cache
from modal_aware_jax.training.progress import ProgressBar

OTHER_TEXTS = 2000  # words that replace others come from so many training pairs


class Condition(NamedTuple):
    """What is perturbed: names of `LEVELS`, '' for neither, and the level, 0 to 3."""

    image: str = ""
    text: str = ""
    level: int = 0


def conditions(levels: Sequence[int]) -> list[Condition]:
    """The clean condition, one modality at a time, and both at the same level.

    >>> len(conditions([1])), conditions([1])[1]
    (14, Condition(image='noise', text='', level=1))
    """
    images = [name for name, row in LEVELS.items() if row.modality == "image"]
    texts = [name for name, row in LEVELS.items() if row.modality == "text"]
    both = [("noise", text) for text in texts]
    both += [(image, "drop") for image in images if image != "noise"]
    names = [(image, "") for image in images] + [("", text) for text in texts] + both
    pairs = itertools.product(names, levels)
    return [Condition(), *(Condition(*name, level) for name, level in pairs)]


class Reader:
    """One cell's network: perturbed images and text vectors to packed codes.

    Args:
      experiment: with the cell's weights.
      like: the reader of another cell of the same method and code length, whose
        compiled program is used again.

    Attributes:
      lower: maps images to the cached maps' place in the network, or None where the
        network reads images; `share` is equal for networks that share `lower`.
    """

    def __init__(self, experiment: Experiment, like: "Reader | None" = None):
        graphdef, state = nnx.split(experiment.model)

        def network(state, batch):
            return experiment.output(nnx.merge(graphdef, state), batch)

        self._network = like._network if like else jax.jit(network)
        self._state = state
        self.lower, self.share = None, None
        self.needs_image = hasattr(experiment.model, "backbone")
        if experiment.cached_maps and self.needs_image:
            lower, weights = lower_half(experiment)
            self.share = cache.fingerprint(
                weights, experiment.collection, experiment.image_size
            )

            def maps(images):
                readings = [images]
                if experiment.mirrored:
                    readings.append(images[:, :, ::-1])
                # The cached maps that it was trained on are float16.
                found = [lower(x).astype(np.float16) for x in readings]
                return np.stack(found, axis=1) if experiment.mirrored else found[0]

            self.lower = maps

    def codes(self, images, text) -> np.ndarray:
        """Packed codes [B, Wd] of images (or maps of `lower`) and text [B, T]."""
        batch = {"image": images, "text": text, "index": np.arange(len(text))}
        return encode(lambda b: self._network(self._state, b), [batch])[0]


class Perturbed:
    """Pairs of a collection under any condition, batch by batch, for many readers.

    Args:
      experiment: of any cell: its collection and text encoder.
      readers: by cell.
      batch_size: B; the last batch is filled up with repeats, which are cut off.
      seed: of all perturbations.
    """

    def __init__(self, experiment, readers: dict[Cell, Reader], *, batch_size, seed):
        self.experiment, self.readers = experiment, readers
        self.batch_size, self.seed = batch_size, seed
        pairs, text = experiment.collection, experiment.text
        some = experiment.split.train[:OTHER_TEXTS]
        self.others = [word for i in some for word in text.words(pairs, i)]

    def codes(self, positions, image: tuple, texts: Sequence[tuple], progress):
        """Packed codes by (cell, text) of the pairs, one image condition, many texts.

        Args:
          positions: in the collection.
          image, texts: (name, level); ('', 0) for none.
          progress: is told the number of pairs after each batch.
        """
        found = {(cell, text): [] for cell in self.readers for text in texts}
        for start in range(0, len(positions), self.batch_size):
            own = positions[start : start + self.batch_size]
            filled = np.resize(own, self.batch_size)
            images = self._images(filled, *image)
            vectors = {text: self._texts(filled, *text) for text in texts}
            maps = {}
            for cell, reader in self.readers.items():
                seen = images
                if not reader.needs_image:
                    seen = np.zeros((len(images), 1, 1, 1), np.uint8)
                elif reader.lower is not None:
                    if reader.share not in maps:
                        maps[reader.share] = reader.lower(images)
                    seen = maps[reader.share]
                for text in texts:
                    codes = reader.codes(seen, vectors[text])
                    found[cell, text].append(codes[: len(own)])
            progress(len(own))
        return {key: np.concatenate(parts) for key, parts in found.items()}

    def _images(self, positions, name, level):
        size = self.experiment.image_size
        images = np.empty((len(positions), size, size, 3), np.uint8)
        for row, position in enumerate(positions):
            picture = pipeline.decode(self.experiment.collection.images[int(position)])
            images[row] = pipeline.resize(picture, size)
            if name:
                images[row] = perturb_image(
                    images[row],
                    name,
                    LEVELS[name].doses[level - 1],
                    seed=self.seed,
                    position=int(position),
                )
        return images

    def _texts(self, positions, name, level):
        pairs, text = self.experiment.collection, self.experiment.text
        if not name:
            return pairs.text[positions].astype(np.float32)
        documents = [
            perturb_words(
                text.words(pairs, position),
                name,
                LEVELS[name].doses[level - 1],
                self.others,
                seed=self.seed,
                position=int(position),
            )
            for position in positions
        ]
        return text.encode(documents)


def measure(
    perturbed: Perturbed,
    wanted: Sequence[Condition],
    *,
    queries: np.ndarray,
    clean_database: dict[Cell, np.ndarray] | None,
) -> Iterator[dict]:
    """Yields a row of `report.robustness.drops` for every cell and condition.

    Args:
      perturbed: the pairs and the cells' networks.
      wanted: those under the same image condition are encoded together.
      queries: positions of the queries.
      clean_database: packed codes of the split's database by cell; None perturbs the
        database as the queries are.
    """
    pairs, parts = perturbed.experiment.collection, perturbed.experiment.split
    places = {"map": np.arange(len(parts.database))}
    unseen = np.flatnonzero(~np.isin(parts.database, parts.train))
    places["map_unseen"] = unseen if len(unseen) else places["map"]
    groups = {}
    for condition in wanted:
        image = (condition.image, condition.level if condition.image else 0)
        groups.setdefault(image, []).append(condition)
    total = len(queries) + (0 if clean_database else len(parts.database))
    for image, some in groups.items():
        texts = {c: (c.text, c.level if c.text else 0) for c in some}
        label = f"{image[0]} {image[1]}" if image[0] else "clean images"
        with ProgressBar(total, label=label) as bar:
            distinct = list(dict.fromkeys(texts.values()))
            query = perturbed.codes(queries, image, distinct, bar.advance)
            database = None
            if clean_database is None:
                database = perturbed.codes(parts.database, image, distinct, bar.advance)
        for condition, cell in itertools.product(some, perturbed.readers):
            key = cell, texts[condition]
            searched = clean_database[cell] if database is None else database[key]
            scores = {}
            for name, rows in places.items():
                scores[name] = mean_average_precision(
                    query[key],
                    searched[rows],
                    pairs.labels[queries],
                    pairs.labels[parts.database[rows]],
                    num_bits=cell.bits,
                )
            yield {**cell._asdict(), **condition._asdict(), **scores}
