"""The file of a Hamming index: checked, versioned, appended to in place.

Layout, little endian:
  0      two headers of 512 bytes each; the one with the higher generation is valid
  1024   blocks: codes, ids, removed rows; each new save adds blocks and a JSON table

Nothing that a header points to is ever overwritten. A save that appends writes the
new blocks behind the old end, waits for the disk, then writes the header that was
not in use, in one write. Killed before that, the file still is the old index.
"""

import json
import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAGIC = b"MAJXHIDX"
VERSION = 1
SLOT_BYTES = 512
DATA_START = 2 * SLOT_BYTES
_HEADER = struct.Struct("<8sIIQ16sQQQI")  # a slot ends with its checksum
_CHECKSUM = struct.Struct("<I")
_READ_BYTES = 2**24


class IndexFileError(ValueError):
    """A file that is not a whole, undamaged Hamming index."""


class Header(NamedTuple):
    magic: bytes
    version: int
    num_bits: int
    generation: int
    file_id: bytes  # a new one for every rewritten file
    end: int  # bytes in use
    table_start: int
    table_bytes: int
    table_checksum: int


def _pack_header(header: Header) -> bytes:
    packed = _HEADER.pack(*header).ljust(SLOT_BYTES - _CHECKSUM.size, b"\0")
    return packed + _CHECKSUM.pack(zlib.crc32(packed))


def _unpack_header(slot: bytes) -> Header | None:
    """The header of a slot, None where its checksum is wrong."""
    packed, checksum = slot[: -_CHECKSUM.size], slot[-_CHECKSUM.size :]
    if _CHECKSUM.unpack(checksum)[0] != zlib.crc32(packed):
        return None
    return Header(*_HEADER.unpack(packed[: _HEADER.size]))


def read_header(path) -> Header:
    """The valid header of the file at a path, or IndexFileError."""
    with open(path, "rb") as file:
        return header_of(file, path)


def header_of(file, path) -> Header:
    """The valid header of an open file, or IndexFileError."""

    def fail(reason):
        raise IndexFileError(f"HammingIndex.load: {path} {reason}")

    slots = file.read(2 * SLOT_BYTES)
    size = file.seek(0, os.SEEK_END)
    if slots[: len(MAGIC)] != MAGIC[: len(slots)] or not slots:
        found = slots[: len(MAGIC)]
        fail(f"is not a Hamming index: expected {MAGIC!r} at its start, got {found!r}.")
    if size < DATA_START:
        fail(f"is truncated: it has {size} bytes, less than a header.")
    version = struct.unpack_from("<I", slots, len(MAGIC))[0]
    headers = [
        _unpack_header(slots[:SLOT_BYTES]),
        _unpack_header(slots[SLOT_BYTES:]),
    ]
    if None in headers:
        if version != VERSION:
            fail(f"has format version {version}; this package reads {VERSION}.")
        fail("is damaged: a header does not match its checksum. Restore a copy.")
    header = max(headers, key=lambda h: h.generation)
    if header.version != VERSION:
        fail(f"has format version {header.version}; this package reads {VERSION}.")
    if size < header.end:
        fail(
            f"is truncated: it should have {header.end} bytes, but has {size}. "
            "Restore a copy."
        )
    return header


def read_table(file, path, header: Header) -> dict:
    """The JSON table: {'blocks': [...], 'next_id': ...}."""
    file.seek(header.table_start)
    table = file.read(header.table_bytes)
    if zlib.crc32(table) != header.table_checksum:
        raise IndexFileError(
            f"HammingIndex.load: {path} is damaged: its table of blocks does not match "
            "its checksum. Restore a copy."
        )
    return json.loads(table)


def map_block(file, path, block: dict, verify: bool) -> np.ndarray:
    """A block as a read-only memory map, after checking it."""
    shape = tuple(block["shape"])
    if 0 in shape:
        return np.zeros(shape, block["dtype"])
    array = np.memmap(file, block["dtype"], "r", block["start"], shape)
    if verify and _checksum(array) != block["checksum"]:
        raise IndexFileError(
            f"HammingIndex.load: {path} is damaged: the block of {block['kind']} at "
            f"byte {block['start']} does not match its checksum. Restore a copy."
        )
    return array


def _bytes_of(array):
    """The bytes of an array in pieces; a memory map is read piece by piece."""
    rows = max(1, _READ_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows]).view(np.uint8).data


def _checksum(array) -> int:
    value = 0
    for piece in _bytes_of(array):
        value = zlib.crc32(piece, value)
    return value


def _write_block(file, kind, array, **fields) -> dict:
    """Writes one block at the end, 8-byte aligned, and returns its description."""
    file.write(b"\0" * (-file.tell() % 8))
    start, value = file.tell(), 0
    for piece in _bytes_of(array):
        file.write(piece)
        value = zlib.crc32(piece, value)
    return {
        "kind": kind,
        "start": start,
        "shape": list(array.shape),
        "dtype": array.dtype.str,
        "checksum": value,
        **fields,
    }


def _write_blocks(file, arrays, table) -> tuple[bytes, int]:
    """Writes blocks (kind, array, fields) and the table behind them."""
    for kind, array, fields in arrays:
        table["blocks"].append(_write_block(file, kind, array, **fields))
    packed = json.dumps(table).encode()
    start = file.tell()
    file.write(packed)
    file.flush()
    os.fsync(file.fileno())
    return packed, start


def write_new(path, num_bits: int, arrays, next_id: int) -> Header:
    """Writes a whole file beside `path`, then renames it over `path`."""
    path = Path(os.path.realpath(path))  # a link stays a link
    if path.is_dir() or not path.parent.is_dir():
        raise FileNotFoundError(
            f"HammingIndex.save: expected a file in an existing folder, got {path}."
        )
    table = {"blocks": [], "next_id": next_id}
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            file.seek(DATA_START)
            packed, start = _write_blocks(file, arrays, table)
            header = Header(
                MAGIC,
                VERSION,
                num_bits,
                1,
                os.urandom(16),
                start + len(packed),
                start,
                len(packed),
                zlib.crc32(packed),
            )
            file.seek(0)
            file.write(_pack_header(header._replace(generation=0)))
            file.write(_pack_header(header))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)
    return header


def append(path, header: Header, arrays, next_id: int) -> Header:
    """Adds blocks to a file and switches its header; `header` is the valid one."""
    with open(path, "r+b") as file:
        table = read_table(file, path, header)
        table["next_id"] = next_id
        file.seek(header.end)
        packed, start = _write_blocks(file, arrays, table)
        new = header._replace(
            generation=header.generation + 1,
            end=start + len(packed),
            table_start=start,
            table_bytes=len(packed),
            table_checksum=zlib.crc32(packed),
        )
        file.seek(SLOT_BYTES * (new.generation % 2))
        file.write(_pack_header(new))
        file.flush()
        os.fsync(file.fileno())
    return new


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_directory(directory):
    """Makes a rename last through a power cut, where directories can be synced."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
