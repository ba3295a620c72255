"""Which pictures a file of cached maps is of, in a file of facts beside it.

The file's name tells weights, ids and a few of the pictures: reading all of them for
every start would take longer than the start. A prepared collection is known by its
preparation, which is another one after a change of its files or of its options: of each
the pictures are read once.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from modal_aware_jax.data.collection import Collection


def file_of(done: Path, collection: Collection) -> Path:
    """The file for these pictures: `done`, or another where it is of others.

    A file from before this was kept is taken as it is.

    Args:
        done: the file that weights, ids and a few pictures name.
        collection: the pairs; where they are not prepared, `done` is their file.
    """
    name = getattr(collection.images, "preparation", "")
    if not name:
        return done
    place = done.with_suffix(".json")
    facts = _read(place)
    if name not in facts["preparations"]:
        facts["preparations"][name] = digest = pictures_digest(collection)
        facts["pictures"] = facts["pictures"] or digest
        with contextlib.suppress(OSError):  # a folder that is only read still serves
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
            partial.write_text(json.dumps(facts, indent=0), "utf-8")
            partial.replace(place)
    digest = facts["preparations"][name]
    if digest == facts["pictures"]:
        return done
    return done.with_stem(f"{done.stem}-{digest}")


def pictures_digest(collection: Collection) -> str:
    """12 hex digits of every byte of the pictures."""
    digest = hashlib.sha256()
    # Degraded ones are told by those they are made of, which is quicker.
    for image in getattr(collection.images, "originals", collection.images):
        digest.update(len(image).to_bytes(8, "little"))
        digest.update(image)
    return digest.hexdigest()[:12]


def _read(place):
    try:
        facts = json.loads(place.read_text("utf-8"))
        return {"pictures": facts["pictures"], "preparations": facts["preparations"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {"pictures": "", "preparations": {}}
