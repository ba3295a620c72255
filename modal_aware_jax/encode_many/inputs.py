"""What there is to encode: files of pairs, and folders of images in pieces."""

import fnmatch
import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from pyarrow import fs

from modal_aware_jax.data.readers.captions import IMAGES
from modal_aware_jax.data.readers.tables import SUFFIXES, candidates
from modal_aware_jax.encode_many.storage import opened

INSIDE = (".parquet", ".tar")  # with their images, so they can come from anywhere


class Input(NamedTuple):
    """One unit of work.

    Attributes:
      address: a file, or a folder of this machine.
      version: size and time of the file: another one is encoded again.
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
        stem = pathlib.PurePosixPath(self.address).stem
        place = f"{self.address}\n{self.first}"
        return f"{stem}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


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


def _inputs_of(place, images_a_piece):
    files, path = opened(place)
    scheme = place[: place.index("://") + 3] if "://" in place else ""
    is_local = isinstance(files, fs.LocalFileSystem)
    info = files.get_file_info(path)
    is_there = info.type != fs.FileType.NotFound  # a name may have brackets
    if not is_there and any(sign in path for sign in "*?["):
        return [_file(info, scheme) for info in _matching(files, path)]
    if not is_there:
        raise ValueError(f"--input={place}: there is no such file or folder.")
    if info.type == fs.FileType.File:
        suffix = pathlib.PurePosixPath(path).suffix.lower()
        known = SUFFIXES if is_local else INSIDE
        if suffix not in known:
            raise ValueError(
                f"--input={place}: {suffix or 'a file without a suffix'} is none of "
                f"{', '.join(known)}."
            )
        return [_file(info, scheme)]
    inside = [
        info
        for info in files.get_file_info(fs.FileSelector(path, recursive=True))
        if info.type == fs.FileType.File and info.path.lower().endswith(INSIDE)
        if not info.base_name.startswith(".")
    ]
    if inside or not is_local:
        return [_file(info, scheme) for info in inside]
    tables = candidates(pathlib.Path(path))
    if len(tables) > 1:
        raise ValueError(
            f"--input={place}: {len(tables)} tables are there "
            f"({', '.join(p.name for p in tables[:5])}). Name those to encode."
        )
    if tables:
        return [_file(files.get_file_info(tables[0].as_posix()), scheme)]
    return _pieces(path, images_a_piece)


def _matching(files, pattern):
    fixed = pattern.split("*")[0].split("?")[0].split("[")[0]
    folder = fixed.rpartition("/")[0] or "/"
    if files.get_file_info(folder).type != fs.FileType.Directory:
        return []
    there = files.get_file_info(fs.FileSelector(folder, recursive=True))
    found = [i for i in there if i.type == fs.FileType.File and _fits(i.path, pattern)]
    wrong = [i.path for i in found if not i.path.lower().endswith(INSIDE)]
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


def _file(info, scheme):
    return Input(scheme + info.path, f"{info.size} {info.mtime_ns}")


def _pieces(folder, images_a_piece):
    """The images below a folder by the thousand; each piece lists it again."""
    count = sum(
        os.path.splitext(name)[1].lower() in IMAGES and not name.startswith(".")
        for _, _, names in os.walk(folder)
        for name in names
    )
    return [
        Input(folder, f"{count} images", first, min(first + images_a_piece, count))
        for first in range(0, count, images_a_piece)
    ]
