"""Flickr30k: 31,783 photographs with five sentences each.

Official layout, extracted or zipped, in one folder: images in `flickr30k-images/` (or
`flickr30k_images/`) and `results_20130124.token`, lines `NAME.jpg#I<TAB>sentence`.
Kaggle's layout: `flickr30k_images/` and `results.csv`, lines `image_name|
comment_number| comment`. Neither has parts: those of Flickr30k Entities (`train.txt`,
`val.txt`, `test.txt`, a number a line) are read where they lie beside; Karpathy's are
in `dataset_flickr30k.json`, see `karpathy`.

P. Young et al.: From image descriptions to visual denotations, TACL 2, 2014.
"""

import os
import re

from modal_aware_jax.data.captions.flickr8k import read_split, token_sentences
from modal_aware_jax.data.captions.places import (
    ImageFiles,
    find_text,
    need_text,
    open_files,
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

NAME = "flickr30k"
TOKENS = ("results_20130124.token", "results.token")
SPLITS = ("train", "val", "test")


def read(
    directory: str | os.PathLike,
    *,
    keep_unlisted: bool = False,
    on_problem: str = "stop",
) -> Captions:
    """Reads Flickr30k in either layout; nothing is extracted or decoded.

    Args:
      directory: where the archives or folders are.
      keep_unlisted: where there are lists of parts, whether to keep the images that are
        in none, with split ''.
      on_problem: 'stop' raises DataProblems after everything was looked at; 'skip'
        leaves out what is wrong and returns the problems.

    Returns:
      `Captions`, whose ids are the names of the files.
    """
    check_on_problem(NAME, on_problem)
    files = open_files(NAME, directory)
    problems = list(files.problems)
    source = need_text(NAME, files, directory, *TOKENS, "results.csv")
    if source.lower().endswith(".csv"):
        sentences = kaggle_sentences(files, source, problems)
    else:
        sentences = token_sentences(files, source, problems)
    by_image = sentences_of_images(sentences, problems)
    splits = {}
    for split in SPLITS:
        if (listed := find_text(files, f"{split}.txt")) is not None:
            read_split(files, listed, split, splits, problems, suffix=".jpg")
    images = ImageFiles(files)
    records = records_of(
        by_image, splits, images, problems, keep_unlisted=keep_unlisted
    )
    return finish(NAME, records, problems, on_problem)


def kaggle_sentences(files, name, problems):
    """Sentences of lines `image| number| sentence`, the first line a header.

    One line of the file that Kaggle serves lacks its second bar; it is read too.
    """
    lines = text_lines(files, name, problems)
    where, header = next(lines, ("", ""))
    if [cell.strip() for cell in header.split("|")][:2] != [
        "image_name",
        "comment_number",
    ]:
        message = f"the header is {header!r}, not image_name| comment_number| comment"
        problems.append(Problem("malformed line", where or files.where(name), message))
        return
    for where, line in lines:
        match = re.fullmatch(r"\s*([^|]+?)\s*\|\s*(\d+)\b\s*\|?\s*(.*)", line.rstrip())
        if match:
            yield Sentence(match[1], int(match[2]), match[3], where)
        else:
            message = f"{line[:60]!r} is not an image| number| sentence"
            problems.append(Problem("malformed line", where, message))
