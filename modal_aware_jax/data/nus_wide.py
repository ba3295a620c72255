"""NUS-WIDE from its official files.

A directory as users have it; files are looked for in it and in the folders below it
that the official archives make:

- `ImageList/Imagelist.txt`: an image a line, `actor\\0001_2124494179.jpg`;
- `NUS_WID_Tags/AllTags1k.txt` (or `Tags1k.txt`): a row of 1,000 values 0 or 1 for each
  line of the image list, and `NUS_WID_Tags/TagList1k.txt`, the tags; or, where there is
  no such file, `Train_Tags1k.dat` and `Test_Tags1k.dat` with `TrainImagelist.txt` and
  `TestImagelist.txt`;
- `Groundtruth/AllLabels/Labels_*.txt`: 0 or 1 for each line of the image list;
- the images in `Flickr/`, `images/` or `ImageData/`, in the folders of the image list
  or all in one.

T.-S. Chua et al.: NUS-WIDE, a real-world web image database from National University
of Singapore, CIVR 2009.
"""

import functools
import os
import pathlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from modal_aware_jax.data import text
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.given_names import given_names
from modal_aware_jax.data.image_places import OutsideError, inside
from modal_aware_jax.data.prepare import Pair, Scan, load_or_prepare, source_directory
from modal_aware_jax.data.problems import DataProblems, Problem
from modal_aware_jax.data.regular_file import read_regular

NAME = "nus_wide"
LIST_FOLDERS = (".", "ImageList", "Imagelist", "image_list")
TAG_FOLDERS = (".", "NUS_WID_Tags", "NUS_WIDE_Tags", "Tags", "tags")
LABEL_FOLDERS = ("Groundtruth/AllLabels", "groundtruth/AllLabels", "AllLabels")
IMAGE_FOLDERS = ("Flickr", "flickr", "images", "Images", "ImageData")


def load(
    directory: str | os.PathLike,
    *,
    num_labels: int = 21,
    label_names: Sequence[str] | str | None = None,
    keep_untagged: bool = True,
    keep_unlabelled: bool = False,
    keep_without_text: bool = False,
    keep_without_image: bool = False,
    stored_size: int | None = 256,
    on_problem: str = "stop",
    prepared_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> Collection:
    """Reads NUS-WIDE, prepared on the first call.

    Kept are the pairs with at least one of the labels, unless told otherwise: 195,834
    for the 21 most frequent ones.

    Args:
      directory: where the files are.
      num_labels: so many of the most frequent of the 81 concepts are the labels.
      label_names: these concepts instead.
      keep_untagged: keep pairs without any of the 1,000 tags.
      keep_unlabelled: keep pairs without any of the labels.
      keep_without_text: keep pairs without a known word, and let the network learn what
        stands in for their text.
      keep_without_image: keep pairs whose image is not there, in the same way.
      stored_size: images are reduced to this shorter side; None keeps all sizes.
      on_problem: 'stop' raises DataProblems after everything was looked at; 'skip'
        leaves out what is wrong and says what.
      prepared_dir: where preparations are kept; None: the user's cache directory.
      progress: whether to show a progress bar and the counts.

    Returns:
      The pairs in the order of the image list; ids are `actor/0001_2124494179`.
    """
    directory = source_directory(NAME, directory)
    found = _find_files(directory)
    keep_untagged = keep_untagged or keep_without_text
    label_names = given_names(label_names)
    unknown = sorted(set(label_names or ()) - set(found["labels"]))
    if unknown:
        raise ValueError(
            f"nus_wide.load: no file of labels for {', '.join(map(repr, unknown))}; "
            f"there are {', '.join(found['labels'])}."
        )
    if label_names is None and not 1 <= num_labels <= len(found["labels"]):
        raise ValueError(
            f"nus_wide.load: num_labels must lie between 1 and the number of files of "
            f"labels, {len(found['labels'])}; got {num_labels}."
        )
    inputs = [found["list"], *found["tags"], found["tag_list"], found["images"]]
    return load_or_prepare(
        NAME,
        lambda: _scan(found, num_labels, label_names, keep_untagged, keep_unlabelled),
        inputs=[*inputs, *found["labels"].values()],
        options=dict(
            num_labels=None if label_names else num_labels,
            label_names=label_names,
            keep_untagged=keep_untagged,
            keep_unlabelled=keep_unlabelled,
        ),
        stored_size=stored_size,
        keep_without_image=keep_without_image,
        on_problem=on_problem,
        prepared_dir=prepared_dir,
        progress=progress,
    )


def _find_files(directory):
    """The paths of all that is read; raises naming everything that is missing."""

    def look(folders, *names):
        paths = (directory / folder / name for name in names for folder in folders)
        return next((path for path in paths if path.is_file()), None)

    image_list = look(LIST_FOLDERS, "Imagelist.txt", "ImageList.txt")
    tags = [look(TAG_FOLDERS, "AllTags1k.txt", "Tags1k.txt", "AllTags1k.dat", "Tags1k")]
    if tags == [None]:
        parts = [
            (
                look(LIST_FOLDERS, f"{part}Imagelist.txt"),
                look(TAG_FOLDERS, f"{part}_Tags1k.dat", f"{part}_Tags1k.txt"),
            )
            for part in ("Train", "Test")
        ]
        tags = [path for pair in parts for path in pair]
    folders = [directory / folder for folder in LABEL_FOLDERS]
    labels = {
        path.stem.removeprefix("Labels_"): path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.glob("Labels_*.txt"))
    }
    images = [directory / folder for folder in IMAGE_FOLDERS]
    images = next((folder for folder in images if folder.is_dir()), None)
    found = {
        "list": image_list,
        "tags": tags,
        "tag_list": look(TAG_FOLDERS, "TagList1k.txt"),
        "labels": labels,
        "images": images,
    }
    wanted = {
        "list": "ImageList/Imagelist.txt",
        "tags": "NUS_WID_Tags/AllTags1k.txt (or Train_Tags1k.dat and Test_Tags1k.dat "
        "with their image lists)",
        "tag_list": "NUS_WID_Tags/TagList1k.txt",
        "labels": "Groundtruth/AllLabels/Labels_*.txt",
        "images": f"a folder of images ({', '.join(IMAGE_FOLDERS)})",
    }
    missing = [
        Problem("missing archive", str(directory), f"there is no {what}")
        for key, what in wanted.items()
        if not found[key] or (key == "tags" and None in tags)
    ]
    if missing:
        raise DataProblems(NAME, missing, skippable=False)
    return found


def _scan(found, num_labels, label_names, keep_untagged, keep_unlabelled):
    names = _read_list(found["list"])
    problems, counts = [], Counter()
    broken = set()  # rows with a malformed line: left out

    def complain(path, row, message):
        broken.add(row)
        problems.append(Problem("malformed line", f"{path} line {row + 1}", message))

    labels = {
        label: _read_labels(path, len(names), complain)
        for label, path in found["labels"].items()
        if label_names is None or label in label_names
    }
    if label_names is None:
        frequent = sorted(labels, key=lambda label: (-labels[label].sum(), label))
        label_names = tuple(sorted(frequent[:num_labels]))
    table = np.stack([labels[label] for label in label_names], axis=1)  # [N, L]
    vocabulary = text.read_vocabulary(found["tag_list"])
    tags = _read_tags(found, names, len(vocabulary), complain)
    images = _find_images(found["images"])
    pairs, seen = [], {}
    for row, name in enumerate(names):
        bag = tags.get(row)
        where = f"{found['list']} line {row + 1}"
        if row in broken:
            counts["pairs left out: malformed line"] += 1
        elif name in seen:
            message = f"{name!r} is in line {seen[name] + 1} too"
            problems.append(Problem("duplicate id", where, message))
            counts["pairs left out: duplicate id"] += 1
        elif not table[row].any() and not keep_unlabelled:
            counts["pairs left out: none of the labels"] += 1
        elif bag is None:
            problems.append(Problem("missing tags", where, f"no row for {name!r}"))
            counts["pairs left out: missing tags"] += 1
        elif not len(bag) and not keep_untagged:
            counts["pairs left out: none of the tags"] += 1
        else:
            path = images.get(name) or images.get(name.rsplit("/", 1)[-1])
            try:
                path = path or inside(name, found["images"])
            except OutsideError as error:
                problems.append(Problem("outside path", where, str(error)))
                continue
            pairs.append(
                Pair(
                    id=name.rsplit(".", 1)[0],
                    read_image=functools.partial(read_regular, path),
                    where=f"{path} ({where})",
                    caption=", ".join(vocabulary[i] for i in bag),
                    text=bag,
                    labels=np.flatnonzero(table[row]),
                )
            )
        seen.setdefault(name, row)
    return Scan(pairs, vocabulary, label_names, problems, counts)


def _read_list(path):
    """Image names with forward slashes, one for each line."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.strip().replace("\\", "/").removeprefix("./") for line in lines]


def _check_length(path, found, expected, what):
    if found != expected:
        message = f"{found:,} lines, but {what} has {expected:,}: rows do not match"
        raise DataProblems(
            NAME, [Problem("unreadable file", str(path), message)], skippable=False
        )


def _read_labels(path, length, complain):
    """One 0 or 1 a line -> bool [length]."""
    lines = path.read_bytes().split()
    text_lines = lines
    if len(lines) != length:  # find out whether a line is empty or has two values
        text_lines = path.read_bytes().rstrip().splitlines()
        _check_length(path, len(text_lines), length, "the image list")
    values = np.array([line.strip() for line in text_lines])
    for row in np.flatnonzero((values != b"0") & (values != b"1")):
        content = values[row].decode("ascii", "replace")
        complain(path, row, f"{content[:20]!r} is neither 0 nor 1")
    return values == b"1"


def _read_tags(found, names, width, complain):
    """Rows of 0 and 1 -> the positions of the ones, by row of the image list."""
    if len(found["tags"]) == 1:
        (path,) = found["tags"]
        return dict(enumerate(_tag_rows(path, len(names), width, complain)))
    row_of = {name: row for row, name in enumerate(names)}
    tags = {}
    for list_path, path in zip(found["tags"][::2], found["tags"][1::2], strict=True):
        rows = [row_of.get(name) for name in _read_list(list_path)]

        def complain_there(path, row, message, rows=rows):
            complain(path, row if rows[row] is None else rows[row], message)

        parts = _tag_rows(path, len(rows), width, complain_there)
        tags.update(
            (row, bag) for row, bag in zip(rows, parts, strict=True) if row is not None
        )
    return tags


def _tag_rows(path, length, width, complain):
    rows = []
    with open(path, "rb") as file:
        for row, line in enumerate(file):
            values = np.array(line.split())
            if not len(values):
                if row >= length:
                    continue  # empty lines at the end
            ones = values == b"1"
            if len(values) != width:
                complain(path, row, f"{len(values)} values, but there are {width} tags")
            elif not (ones | (values == b"0")).all():
                complain(path, row, "has a value that is neither 0 nor 1")
            rows.append(np.flatnonzero(ones[:width]).astype(np.int32))
    _check_length(path, len(rows), length, "its image list")
    return rows


def _find_images(root):
    """All files below a folder, by their name below it and by their base name."""
    images = {}
    for folder, _, files in os.walk(root):
        relative = pathlib.Path(folder).relative_to(root).as_posix()
        for file in files:
            path = pathlib.Path(folder, file)
            images[file if relative == "." else f"{relative}/{file}"] = path
            images.setdefault(file, path)
    return images
