"""What there is to encode: files of pairs, and folders of images in pieces."""

import fnmatch
import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pyarrow import fs

from modal_aware_jax.data.folder_tree import walk
from modal_aware_jax.data.readers.captions import IMAGES, TEXTS
from modal_aware_jax.data.readers.tables import SUFFIXES, candidates
from modal_aware_jax.encode_many.storage import opened

INSIDE = (".parquet", ".tar")  # with their images, so they can come from anywhere
STEM_BYTES = 196  # a name has 255 at most: 59 are for digits, suffix and `whole_file`


class Input(NamedTuple):
    """One unit of work.

    Attributes:
      address: a file, or a folder of this machine.
      version: size and time of the file, and of the images and texts beside a table
        or in a folder: what has another one is encoded again.
      first, last: of a folder's images the ones in that range; (0, 0): all.
    """

    address: str
    version: str
    first: int = 0
    last: int = 0

    @property
    def name(self) -> str:
        """Of its part of the output: the file's, with digits that tell it from others.

        Example:
          >>> Input("/a/posts.tar", "1").name
          'posts-5476e662'
        """
        stem = pathlib.PurePosixPath(self.address).stem.encode("utf-8", "ignore")
        stem = stem[:STEM_BYTES].decode("utf-8", "ignore")
        place = f"{self.address}\n{self.first}"
        return f"{stem}-{_digest([place], 8)}"


def find_inputs(places: Sequence[str], *, images_a_piece: int) -> list[Input]:
    """The inputs of places, each once, by address.

    Args:
      places: a file; a folder, whose Parquet and tar files are taken, or, where it has
        none and no other table, its images; or a pattern of files, such as
        `s3://posts/2026/*.parquet`.
      images_a_piece: how many images of a folder make one input.

    Raises:
      ValueError: a place holds nothing, or what cannot be read from there.
    """
    found = {}
    for place in filter(None, (place.strip() for place in places)):
        here = _inputs_of(place, images_a_piece)
        if not here:
            raise ValueError(
                f"--input={place}: no {', '.join(INSIDE)} file is there. Give files, a "
                "folder or a pattern such as 'folder/*.tar'."
            )
        found.update({(one.address, one.first): one for one in here})
    if not found:
        raise ValueError("Name what to encode with --input=FILES, several with commas.")
    return [found[key] for key in sorted(found)]


def _digest(texts, digits):
    """Hexadecimal digits of texts, in which file names may have bytes of any kind."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:digits]


def _inputs_of(place, images_a_piece):
    files, path = opened(place)
    scheme = place[: place.index("://") + 3] if "://" in place else ""
    is_local = isinstance(files, fs.LocalFileSystem)
    kind = files.get_file_info(path).type
    is_there = kind != fs.FileType.NotFound  # a name may have brackets
    if not is_there and any(sign in path for sign in "*?["):
        return [Input(scheme + p, version) for p, version in _matching(files, path)]
    if not is_there:
        raise ValueError(f"--input={place}: there is no such file or folder.")
    if kind == fs.FileType.File:
        suffix = pathlib.PurePosixPath(path).suffix.lower()
        known = SUFFIXES if is_local else INSIDE
        if suffix not in known:
            raise ValueError(
                f"--input={place}: {suffix or 'a file without a suffix'} is none of "
                f"{', '.join(known)}."
            )
        if suffix not in INSIDE:
            return [_table(pathlib.Path(path))]
        return [Input(scheme + path, _version(files.get_file_info(path)))]
    inside = [
        Input(scheme + file, version)
        for file, version in _below(files, path)
        if file.lower().endswith(INSIDE)
        if not file.rpartition("/")[2].startswith(".")
    ]
    if inside or not is_local:
        return inside
    tables = candidates(pathlib.Path(path))
    if len(tables) > 1:
        raise ValueError(
            f"--input={place}: {len(tables)} tables are there "
            f"({', '.join(p.name for p in tables[:5])}). Name those to encode."
        )
    if tables:
        return [_table(tables[0])]
    return _pieces(path, images_a_piece)


def _below(files, folder) -> Iterator[tuple[str, str]]:
    """Path and version of each file below a folder."""
    if not isinstance(files, fs.LocalFileSystem):
        for info in files.get_file_info(fs.FileSelector(folder, recursive=True)):
            if info.type == fs.FileType.File:
                yield info.path, _version(info)
        return

    def fail(error):
        raise error

    # Arrow lists nothing of a folder in which one name is not UTF-8.
    for where, names in walk(folder, fail):
        for path in (os.path.join(where, name) for name in names):
            if os.path.isfile(path):
                yield path, _local_version(path)


def _version(info):
    return f"{info.size} {info.mtime_ns}"


def _local_version(path):
    """That of Arrow, which opens no path that is not UTF-8."""
    facts = os.stat(path)
    return f"{facts.st_size} {facts.st_mtime_ns}"


def _table(path):
    """A table of this machine, whose images lie below its folder."""
    beside = _digest(_contents(_pictures(path.parent)), 16)
    return Input(path.as_posix(), f"{_local_version(path)} {beside}")


def _matching(files, pattern):
    fixed = pattern.split("*")[0].split("?")[0].split("[")[0]
    folder = fixed.rpartition("/")[0] or "/"
    if files.get_file_info(folder).type != fs.FileType.Directory:
        return []
    found = [file for file in _below(files, folder) if _fits(file[0], pattern)]
    wrong = [path for path, _ in found if not path.lower().endswith(INSIDE)]
    if wrong:
        raise ValueError(
            f"--input: {wrong[0]} fits the pattern {pattern}, but patterns are of "
            f"{' and '.join(INSIDE)} files."
        )
    return found


def _fits(path, pattern):
    """Whether a path is of a pattern, whose stars stay within a folder's name."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(
        fnmatch.fnmatchcase(part, one)
        for part, one in zip(parts, patterns, strict=True)
    )


def _pictures(folder):
    """Paths of the images below a folder and of the text files beside them, sorted."""
    return sorted(
        os.path.join(where, name)
        for where, names in walk(folder)
        for name in names
        if name.lower().endswith((*IMAGES, *TEXTS)) and not name.startswith(".")
    )


def _contents(paths):
    """A line of each file, another one when it is changed."""
    for path in paths:
        version = _local_version(path) if os.path.exists(path) else ""
        yield f"{path}\n{version}\n"


def _pieces(folder, images_a_piece):
    """The images below a folder by the thousand; each piece lists it again.

    One change is of all pieces, as it may move images from one to the next.
    """
    pictures = _pictures(folder)
    count = sum(path.lower().endswith(IMAGES) for path in pictures)
    version = f"{count} images {_digest(_contents(pictures), 16)}"
    return [
        Input(folder, version, first, min(first + images_a_piece, count))
        for first in range(0, count, images_a_piece)
    ]
