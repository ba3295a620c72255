"""Rows of a folder without a table: `photo.jpg` with its text in `photo.txt`."""

import os
import pathlib

from modal_aware_jax.data.problems import Problem
from modal_aware_jax.data.readers.rows import Row, Table, not_utf8
from modal_aware_jax.data.regular_file import read_regular

IMAGES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp"),
    *(".tif", ".tiff", ".ppm"),
)
TEXTS = (".txt", ".caption")
MAX_TEXT = 1 << 20  # bytes


def has_captions(directory: pathlib.Path) -> bool:
    """Whether some image below the directory has a text file beside it."""
    return any(text is not None for _, text in _pairs(directory))


def read_captions(directory: pathlib.Path) -> Table:
    """A row for every image below the directory, its text empty where none lies by it.

    Cells: `image`, `text`, and `folder`, the name of the folder that the image lies in:
    `label_column=folder` takes it as the label.
    """
    rows, problems = [], []
    for image, text in _pairs(directory):
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
    return Table(rows, problems, ("image", "text", "folder"), {})


def _pairs(directory):
    """Images below a directory with their text files, by name."""
    for folder, subfolders, files in os.walk(directory):  # enters no linked folder
        subfolders.sort()
        there = set(files)
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGES and not name.startswith("."):
                texts = (f"{s}{end}" for s in (stem, name) for end in TEXTS)
                text = next((text for text in texts if text in there), None)
                folder_path = pathlib.Path(folder)
                yield folder_path / name, folder_path / text if text else None
