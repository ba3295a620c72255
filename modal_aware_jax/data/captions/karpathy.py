"""Karpathy's splits of Flickr8k, Flickr30k and COCO: one JSON file with all sentences.

`dataset_flickr8k.json`, `dataset_flickr30k.json` or `dataset_coco.json`, in a folder
with the images of the collection, as zips or extracted (COCO: `train2014.zip`,
`val2014.zip`). Of every image it has `filename`, `split`, `imgid`, `sentences` and, in
COCO, `filepath` and `cocoid`.

COCO's parts are 'train' (82,783), 'val' (5,000), 'test' (5,000) and 'restval' (30,504):
the usual training set of matching is train and restval together. Some of its images
have six or seven sentences; `retrieval.coco_protocol.first_texts` keeps the usual five.

A. Karpathy and L. Fei-Fei: Deep visual-semantic alignments for generating image
descriptions, CVPR 2015 (arXiv:1412.2306).
"""

import json
import os
from collections.abc import Sequence

from modal_aware_jax.data.captions.places import (
    ImageFiles,
    need_text,
    open_files,
    read_text,
)
from modal_aware_jax.data.captions.records import (
    Captioned,
    Captions,
    check_on_problem,
    finish,
)
from modal_aware_jax.data.problems import DataProblems, Problem
from modal_aware_jax.data.readers.rows import is_utf8

NAME = "karpathy"
FILES = ("dataset_flickr8k.json", "dataset_flickr30k.json", "dataset_coco.json")
SPLITS = ("train", "val", "test", "restval")


def read(
    directory: str | os.PathLike,
    *,
    file: str | None = None,
    splits: Sequence[str] = SPLITS,
    on_problem: str = "stop",
) -> Captions:
    """Reads one of Karpathy's files; nothing is extracted or decoded.

    Args:
      directory: where the JSON file and the images are.
      file: name of the JSON file; None: the first of `dataset_flickr8k.json`,
        `dataset_flickr30k.json`, `dataset_coco.json` that is there.
      splits: the parts to read; images of others need not be there.
      on_problem: 'stop' raises DataProblems after everything was looked at; 'skip'
        leaves out what is wrong and returns the problems.

    Returns:
      `Captions`, whose ids are the names of the files.
    """
    check_on_problem(NAME, on_problem)
    unknown = [split for split in splits if split not in SPLITS]
    if isinstance(splits, str) or unknown:
        raise ValueError(
            f"karpathy.read: expected splits to be some of {', '.join(SPLITS)}, got "
            f"{splits!r}."
        )
    files = open_files(NAME, directory)
    source = need_text(NAME, files, directory, *([file] if file else FILES))
    problems = list(files.problems)
    items = _items(files, source)
    images, seen, records = ImageFiles(files), set(), []
    for number, item in enumerate(items):
        where = f"{files.where(source)} image {number}"
        record = _record(item, where, images, splits, problems)
        if record is None:
            continue
        if record.id in seen:
            message = f"{record.id} was there before"
            problems.append(Problem("duplicate id", where, message))
            continue
        seen.add(record.id)
        records.append(record)
    return finish(NAME, records, problems, on_problem)


def _items(files, source):
    """The list `images`; DataProblems where the file has none."""
    encoded = read_text(files, source)
    try:
        content = json.loads(encoded.decode("utf-8-sig"))
        if not is_utf8(json.dumps(content, ensure_ascii=False)):
            raise ValueError("it has half a surrogate pair")
        items = content["images"]
        if not isinstance(items, list):
            raise TypeError(f"`images` is a {type(items).__name__}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"is not JSON with a list `images`: {error}"
        problem = Problem("unreadable file", files.where(source), message)
        raise DataProblems(NAME, [problem], skippable=False) from None
    return items


def _record(item, where, images, splits, problems):
    """The record of one item; None where it is not wanted or something is wrong."""
    try:
        name, split = item["filename"], item["split"]
        texts = [sentence["raw"].strip() for sentence in item["sentences"]]
        if not isinstance(name, str):
            raise TypeError(f"`filename` is {name!r}")
    except (KeyError, TypeError, AttributeError) as error:
        message = f"needs filename, split and sentences with raw: {error!r}"
        problems.append(Problem("malformed line", where, message))
        return None
    if split not in SPLITS:
        message = f"{name} has the split {split!r}, not {', '.join(SPLITS)}"
        problems.append(Problem("unknown split", where, message))
        return None
    if split not in splits:
        return None
    kept = tuple(text for text in texts if text)
    if len(kept) < max(len(texts), 1):
        message = f"{name} has {len(texts)} sentences, {len(texts) - len(kept)} empty"
        problems.append(Problem("no sentence", where, message))
    place = images.find(name)
    if place is None:
        message = f"no file {name} with {len(texts)} texts"
        problems.append(Problem("no image", where, message))
        return None
    return Captioned(name, *place, kept, split) if kept else None
