"""What an index was made of, in a file beside it: weights, and what they encoded.

The name of an index tells the step, and its ids the pairs: a run that was trained anew
has the same steps, and a collection that was edited the same ids.
"""

import hashlib
import json
import os
import pathlib

import numpy as np
from flax import nnx

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.modes.model_files import flat_variables


def index_facts(weights: str, pairs: Collection) -> dict[str, str]:
    """The facts of an index of a collection.

    Args:
      weights: tell one model from another, as `weights_digest` and
        `EncoderModel.digest` do.
      pairs: as the model reads them.
    """
    return {"weights": weights, "collection": content_digest(pairs)}


def weights_digest(model: nnx.Module) -> str:
    """16 hex digits of all that a network's outputs depend on."""
    digest = hashlib.sha256()
    for name, leaf in sorted(flat_variables(model).items()):
        digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()[:16]


def content_digest(pairs: Collection) -> str:
    """16 hex digits of a collection's ids, texts and pictures.

    A prepared collection is told by its preparation, which has another name after any
    change of its files; of others every byte is read.

    Example:
      >>> def pairs(image):
      ...     eye = np.eye(1)
      ...     return Collection("a", ["x"], [image], eye, ["sea"], eye, "w", "l")
      >>> content_digest(pairs(b"1")) == content_digest(pairs(b"2"))
      False
    """
    digest = hashlib.sha256("\n".join(map(str, pairs.ids)).encode())
    if isinstance(pairs.text, np.ndarray):
        digest.update(f"{pairs.text.dtype} {pairs.text.shape}".encode())
        digest.update(np.ascontiguousarray(pairs.text).data)
    preparation = getattr(pairs.images, "preparation", "")
    digest.update(preparation.encode())
    if not preparation:
        digest.update("\n".join(pairs.captions[:]).encode())
        for image in pairs.images:
            digest.update(image)
    return digest.hexdigest()[:16]


def read_facts(index: pathlib.Path) -> dict | None:
    """What an index was made of; None of one from before this was kept."""
    try:
        facts = json.loads(_file(index).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def keep_facts(index: pathlib.Path, facts: dict) -> None:
    """Writes the file; an index that is made anew is not there meanwhile.

    Stopped at any moment there is no index, or one with its own facts.
    """
    partial = _file(index).with_name(f".{_file(index).name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(facts), "utf-8")
    partial.replace(_file(index))


def _file(index):
    return index.with_name(f"{index.name}.json")
