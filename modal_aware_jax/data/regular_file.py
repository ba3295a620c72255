"""Bytes of files that somebody else named: plain files only, and not without end."""

import os
import pathlib
import stat

MAX_BYTES = 1 << 29  # of one image file: 512 MiB


def read_regular(path: str | os.PathLike, *, limit: int = MAX_BYTES) -> bytes:
    """The content of a plain file, or of the one a link ends at.

    Raises:
      OSError: it cannot be read, is a device, a pipe or a folder (reading some of these
        never ends), or has more bytes than `limit`.
    """
    path = pathlib.Path(path)
    facts = os.stat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise OSError("it is no plain file")
    check_size(facts.st_size, limit)
    return path.read_bytes()


def read_part(path: str | os.PathLike, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset` on; OSError where there are fewer."""
    check_size(size)
    with open(path, "rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise OSError(f"it ends {size - len(content):,} bytes too early")
    return content


def check_size(size: int, limit: int = MAX_BYTES) -> None:
    """OSError where a file or member is too large for an image."""
    if size > limit:
        raise OSError(f"it has {size:,} bytes; at most {limit:,} are read")
