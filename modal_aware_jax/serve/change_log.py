"""The file of what was added and removed: on the disk before it is acknowledged.

One change is one record behind the others: the length and CRC-32 of its body and the
CRC-32 of these two (little-endian uint32), then the body: the length of a JSON text
(uint32), the text, and the bytes of a picture. Killed at any moment, the file holds
every change that `append` returned from; a record that was being written is cut off at
the next opening.
"""

import fcntl
import json
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MAGIC = b"MAJXLOG1"
AT_A_TIME = 256  # records, when the file is rewritten
_FRAME = struct.Struct("<III")
_LENGTH = struct.Struct("<I")


class Change(NamedTuple):
    """One change of a collection.

    Attributes:
      facts: what JSON can hold, `{"add": ID, ...}` or `{"remove": ID}`.
      picture: bytes of an image, or none.
    """

    facts: dict
    picture: bytes = b""


class Record(NamedTuple):
    """A change as it lies in the file: its picture from `start`, `size` bytes."""

    facts: dict
    start: int
    size: int


class ChangeLogError(ValueError):
    """A file that is no whole log of changes, or that another process has open."""


class ChangeLog:
    """An open log; only one process at a time has it.

    Args:
      path: of the file, made where there is none.

    Raises:
      ChangeLogError: it is damaged before its last record, or open elsewhere.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self.path, flags, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise ChangeLogError(
                f"{self.path} is open in another process: an index is served by one at "
                "a time."
            ) from None
        self._broken = None  # the error after which nothing may be appended
        self.records: list[Record] = []
        self._end = self._read()

    def _fail(self, reason):
        os.close(self._file)
        raise ChangeLogError(f"{self.path} {reason}")

    def _read(self) -> int:
        """Reads all records -> the end of the last whole one."""
        size = os.fstat(self._file).st_size
        start = os.pread(self._file, len(MAGIC), 0)
        if start != MAGIC[: len(start)]:
            self._fail(f"is no log of changes: it starts with {start!r}.")
        if len(start) < len(MAGIC):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, MAGIC, 0)
            os.fsync(self._file)
            _sync_folder(self.path.parent)
            return len(MAGIC)
        end = len(MAGIC)
        while end < size:
            record = self._record_at(end, size)
            if record is None:  # the last one, which nobody was told of
                os.ftruncate(self._file, end)
                os.fsync(self._file)
                return end
            self.records.append(record)
            end = record.start + record.size
        return end

    def _record_at(self, place, size):
        """The record at a place; None where writing it was not finished."""
        frame = os.pread(self._file, _FRAME.size, place)
        if len(frame) < _FRAME.size:
            return None
        length, checksum, own = _FRAME.unpack(frame)
        start = place + _FRAME.size
        if own == zlib.crc32(frame[:-4]) and length >= _LENGTH.size:
            if start + length > size:
                return None
            body = os.pread(self._file, length, start)
            if zlib.crc32(body) == checksum:
                (text,) = _LENGTH.unpack_from(body)
                facts = json.loads(body[_LENGTH.size : _LENGTH.size + text])
                text += _LENGTH.size
                return Record(facts, start + text, length - text)
            if start + length == size:
                return None
        elif not any(os.pread(self._file, size - place, place)):
            return None
        self._fail(
            f"is damaged at byte {place} of {size}. Restore a copy. If the machine "
            "lost power just when something was added, what was acknowledged lies "
            f"before: truncate --size={place} {self.path}"
        )

    def append(self, changes: Sequence[Change]) -> list[Record]:
        """Writes changes and waits for the disk; all of them are kept, or none.

        Raises:
          OSError: they could not be written; the file is as it was before.
        """
        if self._broken is not None:
            raise OSError(f"{self.path} cannot be written any more: {self._broken}")
        packed, records = bytearray(), []
        for change in changes:
            text = json.dumps(change.facts).encode()
            body = _LENGTH.pack(len(text)) + text + change.picture
            frame = _FRAME.pack(len(body), zlib.crc32(body), 0)[:-4]
            packed += frame + _LENGTH.pack(zlib.crc32(frame)) + body
            end = self._end + len(packed)
            size = len(change.picture)
            records.append(Record(change.facts, end - size, size))
        try:
            _write_all(self._file, packed, self._end)
            os.fsync(self._file)
        except OSError as error:
            try:
                os.ftruncate(self._file, self._end)
                os.fsync(self._file)
            except OSError:
                self._broken = error
            raise
        self._end += len(packed)
        self.records += records
        return records

    def picture(self, record: Record) -> bytes:
        """The bytes of a record's picture; from any thread."""
        return os.pread(self._file, record.size, record.start)

    def kept(self) -> Iterator[Record]:
        """The last record of each id, in their order."""
        last = {_id_of(record): record for record in self.records}
        return iter(last.values())

    def tidy(self, least: int = 1 << 20) -> None:
        """Rewrites the file without what was overtaken, where that is most of it."""
        kept = list(self.kept())
        size = sum(len(json.dumps(r.facts)) + r.size + 16 for r in kept)
        if self._end < max(least, 2 * size):
            return
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        partial.unlink(missing_ok=True)
        new = ChangeLog(partial)
        try:
            for i in range(0, len(kept), AT_A_TIME):
                some = kept[i : i + AT_A_TIME]
                new.append([Change(r.facts, self.picture(r)) for r in some])
            partial.replace(self.path)
        except BaseException:
            new.close()
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(self.path.parent)
        os.close(self._file)
        self._file, self._end, self.records = new._file, new._end, new.records

    def close(self) -> None:
        """Gives the file back."""
        os.close(self._file)


def _id_of(record):
    return record.facts.get("add", record.facts.get("remove"))


def _write_all(file, packed, place):
    view = memoryview(packed)
    while view:
        written = os.pwrite(file, view, place)
        view, place = view[written:], place + written


def _sync_folder(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
