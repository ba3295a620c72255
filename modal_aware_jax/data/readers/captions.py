"""Rows of a folder without a table: `photo.jpg` with its text in `photo.txt`."""

import os
import pathlib

from modal_aware_jax.data.folder_tree import walk
from modal_aware_jax.data.problems import SHOWN_OF_A_KIND, Problem, shorten
from modal_aware_jax.data.readers.rows import Row, Table, not_utf8
from modal_aware_jax.data.regular_file import read_regular

IMAGES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp"),
    *(".tif", ".tiff", ".ppm"),
)
TEXTS = (".txt", ".caption")  # in upper case, too
MAX_TEXT = 1 << 20  # bytes


def has_captions(directory: pathlib.Path) -> bool:
    """Whether some image below the directory has a text file beside it."""
    return any(None not in pair for pair in _pairs(directory))


def read_captions(directory: pathlib.Path) -> Table:
    """A row for every image below the directory, its text empty where none lies by it.

    Cells: `image`, `text`, and `folder`, the name of the folder that the image lies in:
    `label_column=folder` takes it as the label.
    """
    rows, problems, alone = [], [], []
    for image, text in _pairs(directory):
        if image is None:
            alone.append(text.relative_to(directory).as_posix())
            continue
        name = image.relative_to(directory).as_posix()
        cells = {"image": name, "text": "", "folder": ""}
        if image.parent != directory:
            cells["folder"] = image.parent.name
        try:
            if text is not None:
                content = read_regular(text, limit=MAX_TEXT)
                cells["text"] = content.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            problems.append(not_utf8(str(text)))
            continue
        except OSError as error:
            problems.append(Problem("unreadable file", str(text), str(error)))
            continue
        rows.append(Row(str(text or image), cells))
    names = shorten(", ".join(alone[:SHOWN_OF_A_KIND]))
    more = ", ..." if len(alone) > SHOWN_OF_A_KIND else ""
    notes = {f"text files beside no image: {names}{more}": len(alone)} if alone else {}
    return Table(rows, problems, ("image", "text", "folder"), {}, notes)


def _lower_suffix(name):
    stem, suffix = os.path.splitext(name)
    return stem + suffix.lower()


def _pairs(directory):
    """Images and text files of one name below a directory; None for what is missing."""
    for folder, files in walk(directory):
        folder_path = pathlib.Path(folder)
        there = {name for name in files if not name.startswith(".")}
        texts = {name for name in there if name.lower().endswith(TEXTS)}
        by_name = {_lower_suffix(name): name for name in sorted(texts)}
        alone = set(texts)
        for name in sorted(there):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGES:
                own = [f"{s}{end}" for s in (stem, name) for end in TEXTS]
                own = [by_name[text] for text in own if text in by_name]
                yield folder_path / name, folder_path / own[0] if own else None
                alone.difference_update(own)
        for name in sorted(alone):
            yield None, folder_path / name
