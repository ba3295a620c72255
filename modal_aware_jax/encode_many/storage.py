"""Files by path or address, on disks and in object stores, through Apache Arrow."""

import contextlib
import pathlib
import tempfile
import uuid
from collections.abc import Iterator

from pyarrow import fs

BLOCK = 1 << 20  # bytes copied at a time


def opened(address: str) -> tuple[fs.FileSystem, str]:
    """The file system of an address and the path in it.

    Args:
      address: a path of this machine, or `s3://`, `gs://`, `hdfs://`, `file://`.

    Example:
      >>> opened("/data/a.tar")[1]
      '/data/a.tar'
    """
    if "://" not in address:
        path = pathlib.Path(address).expanduser().absolute()
        return fs.LocalFileSystem(), path.as_posix()
    try:
        return fs.FileSystem.from_uri(address)
    except (ValueError, OSError, NotImplementedError) as error:
        raise ValueError(
            f"{address} cannot be opened ({error}). Expected a path, or an address "
            "that Apache Arrow knows: s3://, gs://, hdfs:// or file://."
        ) from error


@contextlib.contextmanager
def local_copy(address: str) -> Iterator[pathlib.Path]:
    """The file on this machine's disk: itself, or a copy of its name that is removed.

    A shard is read in any order, so it is fetched as a whole.
    """
    files, path = opened(address)
    if isinstance(files, fs.LocalFileSystem):
        yield pathlib.Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="encode_many-") as folder:
        copy = pathlib.Path(folder) / path.rsplit("/", 1)[-1]
        with files.open_input_stream(path) as source, open(copy, "wb") as target:
            while block := source.read(BLOCK):
                target.write(block)
        yield copy


@contextlib.contextmanager
def whole_file(files: fs.FileSystem, path: str) -> Iterator:
    """A file to write that appears under its name when it is complete.

    An object store shows an object when its writing ends; on a disk the file is
    written under another name.
    """
    folder, _, name = path.rpartition("/")
    files.create_dir(folder, recursive=True)
    partial = f"{folder}/.{name}.{uuid.uuid4().hex}.partial"
    try:
        with files.open_output_stream(partial) as stream:
            yield stream
        files.move(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            files.delete_file(partial)
        raise
