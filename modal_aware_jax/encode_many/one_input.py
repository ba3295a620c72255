"""One input to ids and codes, by an exported model."""

import concurrent.futures
import pathlib
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from modal_aware_jax.data import pipeline, text
from modal_aware_jax.data.folder import no_text, split_text
from modal_aware_jax.data.folder_items import Item, read_items
from modal_aware_jax.data.problems import Problem
from modal_aware_jax.data.readers.rows import is_utf8
from modal_aware_jax.data.readers.tables import Tables, find_tables
from modal_aware_jax.data.stored_image import ImageProblem, to_stored_and_image
from modal_aware_jax.encode_many.inputs import Input
from modal_aware_jax.encode_many.storage import local_copy
from modal_aware_jax.hashing.codes import num_words
from modal_aware_jax.hashing.encode import encode
from modal_aware_jax.modes.model_files import EncoderModel

THREADS = 2
AHEAD = 3  # batches that are read while one is encoded


class Reading(NamedTuple):
    """How tables are read, as `data.folder.load` has it; None: by the usual names."""

    image_column: str | None = None
    text_column: tuple[str, ...] | None = None
    tag_separator: str | None = None
    stored_size: int | None = 256


class Encoded(NamedTuple):
    """What came of an input.

    Attributes:
      ids: [n].
      codes: packed, uint32 [n, Wd].
      problems: what is missing, and why.
      wordless: how many have no word that the model knows.
    """

    ids: list[str]
    codes: np.ndarray
    problems: list[Problem]
    wordless: int


def encode_input(
    source: Input, model: EncoderModel, *, batch_size: int, reading: Reading
) -> Encoded:
    """Encodes all pairs of an input that can be read, in their order.

    Images go the way of a collection that is prepared first (`data.stored_image`), so
    the codes are those of `--mode=encode`. Words that the model does not know are left
    out; a pair without any other has an empty text.

    Args:
      source: of `find_inputs`.
      model: of `load_model_file`, with a vocabulary.
      batch_size: pairs at a time; the last batch is filled up.
      reading: how its table is read.

    Raises:
      ValueError: nothing of the input can be read.
    """
    with local_copy(source.address) as path:
        items, problems = _items(path, source, reading)
        position = {word: i for i, word in enumerate(model.vocabulary)}
        ids, wordless = [], 0

        def batches():
            nonlocal wordless
            read = _read(items, model.image_size, reading.stored_size, problems)
            for batch in _batches(read, position, model, batch_size, reading, ids):
                wordless += int((batch["mask"] & ~batch["text"].any(axis=1)).sum())
                yield batch

        some = iter(batches())
        first = next(some, None)
        if first is None:
            codes = np.zeros((0, num_words(model.num_bits)), np.uint32)
            return Encoded([], codes, problems, 0)
        codes, _ = encode(model.relaxed, _chain(first, some))
    return Encoded(ids, codes, problems, wordless)


def _chain(first, rest):
    yield first
    yield from rest


def _items(path: pathlib.Path, source: Input, reading: Reading):
    """The rows that name an image under an id of its own, and what is wrong."""
    tables = Tables(path, (), ()) if path.is_dir() else find_tables(path)
    named = dict(
        image=reading.image_column,
        text=reading.text_column,
        label=None,
        one_hot=None,
        split=None,
    )
    naming = "--image_column=NAME and --text_column=NAME"
    found = read_items(tables, named, naming)
    items, problems, seen = [], list(found.problems), set()
    for place, _ in found.empty:
        problems.append(Problem("malformed line", str(place), "the table has no row"))
    rows = found.items[source.first : source.last] if source.last else found.items
    for item in rows:
        if item.image is None:
            message = "the row names no image"
            problems.append(Problem("missing image", item.where, message))
        elif not is_utf8(item.id):
            message = "its id has bytes that are not UTF-8: name it anew"
            problems.append(Problem("not UTF-8", item.where, message))
        elif told := no_text(item.text):
            problems.append(Problem("malformed line", item.where, told))
        elif item.id in seen:
            message = f"id {item.id!r} was used before"
            problems.append(Problem("duplicate id", item.where, message))
        else:
            seen.add(item.id)
            items.append(item)
    return items, problems


def _read(
    items: list[Item], size: int, stored_size: int | None, problems: list[Problem]
) -> Iterator[tuple[Item, np.ndarray]]:
    """Items with their images uint8 [S, S, 3], read ahead on threads, in order."""

    def read(item):
        try:
            _, image = to_stored_and_image(item.image.read(), stored_size)
            return pipeline.resize(image, size)
        except ImageProblem as error:
            return Problem(error.kind, item.where, str(error))
        except FileNotFoundError:
            return Problem("missing image", item.where, "there is no such file")
        except Exception as error:  # readers of damaged files raise nearly anything
            return Problem("unreadable image", item.where, f"cannot be read: {error}")

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        waiting = deque()
        for item in items:
            waiting.append((item, pool.submit(read, item)))
            if len(waiting) >= 100 * AHEAD:
                yield from _good(*waiting.popleft(), problems)
        while waiting:
            yield from _good(*waiting.popleft(), problems)


def _good(item, future, problems):
    result = future.result()
    if isinstance(result, Problem):
        problems.append(result)
    else:
        yield item, result


def _batches(read, position, model, batch_size, reading, ids):
    """Batches for `encode`; appends the ids of their rows."""
    size, width = model.image_size, model.num_text_features
    done = False
    while not done:
        images = np.zeros((batch_size, size, size, 3), np.uint8)
        bags = np.zeros((batch_size, width), np.float32)
        mask = np.zeros(batch_size, bool)
        for row in range(batch_size):
            item, image = next(read, (None, None))
            if item is None:
                done = True
                break
            images[row], mask[row] = image, True
            words = split_text(item.text, reading.tag_separator)
            bags[row, text.word_indices(words, position)] = 1
            ids.append(item.id)
        if mask.any():
            index = np.where(mask, len(ids) - mask.sum() + np.arange(batch_size), -1)
            batch = {"image": images, "text": bags, "index": index, "mask": mask}
            yield {**batch, "has_image": mask, "has_text": bags.any(axis=1)}
