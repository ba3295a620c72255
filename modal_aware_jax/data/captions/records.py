"""An image with its sentences, and how readers put such records together."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from modal_aware_jax.data.problems import DataProblems, Problem


class Captioned(NamedTuple):
    """One image and its sentences.

    Attributes:
      id: unique; the image file's name, or its number in the collection.
      read_image: reads the encoded image; OSError or BadZipFile where it cannot.
      where: the image file, for messages.
      sentences: as the file has them, in their order; at least one.
      split: the part it belongs to, as the collection names it ('train', 'val', 'test',
        'restval'); '' where it is in none.
    """

    id: str
    read_image: Callable[[], bytes]
    where: str
    sentences: tuple[str, ...]
    split: str


class Captions(NamedTuple):
    """What a reader found.

    Attributes:
      records: images in the order of the file of sentences.
      problems: what was left out and why; empty unless on_problem='skip'.
    """

    records: list[Captioned]
    problems: list[Problem]


class Sentence(NamedTuple):
    """A sentence of an image, and where it stands."""

    image: str
    number: int
    text: str
    where: str


def sentences_of_images(
    sentences: Iterable[Sentence], problems: list[Problem]
) -> dict[str, list[str]]:
    """Sentences by image, in the order of their numbers; adds what is wrong.

    Example:
      >>> rows = Sentence("a.jpg", 1, "two", ""), Sentence("a.jpg", 0, "one", "")
      >>> sentences_of_images(rows, [])
      {'a.jpg': ['one', 'two']}
    """
    numbered: dict[str, dict[int, str]] = {}
    for image, number, text, where in sentences:
        found = numbered.setdefault(image, {})
        if not text.strip():
            message = f"sentence {number} of {image} is empty"
            problems.append(Problem("no sentence", where, message))
        elif number in found:
            message = f"sentence {number} of {image} was there before"
            problems.append(Problem("duplicate id", where, message))
        else:
            found[number] = text.strip()
    return {
        image: [found[number] for number in sorted(found)]
        for image, found in numbered.items()
    }


def records_of(
    sentences: Mapping[str, list[str]],
    splits: Mapping[str, str],
    images,
    problems: list[Problem],
    *,
    keep_unlisted: bool,
) -> list[Captioned]:
    """Records of the images that have a sentence and a file; adds what is missing.

    Args:
      sentences: by image name.
      splits: the part of each image name; empty: there are no parts.
      images: an `ImageFiles`.
      problems: added to.
      keep_unlisted: whether images of no part are kept, with split ''.
    """
    records = []
    for name, texts in sentences.items():
        split = splits.get(name, "")
        if splits and not split and not keep_unlisted:
            continue
        if not texts:
            continue  # its empty sentences are problems already
        place = images.find(name)
        if place is None:
            problems.append(
                Problem("no image", name, f"no file {name} with {len(texts)} texts")
            )
            continue
        records.append(Captioned(name, *place, tuple(texts), split))
    for name, split in splits.items():
        if name not in sentences:
            message = f"{name} of the {split} images has no sentences"
            problems.append(Problem("no sentence", name, message))
    return records


def finish(
    name: str, records: list[Captioned], problems: list[Problem], on_problem: str
) -> Captions:
    """Raises `DataProblems` with all problems, or leaves them to the caller.

    Args:
      name: of the reader, for messages.
      on_problem: 'stop' or 'skip'.
    """
    if not records and not problems:
        raise ValueError(
            f"{name}: no image has a sentence. Look into the file that is to hold them."
        )
    if problems and (on_problem == "stop" or not records):
        raise DataProblems(name, problems)
    return Captions(records, problems)


def check_on_problem(name: str, on_problem: str) -> None:
    """ValueError unless on_problem is 'stop' or 'skip'."""
    if on_problem not in ("stop", "skip"):
        raise ValueError(
            f"{name}: on_problem must be 'stop' or 'skip', got {on_problem!r}."
        )
