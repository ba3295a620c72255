"""Bags, TF-IDF and sentence vectors of a collection: one encoder for old and new."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfTransformer
from test_end_to_end import tiny_config

from modal_aware_jax import build, modes
from modal_aware_jax.data import shapes
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.text_vectors import (
    BagOfWords,
    Sentences,
    TfIdf,
    represent,
    text_encoder,
)
from modal_aware_jax.data.word_vectors import cooccurrence_vectors
from modal_aware_jax.experiment import assembly
from modal_aware_jax.training import update as updates
from modal_aware_jax.training.checkpoint import Checkpointer

CAPTIONS = ["sea,  sky", "sea", "dog sea", "sky", ""]
BAGS = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], np.uint8)
TRAIN = np.array([0, 1, 2])


@pytest.fixture
def pairs():
    labels, names = np.ones((5, 1)), ("l",)
    images = [b"."] * 5
    words = ("sea", "dog", "sky")
    return Collection(
        "five", list("abcde"), images, BAGS, CAPTIONS, labels, words, names
    )


class Counted:
    """Stands for a model: the number of letters, and of words."""

    digest, calls = "0", 0

    def __call__(self, sentences, *, progress=lambda n: None):
        self.calls += 1
        progress(len(sentences))
        rows = [[len(s), len(s.split())] for s in sentences]
        return np.array(rows, np.float32)


def test_rarity_comes_from_the_training_pairs_alone(pairs):
    encoder = TfIdf(pairs, TRAIN)
    fitted = TfidfTransformer().fit(BAGS[TRAIN])
    seen = represent(pairs, encoder)
    assert seen.text.dtype == np.float32 and seen.vocabulary == pairs.vocabulary
    np.testing.assert_allclose(seen.text, fitted.transform(BAGS).toarray(), rtol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(seen.text, axis=1), [1, 1, 1, 1, 0], rtol=1e-6
    )
    others = BAGS.copy()
    others[3:] = 1  # not trained on: no weight may change
    changed = Collection(
        *("five", pairs.ids, pairs.images, others, CAPTIONS),
        *(pairs.labels, pairs.vocabulary, pairs.label_names),
    )
    np.testing.assert_array_equal(
        represent(changed, TfIdf(changed, TRAIN)).text[TRAIN], seen.text[TRAIN]
    )
    with pytest.raises(ValueError, match="five is weighted already"):
        TfIdf(seen, TRAIN)


@pytest.mark.parametrize("kind", ["bag", "tfidf", "sentence"])
def test_the_words_of_a_pair_encode_to_its_vector(pairs, kind):
    makers = {
        "bag": lambda: BagOfWords(pairs),
        "tfidf": lambda: TfIdf(pairs, TRAIN),
        "sentence": lambda: Sentences(Counted()),
    }
    encoder = makers[kind]()
    seen = represent(pairs, encoder)
    words = [encoder.words(seen, i) for i in range(5)]
    np.testing.assert_array_equal(encoder.encode(words), seen.text)
    assert encoder.encode(words).dtype == np.float32


def test_a_new_text_is_split_as_its_kind_reads_it(pairs):
    assert BagOfWords(pairs).split("Sea, boat; SKY") == (["sea", "sky"], ["boat"])
    assert Sentences(Counted()).split("Sea, boat") == (["Sea,", "boat"], [])
    np.testing.assert_array_equal(
        BagOfWords(pairs).encode([["sky", "sky", "no"], []]), [[0, 0, 1], [0, 0, 0]]
    )


def test_sentence_vectors_are_computed_once(pairs, tmp_path, capsys):
    model = Counted()
    encoder = Sentences(model, tmp_path / "text")
    first = represent(pairs, encoder)
    assert first.vocabulary == () and first.text.tolist()[:3] == [
        [8, 2],
        [3, 1],
        [7, 2],
    ]
    np.testing.assert_array_equal(represent(pairs, encoder).text, first.text)
    assert model.calls == 1
    (kept,) = (tmp_path / "text").iterdir()
    damaged = bytearray(kept.read_bytes())
    damaged[damaged.index(np.float32(8).tobytes())] ^= 1  # a flipped bit
    kept.write_bytes(damaged)
    np.testing.assert_array_equal(represent(pairs, encoder).text, first.text)
    assert model.calls == 2 and "is damaged" in capsys.readouterr().out
    other = Collection(
        *("five", pairs.ids, pairs.images, BAGS, ["dog", *CAPTIONS[1:]]),
        *(pairs.labels, pairs.vocabulary, pairs.label_names),
    )
    represent(other, encoder)
    assert model.calls == 3  # other captions, another file
    model.digest = "1"
    represent(pairs, encoder)
    assert model.calls == 4  # another model, another file


def test_kinds_by_name(pairs):
    for kind, made in (("bag", BagOfWords), ("tfidf", TfIdf), ("sentence", Sentences)):
        assert type(text_encoder(kind, pairs, TRAIN, read_model=str)) is made
    with pytest.raises(ValueError, match="'sentence' reads a sentence model. Give"):
        text_encoder("sentence", pairs, TRAIN)
    words = text_encoder("words", pairs, TRAIN)
    assert words.split("Sea, boat; SKY") == (["sea", "sky"], ["boat"])
    expected = cooccurrence_vectors(pairs.text[TRAIN])  # of no other pair
    np.testing.assert_array_equal(words.vectors_of_words, expected)
    kinds = "one of bag, .* words, word_tokens, word_pieces, word_pieces_by_line, word_"
    with pytest.raises(ValueError, match=kinds):
        text_encoder("bow", pairs, TRAIN)
    bare = represent(pairs, Sentences(Counted()))
    with pytest.raises(ValueError, match="five has no vocabulary.*text=sentence"):
        BagOfWords(bare)


def test_word_vectors_by_a_model_are_computed_once(pairs, tmp_path):
    model = Counted()
    arguments = {"read_model": lambda folder: model, "word_vectors": ""}
    first, again = (
        text_encoder("words", pairs, TRAIN, **arguments, folder=tmp_path)
        for _ in range(2)
    )
    assert model.calls == 1
    np.testing.assert_array_equal(first.vectors_of_words, again.vectors_of_words)
    assert first.vectors_of_words.shape == (3, 2)


def test_a_run_on_words_is_exported_and_read_back(tmp_path, monkeypatch):
    """Its word vectors go with it: the program and the weights read plain bags."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = tiny_config("text")
    with config.unlocked():
        config.data.text = "words"
    experiment = build.experiment(config)
    width = cooccurrence_vectors(experiment.collection.text).shape[1]
    assert experiment.model.text.mlp.text_features == width
    tx = experiment.make_optimizer(3)
    _, params, stats = updates.split_model(experiment.model, experiment.is_trained)
    state = updates.init_state(params, stats, tx)
    record = {"epoch": 0, "history": [], "best": None}
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        checkpointer.save(0, state, data=None, run=record)
    folder = modes.export_run(experiment, tmp_path)
    bags = experiment.collection.text[:5].astype(np.float32)
    images = np.zeros((5, experiment.image_size, experiment.image_size, 3), np.uint8)
    expected = np.asarray(experiment.model(images, bags, train=False))
    for name in ("encoder.stablehlo", "model.safetensors"):
        model = modes.load_model_file(folder / name)
        assert model.vocabulary == experiment.collection.vocabulary
        relaxed = model.relaxed({"image": images, "text": bags})
        np.testing.assert_allclose(relaxed, expected, atol=1e-5)


@pytest.fixture(params=["tfidf", "sentence"])
def run(request, tmp_path, monkeypatch):
    """Kind of text and a small experiment that reads it."""
    monkeypatch.setattr(assembly, "SentenceModel", lambda folder: Counted())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = tiny_config("text")
    with config.unlocked():
        config.data.text = request.param
        config.training.num_epochs = 1
    return request.param, build.experiment(config)


def test_the_network_and_its_batches_read_the_kind_of_the_config(run):
    kind, experiment = run
    pairs = experiment.collection
    width = {"tfidf": len(shapes.VOCABULARY), "sentence": 2}[kind]
    assert pairs.text.dtype == np.float32 and pairs.num_text_features == width
    assert experiment.model.text.text_features == width
    expected = experiment.text.encode([experiment.text.words(pairs, 7)])
    np.testing.assert_array_equal(pairs.text[7:8], expected)


@pytest.mark.slow
def test_a_run_searches_with_its_kind_of_text(run, tmp_path):
    """From training to a search: the words of a pair find the pair."""
    kind, experiment = run
    pairs = experiment.collection
    modes.train(experiment, tmp_path)
    found = modes.search_run(experiment, tmp_path, words=pairs.captions[7], k=260)
    distance = {row["id"]: row["distance"] for row in found}
    assert distance[pairs.ids[7]] == 0
    with pytest.raises(ValueError, match=f"this run has config.data.text={kind}"):
        modes.export_run(experiment, tmp_path)
