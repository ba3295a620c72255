"""What is served: a model with a collection, an index, or both; by a model of NumPy."""

import asyncio
import dataclasses
import json

import numpy as np
import pytest
from tiny_service import WORDS, collection, make_index, relaxed

from modal_aware_jax import modes
from modal_aware_jax.modes.model_files import EncoderModel
from modal_aware_jax.retrieval.index import HammingIndex

MODEL = EncoderModel(
    relaxed=relaxed,
    image_size=8,
    num_text_features=8,
    num_bits=32,
    vocabulary=WORDS,
    digest="abc",
)


def serve(pairs, workdir, ask, **options):
    """What a coroutine function makes of a service, which is closed after it."""

    async def run():
        service = modes.service_of_model(MODEL, pairs, workdir, **options)
        try:
            return await ask(service)
        finally:
            await service.close()

    return asyncio.run(run())


def test_a_collection_is_encoded_once_and_anew_when_it_changed(tmp_path, capsys):
    pairs = collection()

    async def change(service):
        first = await service.search(text="kite", k=5)
        await service.add(text="my kite", name="mine")
        await service.remove(pairs.ids[7].item())
        return [item["caption"] for item in first["items"]]

    captions = serve(pairs, tmp_path, change, batch_size=16)
    assert captions[0].startswith("kite number")
    make_index(tmp_path / "expected.index", pairs)
    codes = HammingIndex.load(tmp_path / "expected.index")
    served = HammingIndex.load(tmp_path / "served-abc.index")
    both = sorted(set(served.ids.tolist()) - {"mine"})
    assert len(both) == 39
    np.testing.assert_array_equal(served.get(both), codes.get(both))
    (tmp_path / "encoded.npz").unlink()

    async def count(service):
        return len(service.index), service.index.holds("mine")

    assert serve(pairs, tmp_path, count) == (40, True)
    assert not (tmp_path / "encoded.npz").exists()
    # One picture more: what was added and removed by hand stays as it was.
    columns = ("ids", "images", "captions")
    more = {name: [*getattr(pairs, name)[:], "new"] for name in columns}
    more["images"][-1] = pairs.images[0]
    more |= {
        n: np.concatenate([getattr(pairs, n)] * 2)[:41] for n in ("text", "labels")
    }
    capsys.readouterr()
    larger = dataclasses.replace(pairs, **more)
    assert serve(larger, tmp_path, count) == (41, True)
    assert "it is encoded again" in capsys.readouterr().out


def test_an_index_of_edited_pairs_or_other_weights_is_not_served(tmp_path, capsys):
    pairs, captions = collection(), []

    async def add(service):
        await service.add(text="my kite", name="mine")

    async def first(service):
        found = await service.search(text="kite", k=1)
        captions.append(found["items"][0]["id"])
        return service.index.holds("mine")

    serve(pairs, tmp_path, add)
    (tmp_path / "encoded.npz").unlink()
    edited = dataclasses.replace(pairs, text=np.roll(pairs.text, 1, axis=0))
    assert serve(edited, tmp_path, first) and (tmp_path / "encoded.npz").exists()
    assert "it is encoded again" in capsys.readouterr().out
    facts = tmp_path / "served-abc.index.json"
    now = json.loads(facts.read_text())
    facts.write_text(json.dumps({**now, "weights": "others"}))
    with pytest.raises(ValueError, match="holds 1 items .* Move it away"):
        serve(edited, tmp_path, first)
    facts.unlink()  # an index from before they were kept
    assert serve(pairs, tmp_path, first)
    assert json.loads(facts.read_text()) != now


def test_an_index_alone_shows_ids(tmp_path):
    make_index(tmp_path / "mine.index", collection())

    async def ask(service):
        found = await service.search(text="sea zebra", k=2)
        some = await service.some(3)
        return found, some, await service.picture(found["items"][0]["id"])

    found, some, picture = serve(None, tmp_path, ask, index=tmp_path / "mine.index")
    assert found["unknown"] == ["zebra"] and picture is None and some["items"] == []
    assert [item["has_picture"] for item in found["items"]] == [False, False]
    assert {item["id"][:7] for item in found["items"]} == {"folder/"}
    json.dumps(found)


def test_what_cannot_be_served_is_refused(tmp_path):
    def refuse(message, pairs=None, model=MODEL, **options):
        with pytest.raises(ValueError, match=message):
            modes.service_of_model(model, pairs, tmp_path, **options)

    refuse("name what is searched, a collection with --config=FILE or an index")
    refuse("--index: there is no file", index=tmp_path / "nothing.index")
    nameless = MODEL._replace(vocabulary=())
    refuse("its vocabulary is not known", index=tmp_path / "x.index", model=nameless)
    index = HammingIndex(16)
    index.add(np.zeros((1, 1), np.uint32))
    index.save(tmp_path / "short.index")
    refuse("have 16 bits, the model gives 32", index=tmp_path / "short.index")
    (tmp_path / "damaged.index").write_bytes(b"something")
    refuse("is not a Hamming index", index=tmp_path / "damaged.index")
