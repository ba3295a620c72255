"""A text encoder that is trained along: what it reads, its rate, and a run with it."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_classifiers import posts_config
from test_methods import tiny  # noqa: F401
from test_sentence_vectors import truth, write_model  # noqa: F401

from modal_aware_jax import build, modes
from modal_aware_jax.backbones.bert import BERT
from modal_aware_jax.backbones.clip import CLIP, CLIPImage, CLIPText
from modal_aware_jax.backbones.piece_reader import PieceReader
from modal_aware_jax.backbones.word_pieces import WordPieceModel, states
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.new_posts import Post
from modal_aware_jax.data.word_ids import WordIds
from modal_aware_jax.experiment.optimizers import make_optimizer
from modal_aware_jax.training.update import split_model


def fine_tuned(folder, **changes):
    """One step an epoch with the tiny BERT of a folder on the words of shapes."""
    return posts_config(
        "concat",
        **{
            "data.text": "word_ids",
            "data.sentence_model": str(folder),
            "optimizer.text_learning_rate": 5e-5,
            "optimizer.warmup_steps": 0,
            "training.batch_size": 80,
        }
        | changes,
    )


@pytest.fixture(scope="module")
def folder(truth, tmp_path_factory):  # noqa: F811
    return write_model(tmp_path_factory.mktemp("models") / "m", truth)


def test_texts_are_the_tokenizers_numbers_and_zeros(folder):
    text = WordIds(WordPieceModel(folder), clean=str.lower)
    assert text.encode([["SEA", "x"], [], ["dog"]]).tolist() == [
        [3.0, 5.0, 6.0, 4.0],  # [CLS] sea x [SEP] are 2 4 5 3
        [0.0] * 4,
        [3.0, 8.0, 4.0, 0.0],
    ]
    text.longest = 3  # of the collection
    assert text.encode([["sea", "x"]]).tolist() == [[3.0, 5.0, 6.0]]
    assert text.vocabulary == ()


def test_its_tokens_are_the_encoders_and_padding_has_no_say(folder):
    model = WordPieceModel(folder)
    reader = PieceReader(model.encoder, 5)
    read = jax.jit(reader.__call__)
    numbers = jnp.array([[3.0, 5.0, 6.0, 4.0, 0.0], [0.0] * 5])
    tokens, mask = read(numbers)
    assert mask.tolist() == [[True] * 4 + [False], [True] + [False] * 4]
    expected, lengths = model(["sea x"])  # padded to 8, by another program
    assert lengths.tolist() == [4] and np.isfinite(tokens).all()
    np.testing.assert_allclose(tokens[0, :4], expected, rtol=2e-3, atol=2e-3)


def test_of_a_clip_the_text_is_read(key):
    sizes = {"num_layers": 1, "num_heads": 2, "rngs": nnx.Rngs(0)}
    text = CLIPText(20, 8, 4, max_length=6, **sizes)
    clip = CLIP(CLIPImage(16, 8, 8, 4, **sizes), text)
    reader = PieceReader(clip, 6)
    assert reader.encoder is text and reader.features == 8
    numbers = jnp.array([[3, 5, 6, 0, 0, 0]])
    shapes = jax.eval_shape(lambda x: reader(x)[0], numbers)
    assert shapes.shape == (1, 6, 8)
    ids, mask = jnp.maximum(numbers - 1, 0), numbers != 0
    np.testing.assert_array_equal(states(clip, ids, mask), text.tokens(ids, mask))


def test_it_learns_at_a_rate_of_its_own(folder, tiny):  # noqa: F811
    config = fine_tuned(folder)
    experiment = build.experiment(config)
    _, params, _ = split_model(experiment.model, experiment.is_trained)
    tx = make_optimizer(config.optimizer, 1, 10)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(lambda g, p: tx.update(g, tx.init(p), p))(grads, params)
    reader, head = updates["reader"], updates["classifier"]["head"]
    # Adam's first step is the rate itself.
    for leaf in jax.tree.leaves(reader):
        np.testing.assert_allclose(leaf, -5e-5, rtol=1e-4)
    for leaf in jax.tree.leaves(head):
        np.testing.assert_allclose(leaf, -3e-3, rtol=1e-4)


def test_what_cannot_read_it_is_told(folder, tiny):  # noqa: F811
    with pytest.raises(ValueError, match=r"reads one vector a post: .*text=word_ids"):
        build.experiment(fine_tuned(folder, **{"model.method": "sum"}))
    hashing = fine_tuned(folder).copy_and_resolve_references()
    with hashing.unlocked():
        hashing.task, hashing.loss.name = "hashing", "triplet"
        hashing.model.num_bits = 16
    with pytest.raises(ValueError, match=r"text=word_ids gives tokens, which .*concat"):
        build.experiment(hashing)
    bert = BERT(9, 8, num_layers=1, num_heads=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"numbers of word pieces \[B, 4\].*\(1, 5\)"):
        PieceReader(bert, 4)(jnp.zeros((1, 5)))
    with pytest.raises(ValueError, match="WordPieceModel: .* lacks config.json"):
        build.experiment(fine_tuned(folder.parent))


def captioned(captions):
    ids = [str(i) for i in range(len(captions))]
    none = np.zeros((len(ids), 0))
    return Collection("lines", ids, [b""] * len(ids), none, captions, none, (), ())


def test_lines_are_side_by_side(folder):
    text = WordIds(WordPieceModel(folder), by_line=True)
    assert text.vectors(captioned(["sea x\ndog", "dog"])).tolist() == [
        [3.0, 5.0, 6.0, 4.0, 3.0, 8.0, 4.0, 0.0],
        [3.0, 8.0, 4.0, 0.0] + [0.0] * 4,
    ]
    assert text.encode([["sea"]]).tolist() == [[3.0, 5.0, 4.0, 0.0]]


def captioned_config(method, folder):
    path = pathlib.Path(__file__).parent.parent / "configs" / "captioned_shapes.py"
    config = runpy.run_path(str(path))["get_config"](f"method={method}")
    with config.unlocked():
        config.data.text, config.data.sentence_model = "word_ids_by_line", str(folder)
        config.optimizer.text_learning_rate = 5e-5
        config.optimizer.warmup_steps = 0
    config.data.options.num_images, config.training.batch_size = 64, 16
    config.data.options.image_size, config.data.image_size = 32, 32
    return config


@pytest.mark.parametrize("method", ["towers", "towers_cmfg"])
def test_in_matching_it_reads_sentences_and_learns_at_its_rate(folder, method):
    config = captioned_config(method, folder)
    experiment = build.experiment(config)
    pairs, model = experiment.collection, experiment.model
    length = experiment.text.longest
    assert pairs.text.shape == (64, length * len(pairs.captions[0].split("\n")))
    reader = model.towers.text.reader if method == "towers" else model.reader
    assert isinstance(reader, PieceReader) and reader.in_features == length
    _, params, _ = split_model(model, experiment.is_trained)
    tx = make_optimizer(config.optimizer, 1, 10)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(lambda g, p: tx.update(g, tx.init(p), p))(grads, params)
    rates = {
        "reader" in jax.tree_util.keystr(path): -np.asarray(leaf).ravel()[0]
        for path, leaf in jax.tree.leaves_with_path(updates)
    }
    assert rates[True] == pytest.approx(5e-5, rel=1e-4)  # Adam's first step
    assert rates[False] == pytest.approx(config.optimizer.learning_rate, rel=1e-4)


def test_what_is_solved_from_vectors_does_not_read_it(folder):
    with pytest.raises(ValueError, match=r"cca is solved .*data.text=sentences"):
        build.experiment(captioned_config("cca", folder))


def test_a_rate_of_its_own_is_asked_for(folder):
    config = captioned_config("towers", folder)
    with config.unlocked():
        del config.optimizer.text_learning_rate
    with pytest.raises(ValueError, match=r"flickr8k.py:text=fine_tuned sets"):
        build.experiment(config)


@pytest.mark.slow
def test_a_run_keeps_its_encoder_resumes_and_predicts(folder, tiny, tmp_path):  # noqa: F811
    config = fine_tuned(folder, **{"training.num_epochs": 2})
    pairs = build.collection(config.data)
    experiment = build.experiment(config, pairs)
    before = nnx.to_pure_dict(nnx.state(experiment.model.reader))
    result = modes.train(experiment, tmp_path / "run")
    again = build.experiment(config, pairs)
    assert modes.evaluate_run(again, tmp_path / "run")["accuracy"] == result["accuracy"]
    after = nnx.to_pure_dict(nnx.state(again.model.reader))
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before, after)
    assert 0 < max(jax.tree.leaves(moved)) < 1.1e-4  # two steps of 5e-5 at most
    predictor = modes.predictor_of_run(
        build.experiment(config, pairs), tmp_path / "run"
    )
    post = Post("new", None, "sea boat")
    (found,) = modes.predict(predictor, [post])
    assert found.note == "no picture" and found.probabilities.sum() == pytest.approx(1)
    (alone,) = modes.predict(predictor, [Post("none", None, " ")])
    assert alone.probabilities is None
