"""Word pieces of captions: the encoder's own states, padded, masked, kept on disk."""

import json

import jax
import numpy as np
import pytest
from test_sentence_vectors import truth, write_model  # noqa: F401

from modal_aware_jax.backbones import text_batches, word_pieces
from modal_aware_jax.backbones.word_pieces import WordPieceModel
from modal_aware_jax.data import pipeline
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.text_vectors import represent, text_encoder
from modal_aware_jax.data.token_table import TokenTable
from modal_aware_jax.experiment.inputs import drop_words

CAPTIONS = ["sea\ndog boat", "  ", "x y z boat", "sea"]


class Letters:
    """Stands for a model: a word's piece is its length, beside the number of calls."""

    digest, features = "0", 2

    def __init__(self):
        self.calls, self.read = 0, []

    def __call__(self, texts, *, progress=lambda n: None):
        self.calls += 1
        self.read += texts
        progress(len(texts))
        words = [word for text in texts for word in text.split()]
        rows = np.array([[len(word), self.calls] for word in words], np.float16)
        lengths = np.array([len(text.split()) for text in texts], np.int32)
        return rows.reshape(-1, 2), lengths


def collection(captions=CAPTIONS):
    n = len(captions)
    names = ([f"i{k}" for k in range(n)], [b"."] * n)
    return Collection(
        "posts", *names, np.ones((n, 1)), captions, np.ones((n, 1)), "w", "l"
    )


def encoder(model, kind="word_pieces", **options):
    options = {"read_pieces": lambda folder, longest: model} | options
    return text_encoder(kind, collection(), np.arange(2), **options)


def test_pieces_are_the_states_that_the_encoder_gives_one_text(truth, tmp_path):  # noqa: F811
    model = WordPieceModel(write_model(tmp_path / "m", truth))
    texts = ["sea x y", "", "dog", "boat " * 40, " "]
    seen = []
    pieces, lengths = model(texts, progress=seen.append)
    assert lengths.tolist() == [5, 0, 3, 5, 0] and sum(seen) == 5  # 5: as it was saved
    assert pieces.shape == (13, 8) and pieces.dtype == np.float16
    # Each text alone, without any padding.
    start, encode = 0, jax.jit(model.encoder.__call__)
    for text, length in zip(texts, lengths, strict=True):
        if length:
            ids = np.array([model.ids([text])[0]])
            alone = encode(ids, np.ones_like(ids))[0]
            found = pieces[start : start + length]
            np.testing.assert_allclose(found, alone, rtol=2e-3, atol=2e-3)
        start += length
    short = WordPieceModel(tmp_path / "m", longest=4)
    assert short(["sea x y"])[1].tolist() == [4] and short.digest != model.digest


def test_a_text_encoder_needs_no_sentence_settings_but_a_tokenizer(truth, tmp_path):  # noqa: F811
    folder = write_model(tmp_path / "m", truth)
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    assert WordPieceModel(folder)(["boat " * 40])[1].tolist() == [32]
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="lacks tokenizer.json. Give a folder with"):
        WordPieceModel(folder)


def test_states_beyond_float16_are_told(truth, tmp_path, monkeypatch):  # noqa: F811
    model = WordPieceModel(write_model(tmp_path / "m", truth))
    monkeypatch.setattr(text_batches, "BATCH", 1)
    model._encode = lambda weights, ids, mask: np.full((1, 8, 8), 1e5)
    with (
        np.errstate(over="ignore"),
        pytest.raises(ValueError, match="beyond float16's"),
    ):
        model(["sea"])


def test_batches_are_padded_with_zeros_and_masked():
    text = encoder(Letters())
    pairs = represent(collection(), text)
    assert pairs.text.shape == (4, 4, 2) and pairs.num_text_features == 2
    batches = pipeline.eval_batches(
        pairs, np.array([2]), batch_size=2, image_size=4, threads=1
    )
    with pytest.raises(Exception, match="identify image"):  # the tiny pictures are none
        next(iter(batches))
    maps = np.zeros((4, 2, 1, 1, 1), np.float16)
    (batch,) = pipeline.cached_eval_batches(maps, pairs, [2, 0, 1], batch_size=4)
    tokens, mask = batch["text"]["tokens"], batch["text"]["mask"]
    assert mask.sum(axis=1).tolist() == [4, 3, 0, 0] and tokens.dtype == np.float32
    np.testing.assert_array_equal(tokens[..., 0], tokens[..., 0] * mask)
    assert tokens[0, :, 0].tolist() == [1, 1, 1, 4]
    assert tokens[1, :, 0].tolist() == [3, 3, 4, 0]
    new = text.encode([["a", "bc", "d"], []])  # as wide as the collection's
    assert new["tokens"][0, :, 0].tolist() == [1, 2, 1, 0]
    assert new["mask"].tolist() == [[True, True, True, False], [False] * 4]


def test_lines_are_texts_of_their_own():
    text = encoder(Letters(), "word_pieces_by_line")
    found = represent(collection(), text).text
    assert found.shape == (4, 2, 4, 2)
    item = found[np.array([0, 2])]
    assert item["mask"].sum(axis=2).tolist() == [[1, 2], [4, 0]]
    assert item["tokens"][0, :, :, 0].tolist() == [[3, 0, 0, 0], [3, 4, 0, 0]]
    assert text.encode([["sea", "sky"]])["mask"].shape == (1, 1, 4)


def test_pieces_are_kept_by_model_texts_and_cleaning(tmp_path, capsys):
    model = Letters()
    text = encoder(model, folder=tmp_path)
    first, again = (text.vectors(collection()) for _ in range(2))
    assert model.calls == 1
    np.testing.assert_array_equal(first[:]["tokens"], again[:]["tokens"])
    text.vectors(collection(CAPTIONS[:3] + ["sky"]))
    assert model.calls == 2
    with_links = [*CAPTIONS[:3], "sea http://t.co/x"]
    clean = encoder(model, folder=tmp_path, cleaning="post")
    assert clean.vectors(collection(with_links))[3]["mask"].sum() == 1
    assert clean.encode([["@user:", "sea"]])["mask"].sum() == 1
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-3])
    calls = model.calls
    text.vectors(collection())
    assert model.calls == calls + 1 and "is damaged" in capsys.readouterr().out
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_dropped_word_pieces_are_masked(key):
    text = {"tokens": np.ones((3, 50, 2)), "mask": np.arange(50) < np.full((3, 1), 40)}
    kept = jax.jit(drop_words, static_argnums=2)(key, text, 0.5)
    assert 30 < kept["mask"].sum() < 90 and not kept["mask"][:, 40:].any()
    assert drop_words(key, text, 0.0)["mask"].sum() == 120


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match=r"TokenTable: expected pieces .* of 3 word"):
        TokenTable(np.zeros((2, 4)), np.array([1, 2]))
    with pytest.raises(ValueError, match="cleaning is one of '', 'post', not 'x'"):
        encoder(Letters(), cleaning="x")
    with pytest.raises(ValueError, match="cleaning=post is of texts that a sentence"):
        encoder(Letters(), "bag", cleaning="post")
    with pytest.raises(ValueError, match="reads an encoder of word pieces"):
        encoder(Letters(), read_pieces=None)


def test_a_vit_reads_no_text(truth, tmp_path, monkeypatch):  # noqa: F811
    folder = write_model(tmp_path / "m", truth)
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))

    class NoText(word_pieces.ViT):
        def __init__(self):
            pass

    monkeypatch.setattr(word_pieces, "from_pretrained", lambda folder: NoText())
    with pytest.raises(ValueError, match="holds a ViT, which reads images"):
        WordPieceModel(folder)
