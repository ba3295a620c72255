"""Cross-modal codes by the shared loop: losses, one tiny run, both ways by hand."""

import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_matching_task import Halves

from modal_aware_jax import build, compare
from modal_aware_jax.experiment.backbones import BACKBONES, BackboneKind
from modal_aware_jax.experiment.cross_modal_methods import LOSSES, METHODS
from modal_aware_jax.models.temperature import Temperature
from modal_aware_jax.models.two_tower import Tower
from modal_aware_jax.models.word_tower import WordTower
from modal_aware_jax.retrieval.metrics import mean_average_precision
from modal_aware_jax.tasks import cross_modal


def tiny(folder):

    path = pathlib.Path(__file__).parent.parent / "configs" / "cross_modal.py"
    config = runpy.run_path(str(path))["get_config"]("bits=8")
    with config.unlocked():
        config.data.source, config.data.options = "shapes", {"num_pairs": 200}
        config.data.update(
            image_size=32, num_queries=20, num_train=100, num_validation=30
        )
        config.backbone.update(name="halves", weights="")
        config.backbone.options = {}
        config.model.hidden_features = config.model.head_features = 16
        config.training.update(num_epochs=1, batch_size=50, cache_dir=str(folder))
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("cells")
    with pytest.MonkeyPatch.context() as patch:
        kind = BackboneKind(Halves, None, [0.0] * 3, [1 / 255] * 3, lambda path: 0)
        patch.setitem(BACKBONES, "halves", kind)
        config = tiny(workdir / "maps")
        cell = compare.Cell("average_precision", 8, 0)
        yield config, workdir, cell, compare.run_cells(config, [cell], workdir)[cell]


def test_both_ways_are_scored_by_their_own_codes(finished, tmp_path):
    config, workdir, cell, found = finished
    with np.load(workdir / cell.folder / "codes.npz") as kept:
        kept = dict(kept)
    unseen = ~kept["database_trained"]
    for way in ("image_to_text", "text_to_image"):
        codes = kept[f"{way}_query"], kept[f"{way}_database"]
        labels = kept["query_labels"], kept["database_labels"]
        by_hand = mean_average_precision(*codes, *labels, num_bits=8)
        assert found.result[way]["map_expected"] == pytest.approx(by_hand)
        own = codes[1][unseen], labels[0], labels[1][unseen]
        by_hand = mean_average_precision(codes[0], *own, num_bits=8)
        assert found.result[way]["unseen"]["map_expected"] == pytest.approx(by_hand)
    assert (kept["image_to_text_query"] != kept["text_to_image_query"]).any()
    cells, _ = compare.find_cells(config, workdir)
    compare.write_comparison(tmp_path, cells, config, first=[cell.method])
    row = json.loads((tmp_path / "comparison.json").read_text())["rows"][0]
    way = found.result["text_to_image"]
    assert row["map_text_to_image_unseen"] == pytest.approx(
        way["unseen"]["map_expected"]
    )
    assert "image → text" in (tmp_path / "index.html").read_text()


@pytest.fixture
def tiny_network(tmp_path, monkeypatch):
    """Of some head features: an experiment, and a batch of means and bags."""
    kind = BackboneKind(Halves, None, [0.0] * 3, [1 / 255] * 3, lambda path: 0)
    monkeypatch.setitem(BACKBONES, "halves", kind)

    def make(head_features):
        config = tiny(tmp_path)
        config.model.head_features = head_features
        experiment = build.experiment(config)
        pairs, rows = experiment.collection, np.arange(6)
        width = experiment.model.towers.image.in_features
        batch = {
            "image": np.random.default_rng(0).random((6, 1, 1, width), np.float32),
            "text": pairs.text[rows].astype(np.float32),
            "labels": pairs.labels[rows],
            "index": rows,
        }
        return experiment, batch

    return make


def test_codes_are_of_the_label_probabilities_of_their_own_side(tiny_network):
    experiment, batch = tiny_network(16)
    model = experiment.model
    means = jnp.asarray(batch["image"])
    outputs = model.joint_from_means(means, jnp.asarray(batch["text"]), train=False)
    bits = np.asarray(
        mean_of_one_reading(experiment)(model, {**batch, "image": batch["image"]})
    )
    for side, found in zip(outputs, np.split(bits, 2, axis=1), strict=True):
        logits = np.asarray(side).reshape(6, -1)[:, 8:]
        assert logits.shape[1] == experiment.collection.num_labels
        (w, b), (v, c) = (
            (np.asarray(layer.kernel), np.asarray(layer.bias))
            for layer in (model.codes.hidden, model.codes.code.dense)
        )
        expected = np.maximum(1 / (1 + np.exp(-logits)) @ w + b, 0) @ v + c
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def mean_of_one_reading(experiment):
    """The output without the mirrored reading."""

    def joint(model, batch, text, *, train):
        return model.joint_from_means(jnp.asarray(batch["image"]), text, train=train)

    return cross_modal.output(joint)


def test_codes_teach_the_towers_nothing(tiny_network, monkeypatch):
    experiment, batch = tiny_network(16)
    taught = gradients(experiment, batch)
    assert largest(taught["codes"]["hidden"]) > 0
    monkeypatch.setattr(cross_modal, "TAUGHT_WEIGHT", 0.0)
    alone = gradients(experiment, batch)
    assert largest(alone["codes"]) == 0
    jax.tree.map(np.testing.assert_array_equal, taught["towers"], alone["towers"])


def test_without_head_features_codes_are_the_towers_own(tiny_network):
    experiment, batch = tiny_network(0)
    assert "codes" not in gradients(experiment, batch)
    assert experiment.model.towers.image.head.num_bits == 8


def gradients(experiment, batch):
    graphdef, *state = nnx.split(experiment.model, nnx.Param, ...)
    params, rest = map(nnx.to_pure_dict, state)

    def loss(params):
        model = nnx.merge(graphdef, params, rest)
        return experiment.loss(model, batch, jax.random.key(0))

    return jax.grad(loss)(params)


def largest(tree):
    return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


def test_every_loss_has_a_gradient_of_both_sides():
    random = np.random.default_rng(0)
    image, text = (jnp.asarray(random.normal(size=(6, 4))) for _ in range(2))
    labels = jnp.asarray(random.integers(0, 2, (6, 3)))
    temperature = Temperature()
    for name, loss in LOSSES.items():
        value, gradients = jax.value_and_grad(
            lambda i, t, f=loss: f.function(i, t, labels, temperature, **f.options),
            argnums=(0, 1),
        )(image, text)
        assert np.isfinite(value), name
        for gradient in gradients:
            assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, name
    assert {row.loss for row in METHODS.values()} == LOSSES.keys()


def test_means_and_what_is_refused(finished):
    config, _, _, found = finished
    text = json.dumps(found.result, default=lambda x: x.tolist())
    back = cross_modal.read(json.loads(text))
    mean = cross_modal.mean([back, found.result])
    for way in cross_modal.WAYS:
        assert mean[way]["map_expected"] == pytest.approx(
            found.result[way]["map_expected"]
        )
    pairs = build.collection(config.data)
    with config.unlocked():
        other = config.copy_and_resolve_references()
    for other.data.text in ("word_pieces", "word_tokens", "sequences"):
        with pytest.raises(ValueError, match="one vector a text: .* got '(word|seq)"):
            build.experiment(other, pairs)
    model = build.experiment(config, pairs).model
    assert isinstance(model.towers.text.tower.head, nnx.Module)


def test_a_word_tower_sums_vectors_over_the_root_of_their_number():
    tower = Tower(3, 2, hidden_features=4, rngs=nnx.Rngs(0))
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    words = WordTower(vectors, tower)
    bags = jnp.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0]])
    sums = np.stack([(vectors[0] + vectors[3]) / 2**0.5, np.zeros(3)])
    expected = tower(jnp.asarray(sums, jnp.float32))
    np.testing.assert_allclose(words(bags), expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"expects bags \[B, 5\] .* got \(2, 3\)"):
        words(bags[:, :3])
    with pytest.raises(ValueError, match=r"vectors of words \[T, 3\]"):
        WordTower(vectors[:, :2], tower)
