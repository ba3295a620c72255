"""The files of a captioned collection, below a folder or in its zip archives."""

import functools
import os
import pathlib
import posixpath
from collections.abc import Callable, Iterator

from modal_aware_jax.data.archive import Files
from modal_aware_jax.data.problems import DataProblems, Problem

IMAGES = (".jpg", ".jpeg", ".png")


def open_files(name: str, directory: str | os.PathLike) -> Files:
    """All files below a folder and in the zip archives that lie in it.

    Archives are opened, not extracted. What macOS adds to archives (`__MACOSX`, `._x`)
    is not seen.

    Raises:
      ValueError: there is no such folder.
    """
    directory = pathlib.Path(directory).expanduser()
    if not directory.is_dir():
        raise ValueError(f"{name}: {directory} is not a directory.")
    files = Files()
    files.add_folder(directory)
    for path in sorted(directory.glob("*.zip")):
        if path.is_file():
            files.add_zip(path)
    return files


def names_of(files: Files) -> Iterator[str]:
    """The names that people made, without those of their system."""
    for name in files.names:
        parts = name.split("/")
        if "__MACOSX" not in parts and not parts[-1].startswith("._"):
            yield name


def find_text(files: Files, *basenames: str) -> str | None:
    """The first file with one of these names, in their order, in any folder."""
    wanted = [base.lower() for base in basenames]
    found = {}
    for name in names_of(files):
        found.setdefault(posixpath.basename(name).lower(), name)
    return next((found[base] for base in wanted if base in found), None)


def need_text(reader: str, files: Files, directory, *basenames: str) -> str:
    """`find_text`, or `DataProblems` that names what was looked for."""
    found = find_text(files, *basenames)
    if found is None:
        archives = [
            name
            for name in names_of(files)
            if name.endswith((".tgz", ".tar.gz", ".tar"))
        ]
        hint = f" (extract {archives[0]} first)" if archives else ""
        message = f"there is no {' or '.join(basenames)}, extracted or in a zip{hint}"
        problems = [
            *files.problems,
            Problem("missing archive", str(directory), message),
        ]
        raise DataProblems(reader, problems, skippable=False)
    return found


def read_text(files: Files, name: str) -> bytes:
    """A file of sentences or of parts; `DataProblems` where it cannot be read."""
    try:
        return files.read(name)
    except Exception as error:  # zipfile raises nearly anything
        message = f"cannot be read: {error}"
        problem = Problem("unreadable file", files.where(name), message)
        raise DataProblems("captions", [problem], skippable=False) from error


def text_lines(files: Files, name: str, problems: list) -> Iterator[tuple[str, str]]:
    """(place, line) of every line that is not blank; what is not UTF-8 is a problem."""
    for number, raw in enumerate(read_text(files, name).splitlines(), start=1):
        where = f"{files.where(name)} line {number}"
        try:
            line = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            problems.append(Problem("not UTF-8", where, "has bytes that are not UTF-8"))
            continue
        if line.strip():
            yield where, line


class ImageFiles:
    """Images by their name alone or by their last folders and name.

    Two files of one name in different folders are the same image twice, as in some
    copies of Flickr30k; the first counts. Where folders matter (COCO), names are given
    with them.
    """

    def __init__(self, files: Files):
        self.files = files
        self.by_name: dict[str, str] = {}
        for name in names_of(files):
            if name.lower().endswith(IMAGES):
                self.by_name.setdefault(posixpath.basename(name), name)

    def find(self, name: str) -> tuple[Callable[[], bytes], str] | None:
        """A reader of the image and its place; None where there is no such file."""
        full = self.by_name.get(posixpath.basename(name))
        if full is None:
            return None
        return functools.partial(self.files.read, full), self.files.where(full)
