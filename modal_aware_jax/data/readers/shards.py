"""Rows of WebDataset shards: members of a tar file that share a name, up to its dot.

    0001.jpg  0001.txt  0001.json  0001.cls     one pair
    0002.jpg  0002.txt                          the next

`tarfile` reads them, not the webdataset library: here an image is found again by the
place of its bytes, without a stream that has to be gone through from its beginning;
nothing is written to the disk, no link is followed, and no member is unpickled, nor a
name run as a command, as that library does with `.pyd` and `pipe:`.
"""

import json
import pathlib
import shlex
import tarfile
from typing import NamedTuple

from modal_aware_jax.data.problems import Problem
from modal_aware_jax.data.readers import captions
from modal_aware_jax.data.readers.rows import Row, Table, is_utf8, not_utf8
from modal_aware_jax.data.regular_file import read_part

IMAGES = tuple(suffix.removeprefix(".") for suffix in captions.IMAGES)
TEXTS = ("txt", "text", "caption")
CLASSES = ("cls", "cls2", "label")
MAX_TEXT = 1 << 20  # bytes of a text, class or JSON member
BLOCK = 512


def read_shard(path: pathlib.Path) -> Table:
    """One shard. A JSON member's keys are columns, the others `image`, `text`, `label`.

    A shard that ends early gives the pairs before its end, and a problem.
    """
    groups, problems = {}, []
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            last = -1
            for member in archive:
                if member.size < 0 or archive.offset <= last:
                    raise tarfile.ReadError("a header leads back")  # without end
                last = archive.offset
                end = member.offset_data + member.size
                if not member.isreg() or member.issparse():
                    if not member.isdir():
                        message = "is a link or no plain file: it is not read"
                        place = f"{member.name} in {path}"
                        problems.append(Problem("unreadable file", place, message))
                    continue
                if end > size:
                    problems.append(_cut(path, size))
                    break
                folder, _, base = member.name.rpartition("/")
                key, dot, kind = base.partition(".")
                if dot and key:
                    name = f"{folder}/{key}".removeprefix("./").lstrip("/")
                    groups.setdefault(name, []).append((kind.lower(), member))
            else:
                problems += _ending(path, archive.offset, size)
    except Exception as error:  # a damaged header makes tarfile raise nearly anything
        if not groups:
            raise ValueError(f"{path}: {_why(path, error)}") from error
        problems.append(_cut(path, size, error))
    rows = []
    for key, members in groups.items():
        _add(path, key, members, rows, problems)
    columns = dict.fromkeys(("image", "text"))
    columns.update(dict.fromkeys(name for row in rows for name in row.cells))
    if not groups:
        raise ValueError(f"{path}: the archive holds no file.")
    return Table(rows, problems, tuple(columns), {})


class EmbeddedInTar(NamedTuple):
    """The bytes of a member, by their place in the archive."""

    path: pathlib.Path
    offset: int
    size: int
    name: str

    def read(self) -> bytes:
        return read_part(self.path, self.offset, self.size)


def _add(path, key, members, rows, problems):
    where = f"{key} in {path}"
    cells, first = {}, {}
    for kind, member in members:
        last = kind.rsplit(".", 1)[-1]
        what = "image" if last in IMAGES else "text" if last in TEXTS else last
        if first.setdefault(what, member) is not member:
            if what in ("image", "text", "json", *CLASSES):
                message = f"a second {what} of {key!r}, after {first[what].name}"
                place = f"{member.name} in {path}"
                problems.append(Problem("second member", place, message))
            continue
        if last in IMAGES:
            cells["image"] = _embedded(path, member)
        elif last in (*TEXTS, *CLASSES, "json"):
            if member.size > MAX_TEXT:
                message = f"{member.name} has {member.size:,} bytes of text"
                problems.append(Problem("malformed line", where, message))
                return
            try:
                content = _embedded(path, member).read()
                text = content.decode("utf-8-sig").strip()
                if last == "json":
                    _add_json(text, cells)
                elif last in TEXTS:
                    cells["text"] = text
                else:
                    cells["label"] = text
            except UnicodeDecodeError:
                problems.append(not_utf8(f"{member.name} in {path}"))
                return
            except (OSError, ValueError, RecursionError) as error:
                place, message = f"{member.name} in {path}", f"no JSON object: {error}"
                problems.append(Problem("malformed line", place, message))
                return
    if cells:
        rows.append(Row(where, {"key": key, **cells}))


def _add_json(text, cells):
    """The members' own texts win over keys of the same name."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}")
    if not is_utf8(json.dumps(found, ensure_ascii=False)):
        raise ValueError("it has half a surrogate pair")
    for name, value in found.items():
        if name not in ("image", "key"):
            cells.setdefault(name, value)


def _embedded(path, member):
    return EmbeddedInTar(path, member.offset_data, member.size, member.name)


def _ending(path, offset, size):
    """A problem where the archive does not end with a block of zeros.

    tarfile takes a damaged header in the middle for the end, and so it does a cut
    between two members.
    """
    if offset >= size:
        message = "has no mark of its end: was it cut? What is there is read"
        return [Problem("unreadable archive", str(path), message)]
    block = read_part(path, offset, min(BLOCK, size - offset))
    return [] if not any(block) else [_cut(path, offset)]


def _cut(path, at, error=None):
    message = f"is damaged or cut after {at:,} bytes; what comes before is read"
    if error is not None:
        message = f"is damaged ({error}); what comes before is read"
    return Problem("unreadable archive", str(path), message)


def _why(path, error):
    with open(path, "rb") as file:
        start = file.read(6)
    for magic, program, suffix in (
        (b"\x1f\x8b", "gunzip", ".gz"),
        (b"BZh", "bunzip2", ".bz2"),
        (b"\xfd7zXZ", "unxz", ".xz"),
        (b"\x28\xb5\x2f\xfd", "unzstd", ".zst"),
    ):
        if start.startswith(magic):  # these programs go by the suffix
            own, named = (shlex.quote(f"{path}{end}") for end in ("", suffix))
            return (
                "the archive is compressed, and images in it cannot be found again by "
                f"their place. Uncompress it first: mv {own} {named} && "
                f"{program} {named}"
            )
    return f"cannot be read as a tar archive ({error}). Copy or download it again."
