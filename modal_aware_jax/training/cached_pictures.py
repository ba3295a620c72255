"""Which pictures a file of cached maps is of, in a file of facts beside it.

The file's name tells weights, ids and a few of the pictures: reading all of them for
every start would take longer than the start. A prepared collection is known by its
preparation, which is another one after a change of its files or of its options: of each
the pictures are read once, whatever is then computed of them.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from modal_aware_jax.data.collection import Collection


def file_of(done: Path, collection: Collection) -> Path:
    """The file for these pictures: `done`, or another where it is of others.

    A file from before this was kept is taken as it is.

    Args:
        done: the file that weights, ids and a few pictures name.
        collection: the pairs; where they are not prepared, `done` is their file.
    """
    images = collection.images
    name = getattr(images, "preparation", "")
    if not name:
        return done
    # Degraded ones are told by those they are made of, which is quicker.
    whole = getattr(images, "originals", images)
    digest = _kept(
        done.with_name(f"pictures-{name}.json"), lambda: pictures_digest(whole)
    )
    if digest == _kept(done.with_suffix(".json"), lambda: digest):
        return done
    return done.with_stem(f"{done.stem}-{digest}")


def pictures_digest(images: Iterable[bytes]) -> str:
    """12 hex digits of every byte of encoded pictures."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(len(image).to_bytes(8, "little"))
        digest.update(image)
    return digest.hexdigest()[:12]


def _kept(place: Path, digest_of: Callable[[], str]) -> str:
    """The digest that a file holds; made and written where it holds none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads(place.read_text("utf-8"))["pictures"]
    digest = digest_of()
    with contextlib.suppress(OSError):  # a folder that is only read still serves
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps({"pictures": digest}), "utf-8")
        partial.replace(place)
    return digest
