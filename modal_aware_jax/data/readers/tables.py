"""Which files of a folder are its table, and what they say together."""

import hashlib
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

from modal_aware_jax.data.readers import captions, coco, matlab, parquet, shards
from modal_aware_jax.data.readers.delimited import read_delimited
from modal_aware_jax.data.readers.jsonl import read_jsonl
from modal_aware_jax.data.readers.parquet import read_parquet
from modal_aware_jax.data.readers.rows import Table

READERS: dict[str, Callable[[pathlib.Path], Table]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".tar": shards.read_shard,
}
TOGETHER = {".json": coco.read_json, ".mat": matlab.read_matlab}  # all files at once
SUFFIXES = (*READERS, *TOGETHER)

# What the parts of a given split are called -> what they are here.
PARTS = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("test", "testing", "query", "queries"), "query"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("database", "db", "gallery", "retrieval"), "database"),
}
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_PART = re.compile(
    rf"(?:^|[-_. ])({'|'.join(sorted(PARTS, key=len, reverse=True))})"
    r"(?:20\d\d)?(?:$|[-_. ])"
)
_SHARD = re.compile(r"[-_.]?\d+(?:[-_]of[-_]\d+)?$")
HASHED = 64 << 20  # bytes of a table that are hashed


class Tables(NamedTuple):
    """The tables of a collection.

    Attributes:
      directory: the folder that the images are named from.
      paths: the files; empty where every image has a text file of its own.
      parts: the part of a given split that each file is, '' where they name none.
    """

    directory: pathlib.Path
    paths: tuple[pathlib.Path, ...]
    parts: tuple[str, ...]

    def hold_images(self, column: str | None = None) -> bool:
        """Whether the images, of a column that may be named, are inside the files."""
        return bool(self.paths) and all(_holds_images(p, column) for p in self.paths)

    def read(self) -> list[tuple[pathlib.Path, str, Table]]:
        """Every table with its path and its part."""
        if not self.paths:
            path = self.directory
            return [(path, "", captions.read_captions(path))]
        together = TOGETHER.get(self.paths[0].suffix.lower())
        if together is None:
            return [
                (path, part, READERS[path.suffix.lower()](path))
                for path, part in zip(self.paths, self.parts, strict=True)
            ]
        found = []
        for part in dict.fromkeys(self.parts):
            paths = [
                p for p, its in zip(self.paths, self.parts, strict=True) if its == part
            ]
            found.append((paths[0], part, together(paths)))
        return found

    def hashes(self) -> list[str]:
        """A hash of each file, of its beginning and end where it is large."""
        return [_hash(path) for path in self.paths]


def find_tables(
    source: pathlib.Path,
    table: str | None = None,
    *,
    option: str = "--config.data.options.table",
) -> Tables:
    """The table of a folder: its only one, or files that belong together.

    Files belong together when each names a part of a split (`train.csv`, `test.csv`;
    `train-00000-of-00002.parquet`), when they are numbered parts of one, and when they
    are shards, JSON or MATLAB files of one collection.

    Args:
      source: a folder, or the table itself.
      table: names of files in the folder, or patterns as `*.parquet`, with commas
        between them; None: what is there, else what is in its subfolder `data`.
      option: how a table is named, for messages.

    Raises:
      ValueError: there is no table, or it is not clear which one to read.
    """
    if source.is_file():
        if table:
            raise ValueError(
                f"{source} is a file, so --config.data.options.table={table} has no "
                "folder to be looked for in. Give the folder, or no table."
            )
        _check_suffix(source)
        return _tables(source.parent, [source])
    if not source.is_dir():
        raise ValueError(f"{source} is neither a folder nor a plain file.")
    if table:
        return _tables(source, _named(source, table))
    for folder in (source, source / "data"):
        found = candidates(folder) if folder.is_dir() else []
        if found:
            break
    if not found and captions.has_captions(source):
        return Tables(source, (), ())
    if len(found) != 1 and not _belong_together(found):
        names = ", ".join(path.name for path in found) or "none"
        hints = [hint for path in sorted(source.iterdir()) if (hint := _hint(path))]
        hint = f" ({hints[0]})" if hints and not found else ""
        raise ValueError(
            f"{source} must hold one table ({', '.join(SUFFIXES)}), tables of the "
            "parts of one collection (train.csv and test.csv), or a text file beside "
            f"each image, but {len(found)} are there ({names}){hint}. Say which one to "
            f"read with {option}=FILE."
        )
    return _tables(source, found)


def part_of(name: str) -> str:
    """The part of a split that a file's name tells, or ''.

    Example:
      >>> part_of("test-00000-of-00001"), part_of("captions_val2017"), part_of("pets")
      ('query', 'validation', '')
    """
    found = _PART.findall(name.lower())
    return PARTS[found[0]] if len(set(found)) == 1 else ""


def _tables(directory, paths):
    return Tables(
        directory, tuple(paths), tuple(part_of(_stem(path)) for path in paths)
    )


def _stem(path):
    """The name that may tell a part: the file's, or its folder's, `test/00000.tar`."""
    return path.stem if part_of(path.stem) else path.parent.name


def candidates(folder: pathlib.Path) -> list[pathlib.Path]:
    """The tables that lie in a folder; JSON files only where there are no others."""
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        if path.is_file()
    ]
    tables = [path for path in found if path.suffix.lower() != ".json"]
    return tables or found  # a table comes with JSON files that describe it


def _belong_together(paths):
    suffixes = {path.suffix.lower() for path in paths}
    if len(paths) < 2 or len(suffixes) > 1:
        return False
    if suffixes <= {".tar", *TOGETHER}:
        return True
    stems = {_SHARD.sub("", path.stem) for path in paths}
    return len(stems) == 1 or all(part_of(path.stem) for path in paths)


def _named(directory, table):
    paths = []
    names = [name for part in table.split(",") if (name := part.strip())]
    if not names:
        raise ValueError(f"--config.data.options.table={table}: no file is named.")
    for name in names:
        found = [directory / name]
        if not found[0].is_file() and any(sign in name for sign in "*?["):
            found = sorted(path for path in _matching(directory, name))
        if not found or not found[0].is_file():
            raise ValueError(f"folder.load: there is no table {directory / name}.")
        paths += found
    for path in paths:
        _check_suffix(path)
    kinds = {path.suffix.lower() for path in paths}
    if len(kinds) > 1 and kinds & TOGETHER.keys():
        raise ValueError(
            f"--config.data.options.table={table}: files of one kind are read together."
        )
    return list(dict.fromkeys(paths))


def _matching(directory, pattern):
    try:
        return [path for path in directory.glob(pattern) if path.is_file()]
    except (NotImplementedError, ValueError) as error:  # a pattern from the root
        raise ValueError(
            f"--config.data.options.table={pattern}: {error}. Patterns are of names "
            f"in {directory}."
        ) from error


def _check_suffix(path):
    if path.suffix.lower() not in SUFFIXES:
        hint = f" To read it, {_hint(path)}." if _hint(path) else ""
        raise ValueError(
            f"{path}: tables are read from {', '.join(SUFFIXES[:-1])} and "
            f"{SUFFIXES[-1]} files; {path.suffix or 'no suffix'} is none of them.{hint}"
        )


def _hint(path):
    """How a file that may be a table in another form is made one, '' for others."""
    suffix = path.suffix.lower()
    inner = pathlib.Path(path.stem).suffix.lower()
    if (suffix in PACKED and inner in SUFFIXES) or suffix in (".tgz", ".txz"):
        return f"uncompress {path.name} first"
    if suffix in (".ndjson", ".jsonlines"):
        return f"name {path.name} {path.stem}.jsonl"
    if suffix in (".xlsx", ".xls", ".ods"):
        return f'save {path.name} as "CSV UTF-8"'
    return ""


def _holds_images(path, column):
    suffix = path.suffix.lower()
    inside = suffix in (".tar", ".mat")
    return inside or (suffix == ".parquet" and parquet.holds_images(path, column))


def _hash(path):
    digest = hashlib.sha256()
    size = path.stat().st_size
    with open(path, "rb") as file:
        digest.update(file.read(HASHED))
        if size > HASHED:
            file.seek(max(HASHED, size - HASHED))
            digest.update(file.read(HASHED))
    return digest.hexdigest()[:16]
