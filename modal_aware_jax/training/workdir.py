"""A run's directory: made, found writable, and held by one process at a time."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from modal_aware_jax.training.errors import WorkdirError, WorkdirInUse


@contextlib.contextmanager
def lock_workdir(workdir: str | os.PathLike) -> Iterator[Path]:
    """Holds a run's directory, made if need be, against every other process.

    The lock goes with the process, however it ends; the file `.lock` that stays
    behind means nothing.

    >>> import tempfile
    >>> with lock_workdir(tempfile.mkdtemp()) as workdir:
    ...     (workdir / ".lock").exists()
    True
    """
    workdir = Path(os.path.abspath(os.path.expanduser(workdir)))
    with explain_write_errors(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        lock = open(workdir / ".lock", "a+")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise WorkdirInUse(
                f"{workdir} is in use by {owner}. Wait until it has finished, stop it, "
                "or choose another directory with --workdir."
            ) from None
        with explain_write_errors(workdir):
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
        yield workdir


@contextlib.contextmanager
def explain_write_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turns the operating system's refusals to write into a `WorkdirError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CURES:
            raise
        raise WorkdirError(
            f"{path} cannot be written: {os.strerror(error.errno)}. "
            f"{_CURES[error.errno]}"
        ) from error


def check_output(path: Path) -> None:
    """Refuses a file that cannot be written, before there is anything to write."""
    folder, reason = path.parent, ""
    if path.exists() and not path.is_file():
        reason = "it is a folder" if path.is_dir() else "it is no plain file"
    elif folder.exists() and not folder.is_dir():
        reason = f"{folder} is no folder"
    elif folder.exists() and not os.access(folder, os.W_OK):
        reason = f"nothing can be written in {folder}"
    if reason:
        raise ValueError(f"--output: {path} cannot be written: {reason}. Name a file.")


_ELSEWHERE = "Choose another directory with --workdir."
_SPACE = (
    "Free some space and give the same command again: it goes on from the last "
    "checkpoint."
)
_CURES = {
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
    errno.ENOTDIR: _ELSEWHERE,
    errno.EEXIST: _ELSEWHERE,
    errno.ENOENT: _ELSEWHERE,
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
}
