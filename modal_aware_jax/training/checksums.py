"""Checksums of a finished checkpoint's files, to find one that was cut or altered."""

import hashlib
import json
import os
from pathlib import Path

CHECKSUMS = "checksums.json"


def write_checksums(path: Path) -> None:
    """Lists the size and SHA-256 of every file of a finished checkpoint."""
    sums = {
        str(file.relative_to(path)): [file.stat().st_size, _sha256(file)]
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != CHECKSUMS
    }
    temporary = path / (CHECKSUMS + ".tmp")
    with open(temporary, "w") as file:
        json.dump(sums, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path / CHECKSUMS)


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    try:
        sums = json.loads((path / CHECKSUMS).read_text())
        for name, (size, digest) in sums.items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} bytes instead of {size}"
            if _sha256(file) != digest:
                return f"{name} does not match its checksum"
    except FileNotFoundError:
        return "it was never finished"
    except (OSError, ValueError, TypeError, AttributeError):
        return f"{CHECKSUMS} cannot be read"
    return None


def is_finished(path: Path) -> bool:
    """Whether a checkpoint's checksums were written: that is done last."""
    return (path / CHECKSUMS).exists()


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
