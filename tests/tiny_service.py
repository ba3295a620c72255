"""A service over forty coloured pictures, whose codes are seen with the naked eye.

A code has 32 bits: the first 8 tell which of 8 words an item has, the others which of
three colours are strong, 8 bits each.
"""

import io

import numpy as np
from PIL import Image

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.text_vectors import BagOfWords
from modal_aware_jax.hashing.codes import pack
from modal_aware_jax.retrieval.index import HammingIndex
from modal_aware_jax.serve.encoder import QueryEncoder
from modal_aware_jax.serve.live_index import LiveIndex
from modal_aware_jax.serve.service import Service
from modal_aware_jax.serve.shelf import Shelf

WORDS = ("sea", "sky", "dog", "cat", "red", "green", "blue", "kite")
COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
NASTY = "<img src=x onerror=alert(1)>/../\"'%00&é漢\U0001f600"


def png(colour, size=(24, 24)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def relaxed(batch):
    """Words beside colours; an array of NumPy, as nothing has to be compiled."""
    colours = batch["image"].reshape(len(batch["image"]), -1, 3).mean(axis=1) - 129
    bits = [batch["text"] - 0.5, np.repeat(colours, 8, axis=1)]
    return np.concatenate(bits, axis=1).astype(np.float32)


def collection() -> Collection:
    """Forty pictures of three colours; every eighth has the same word."""
    names = list(COLOURS)
    text = np.zeros((40, 8), np.uint8)
    text[np.arange(40), np.arange(40) % 8] = 1
    captions = [f"{WORDS[i % 8]} number {i}" for i in range(40)]
    captions[5] = NASTY
    ids = [f"folder/{i:02}.png" for i in range(40)]
    ids[6] = NASTY
    return Collection(
        "forty",
        ids,
        [png(COLOURS[names[i % 3]]) for i in range(40)],
        text,
        captions,
        np.eye(3)[np.arange(40) % 3],
        WORDS,
        names,
    )


def encoder(pairs: Collection) -> QueryEncoder:
    return QueryEncoder(
        relaxed, BagOfWords(pairs), image_size=8, num_bits=32, sizes=(4,)
    )


def make_index(path, pairs: Collection) -> None:
    """The index of the collection's codes, by the same rule."""
    colours = [COLOURS[pairs.label_names[row.argmax()]] for row in pairs.labels]
    images = np.tile(np.array(colours)[:, None, None], (1, 2, 2, 1))
    bits = relaxed({"image": images, "text": pairs.text.astype(np.float32)})
    index = HammingIndex(32)
    index.add(np.asarray(pack(bits >= 0)), ids=pairs.ids)
    index.save(path)


def service(path) -> Service:
    """A service over the index at a path, made where there is none."""
    pairs = collection()
    if not path.exists():
        make_index(path, pairs)
    live = LiveIndex(path)
    return Service(live, Shelf(live, pairs), encoder(pairs), name=pairs.name)


if __name__ == "__main__":  # a server of its own, over the index at a path
    import pathlib
    import sys

    from modal_aware_jax.serve.run import open_socket, serve

    with open_socket("127.0.0.1", 0) as listening:
        serve(service(pathlib.Path(sys.argv[1])), listening)
