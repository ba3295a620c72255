"""One view of files that lie in a folder, in a zip archive or in several."""

import os
import pathlib
import re
import zipfile
from collections.abc import Sequence

from modal_aware_jax.data.folder_tree import walk
from modal_aware_jax.data.problems import Problem
from modal_aware_jax.data.regular_file import check_size, read_regular


class Files:
    """Named files with a reader for each; safe to read from several threads.

    Attributes:
      names: all names, in the order of the archives.
      problems: archives that cannot be read.
      repeated: names that lie in more than one of the archives.
    """

    def __init__(self):
        self.problems: list[Problem] = []
        self.repeated: list[str] = []
        self._readers = {}

    @property
    def names(self) -> list[str]:
        return list(self._readers)

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    def add_zip(self, path: pathlib.Path) -> None:
        """Adds the members of one archive, or a problem."""
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, NotImplementedError):
            self.problems.append(Problem("unreadable archive", str(path), _why(path)))
            return
        if any(member.header_offset < 0 for member in archive.infolist()):
            self.problems.append(Problem("unreadable archive", str(path), _why(path)))
            return
        for member in archive.infolist():
            if member.is_dir():
                continue
            if member.filename in self._readers:
                self.repeated.append(member.filename)
            else:
                self._readers[member.filename] = (archive, member)

    def add_folder(self, root: pathlib.Path, prefix: str = "") -> None:
        """Adds every file below a folder; names are relative to it."""
        for folder, files in walk(root):
            relative = pathlib.Path(folder).relative_to(root)
            for file in files:
                name = prefix + (relative / file).as_posix()
                self._readers.setdefault(name, (None, os.path.join(folder, file)))

    def add_file(self, path: pathlib.Path) -> None:
        """Adds one file under its own name."""
        self._readers.setdefault(path.name, (None, str(path)))

    def read(self, name: str) -> bytes:
        """The content; OSError or zipfile.BadZipFile where it cannot be read."""
        archive, member = self._readers[name]
        if archive is None:
            return read_regular(member)
        check_size(member.file_size)  # what a member of a zip bomb would become
        return archive.read(member)

    def where(self, name: str) -> str:
        """The file's place, for messages."""
        archive, member = self._readers[name]
        if archive is None:
            return str(member)
        return f"{name} in {archive.filename}"


def _why(path):
    """Why a file is no readable zip archive, from its first and last bytes."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(max(0, size - 70_000))
        end = file.read()
    if start[:2] != b"PK":
        hint = "is empty" if size == 0 else "is not a zip archive"
        if start[:1] == b"<" or start.lower().startswith(b"<!do"):
            hint += " (it looks like a web page: the download was refused)"
        return f"the file of {size:,} bytes {hint}"
    message = f"its {size:,} bytes start like a zip archive, but its end is missing"
    if b"PK\x05\x06" in end:
        message = (
            f"its {size:,} bytes end like a zip archive, but its start or middle is "
            "missing, or it is one of several parts"
        )
    return (
        f"{message}; if it is one part of an archive that was cut, join the parts in "
        "order first: cat NAME.part1.zip NAME.part2.zip > NAME.zip (or zip -s 0 "
        "NAME.zip --out whole.zip) and take the parts away"
    )


def find_zips(directory: pathlib.Path, stem: str) -> list[pathlib.Path]:
    """`stem.zip` if there, else `stem.part1.zip`, `stem.part2.zip`, ... in order.

    Raises nothing; a gap in the numbering is for the caller to see with
    `missing_parts`.
    """
    whole = directory / f"{stem}.zip"
    if whole.is_file():
        return [whole]
    parts = [(n, path) for path in directory.iterdir() if (n := _part(path, stem))]
    return [path for _, path in sorted(parts)]


def missing_parts(zips: Sequence[pathlib.Path], stem: str) -> list[str]:
    """Names of the parts that are missing below the highest number present."""
    numbers = [_part(path, stem) for path in zips]
    if None in numbers:
        return []
    gaps = sorted(set(range(1, max(numbers, default=0) + 1)).difference(numbers))
    return [f"{stem}.part{n}.zip" for n in gaps]


def _part(path, stem):
    match = re.fullmatch(re.escape(stem) + r"[._-]?part0*([1-9]\d*)\.zip", path.name)
    return int(match[1]) if match else None
