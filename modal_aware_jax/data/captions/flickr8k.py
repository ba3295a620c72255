"""Flickr8k: 8,000 photographs with five sentences each.

Official layout, as zips or extracted, in one folder:

- `Flickr8k_Dataset.zip`: `Flicker8k_Dataset/NAME.jpg` (the spelling is theirs);
- `Flickr8k_text.zip`: `Flickr8k.token.txt`, lines `NAME.jpg#I<TAB>sentence`, and the
  parts `Flickr_8k.trainImages.txt`, `.devImages.txt`, `.testImages.txt`.

Kaggle's layout: `Images/NAME.jpg` and `captions.txt`, a CSV `image,caption`. It has no
parts, unless the official lists lie beside it.

M. Hodosh, P. Young and J. Hockenmaier: Framing image description as a ranking task,
JAIR 47, 2013.
"""

import csv
import io
import os
import re

from modal_aware_jax.data.captions.places import (
    ImageFiles,
    find_text,
    need_text,
    open_files,
    read_text,
    text_lines,
)
from modal_aware_jax.data.captions.records import (
    Captions,
    Sentence,
    check_on_problem,
    finish,
    records_of,
    sentences_of_images,
)
from modal_aware_jax.data.problems import Problem
from modal_aware_jax.data.readers.delimited import broken_rows

NAME = "flickr8k"
SPLITS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


def read(
    directory: str | os.PathLike,
    *,
    keep_unlisted: bool = False,
    on_problem: str = "stop",
) -> Captions:
    """Reads Flickr8k in either layout; nothing is extracted or decoded.

    Args:
      directory: where the archives or folders are.
      keep_unlisted: where there are lists of parts, whether to keep the images that are
        in none (91 of the official 8,091), with split ''.
      on_problem: 'stop' raises DataProblems after everything was looked at; 'skip'
        leaves out what is wrong and returns the problems.

    Returns:
      `Captions`, whose ids are the names of the files, with the parts 'train', 'val'
      and 'test'.
    """
    check_on_problem(NAME, on_problem)
    files = open_files(NAME, directory)
    problems = list(files.problems)
    source = need_text(NAME, files, directory, "Flickr8k.token.txt", "captions.txt")
    if source.lower().endswith("captions.txt"):
        sentences = kaggle_sentences(files, source, problems)
    else:
        sentences = token_sentences(files, source, problems)
    by_image = sentences_of_images(sentences, problems)
    splits = {}
    for split, base in SPLITS.items():
        if (listed := find_text(files, base)) is not None:
            read_split(files, listed, split, splits, problems)
    images = ImageFiles(files)
    records = records_of(
        by_image, splits, images, problems, keep_unlisted=keep_unlisted
    )
    return finish(NAME, records, problems, on_problem)


def token_sentences(files, name, problems):
    """Sentences of lines `NAME.jpg#I<TAB>sentence`, the form of both collections.

    One official image is written `NAME.jpg.1#I`: the end is not part of the name.
    """
    for where, line in text_lines(files, name, problems):
        match = re.fullmatch(r"(\S+?\.\w+?)(?:\.\d+)?#(\d+)\s(.*)", line.rstrip("\r\n"))
        if match:
            yield Sentence(match[1], int(match[2]), match[3], where)
        else:
            message = f"{line[:60]!r} is not NAME.jpg#NUMBER<TAB>sentence"
            problems.append(Problem("malformed line", where, message))


def kaggle_sentences(files, name, problems):
    """Sentences of a CSV `image,caption`, numbered as they come."""
    text = read_text(files, name).decode("utf-8-sig", "surrogateescape")
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    numbers: dict[str, int] = {}
    header = None
    while True:
        where = f"{files.where(name)} line {lines.line_num + 1}"
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            message = broken_rows(error, lines.line_num, where)
            problems.append(Problem("malformed line", where, message))
            continue
        if not cells:
            continue
        if header is None:
            header = [cell.strip().lower() for cell in cells]
            if header != ["image", "caption"]:
                message = f"the header is {cells}, not image,caption"
                problems.append(Problem("malformed line", where, message))
                return
        elif len(cells) != 2:
            message = f"{len(cells)} cells, not an image and a caption"
            problems.append(Problem("malformed line", where, message))
        elif any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
            problems.append(Problem("not UTF-8", where, "has bytes that are not UTF-8"))
        else:
            image = cells[0].strip()
            numbers[image] = numbers.get(image, -1) + 1
            yield Sentence(image, numbers[image], cells[1], where)


def read_split(files, name, split, splits, problems, *, suffix=""):
    """Adds the images of one list, a name a line, to the parts by image."""
    for where, line in text_lines(files, name, problems):
        image = line.strip()
        image += suffix if not image.lower().endswith(suffix) else ""
        if image in splits:
            message = f"{image} is in the {splits[image]} images already"
            problems.append(Problem("duplicate id", where, message))
        else:
            splits[image] = split
