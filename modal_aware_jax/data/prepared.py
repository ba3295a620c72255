"""Opens what `prepare.py` wrote: columns in memory, images and captions on disk.

A preparation is a directory of

- `preparation.json`: name, options, counts, vocabulary and label names;
- `columns.npz`: ids, text and labels, to be read at once;
- `problems.jsonl`: what was wrong with the input, one a line;
- a tensorflow-datasets dataset in ArrayRecord with everything, read by position.
"""

import functools
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from modal_aware_jax.data.collection import Collection


def open_prepared(directory: str | os.PathLike) -> Collection:
    """Opens a preparation as a collection; images and captions stay on disk.

    Args:
      directory: one that `load_or_prepare` made.
    """
    directory = pathlib.Path(directory)
    facts = read_facts(directory)
    with np.load(directory / "columns.npz", allow_pickle=False) as columns:
        text = _dense(columns["text"], columns["text_ends"], len(facts["vocabulary"]))
        labels = _dense(
            columns["labels"], columns["labels_ends"], len(facts["label_names"])
        )
        ids = columns["ids"]
        parts = columns["parts"] if "parts" in columns.files else None
        has_image = columns["has_image"] if "has_image" in columns.files else None
    records = str(directory / facts["records"])
    return Collection(
        name=facts["name"],
        ids=ids,
        images=RecordColumn(records, "image", len(ids), directory.name),
        text=text,
        captions=RecordColumn(records, "caption", len(ids), directory.name),
        labels=labels,
        vocabulary=tuple(facts["vocabulary"]),
        label_names=tuple(facts["label_names"]),
        parts=parts,
        has_image=has_image,
    )


def read_facts(directory: str | os.PathLike) -> dict:
    """What is known of a preparation: name, options, counts, vocabulary, labels."""
    path = pathlib.Path(directory) / "preparation.json"
    return json.loads(path.read_text(encoding="utf-8"))


class RecordColumn(Sequence):
    """One column of an ArrayRecord dataset, read by position; pickled as a path.

    Attributes:
      preparation: the name of its directory, another one after a change of the source.
    """

    def __init__(self, records: str, column: str, length: int, preparation: str):
        self.preparation = preparation
        self._records = records
        self._column = column
        self._length = length

    def __len__(self):
        return self._length

    def __getitem__(self, position):
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(self._length))]
        position = range(self._length)[position]
        source, feature, decoders = self._reader
        raw = source[position]
        value = feature.deserialize_example_np(raw, decoders=decoders)[self._column]
        return value if self._column == "image" else value.decode("utf-8")

    def __getstate__(self):
        state = dict(self.__dict__)
        state.pop("_reader", None)
        return state

    @functools.cached_property
    def _reader(self):
        try:
            builder = tfds.builder_from_directory(self._records)
            source = builder.as_data_source(split="train").data_source
        except Exception as error:  # whatever the library makes of a missing file
            raise ValueError(
                f"The prepared data in {self._records} cannot be opened "
                f"({type(error).__name__}): was it moved, or is its disk away? Put it "
                "back and give the same command again."
            ) from error
        # Parsing this column alone halves the time of a read.
        column = builder.info.features[self._column]
        feature = tfds.features.FeaturesDict({self._column: column})
        is_image = self._column == "image"
        decoders = {"image": tfds.decode.SkipDecoding()} if is_image else None
        return source, feature, decoders


def save_columns(path: pathlib.Path, rows: Sequence[tuple]) -> None:
    """Writes ids, and sparse text and labels as positions and the end of each row.

    Args:
      path: the `.npz` file to write.
      rows: of each pair id, positions of words, positions of labels, part of a given
        split, and whether it has an image.
    """
    columns = {"ids": np.array([row[0] for row in rows], dtype=str)}
    for column, place in (("text", 1), ("labels", 2)):
        parts = [np.asarray(row[place], np.int32) for row in rows]
        columns[column] = np.concatenate(parts)
        columns[f"{column}_ends"] = np.cumsum([len(part) for part in parts])
    if len({row[3] for row in rows}) > 1:  # a single part splits nothing
        columns["parts"] = np.array([row[3] for row in rows], dtype=str)
    if not all(row[4] for row in rows):
        columns["has_image"] = np.array([row[4] for row in rows], dtype=bool)
    np.savez_compressed(path, **columns)


def _dense(positions, ends, width):
    """Sparse rows -> uint8 [N, width] of 0 and 1."""
    table = np.zeros((len(ends), width), np.uint8)
    rows = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    table[rows, positions] = 1
    return table
