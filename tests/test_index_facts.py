"""An index that was made of something else is made again, not searched."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.modes import search as search_mode
from modal_aware_jax.modes.index_facts import content_digest, weights_digest
from modal_aware_jax.modes.search import open_index
from modal_aware_jax.retrieval.index import HammingIndex

PAIRS = Collection(
    "two",
    ["a", "b"],
    [b"1", b"2"],
    np.eye(2),
    ["sea", "sky"],
    np.eye(2),
    (),
    ("x", "y"),
)


def test_weights_and_contents_are_told_apart():
    one, other = (nnx.Linear(2, 2, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    assert weights_digest(one) == weights_digest(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    assert weights_digest(one) != weights_digest(other)
    edits = ({"images": [b"1", b"3"]}, {"text": np.eye(2)[::-1]}, {"ids": ["a", "c"]})
    digests = {content_digest(dataclasses.replace(PAIRS, **edit)) for edit in edits}
    assert len(digests | {content_digest(PAIRS)}) == 4
    prepared = [type("Images", (list,), {"preparation": x})(b"ab") for x in "xy"]
    both = [content_digest(dataclasses.replace(PAIRS, images=x)) for x in prepared]
    assert both[0] != both[1]


def test_a_stale_index_is_made_again(tmp_path, capsys):
    path, made = tmp_path / "collection-2.index", []

    def search(weights, pairs=PAIRS):
        def encode():
            made.append(weights)
            file = tmp_path / "encoded.npz"
            codes = np.full((2, 1), len(made), np.uint32)
            np.savez(file, codes=codes, ids=pairs.ids, num_bits=8)
            return file

        return int(open_index(pairs, path, encode, weights).codes[0, 0])

    assert [search("first"), search("first"), search("second")] == [1, 1, 2]
    assert capsys.readouterr().out.count("it is made again") == 1
    edited = dataclasses.replace(PAIRS, images=[b"1", b"3"])
    assert search("second", edited) == 3
    (tmp_path / "collection-2.index.json").unlink()  # as from before it was kept
    assert search("third") == 3 and search("fourth") == 4


def test_an_index_whose_making_anew_was_interrupted_is_made_anew(tmp_path, monkeypatch):
    path, file = tmp_path / "collection-2.index", tmp_path / "encoded.npz"

    def search(weights, code, encode=lambda: file):
        np.savez(file, codes=[[np.uint32(code)]] * 2, ids=PAIRS.ids, num_bits=8)
        return int(open_index(PAIRS, path, encode, weights).codes[0, 0])

    def interrupted(*args):
        raise KeyboardInterrupt

    assert search("first", 1) == 1
    with pytest.raises(KeyboardInterrupt):
        search("second", 2, interrupted)
    assert search("second", 2) == 2
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(HammingIndex, "save", interrupted)
        search("third", 3)
    assert search("third", 4) == 4
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(search_mode, "keep_facts", interrupted)
        search("fourth", 5)
    assert search("fourth", 6) == 6
