"""Without labels: neighbours by frozen features, learned and scored in every mode."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from test_end_to_end import tiny_config
from test_methods import TinyBackbone

from modal_aware_jax import build, modes
from modal_aware_jax.data import shapes
from modal_aware_jax.experiment.backbones import BACKBONES
from modal_aware_jax.hashing.head import HashHead
from modal_aware_jax.retrieval.neighbours import as_labels, joint_vectors, nearest
from modal_aware_jax.tasks.frozen_features import frozen_features
from modal_aware_jax.tasks.neighbours import list_length
from modal_aware_jax.training.memory import NeighbourLists

RNG = np.random.default_rng(0)


def test_products_rank_by_the_mean_of_standardised_cosines():
    """Against the cosines, standardised one by one in a double loop."""
    image, text = RNG.normal(size=(12, 5)), 9 * RNG.normal(size=(12, 3)) + 1
    train = np.arange(2, 12)
    total = np.zeros((12, 12))
    for features in (image, text):
        x = features - features[train].mean(axis=0)
        cosine = np.zeros((12, 12))
        for i, j in np.ndindex(12, 12):
            cosine[i, j] = x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
        among = [cosine[i, j] for i in train for j in train if i != j]
        total += (cosine - np.mean(among)) / np.std(among) / 2
    vectors = joint_vectors([(image, None), (text, None)], train)
    products = vectors @ vectors.T
    np.testing.assert_allclose(np.ptp(products - total), 0, atol=1e-4)


def test_a_missing_modality_says_nothing_and_pairs_outside_of_training_neither():
    image, text = RNG.normal(size=(8, 4)), RNG.normal(size=(8, 4))
    train, has = np.arange(6), np.arange(8) != 3
    vectors = joint_vectors([(image, None), (text, has)], train)
    assert not vectors[3, 4:].any() and vectors[3, :4].any()
    text[3], text[7] = 50, -7  # the one is missing, the other not trained on
    again = joint_vectors([(image, None), (text, has)], train)
    np.testing.assert_array_equal(again[:7], vectors[:7])
    assert np.isfinite(joint_vectors([(np.ones((5, 2)), None)], np.arange(5))).all()
    with pytest.raises(ValueError, match="a modality and three training pairs, got 0"):
        joint_vectors([], train)


def test_nearest_agrees_with_sklearn_and_ranks_equals_by_position():
    x = RNG.normal(size=(40, 6)).astype("f")
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = NearestNeighbors(n_neighbors=8).fit(x).kneighbors(x)[1]
    np.testing.assert_array_equal(nearest(x, x, 7, own=np.arange(40)), expected[:, 1:])
    # Products that no order of summing rounds: of others, equals may differ in a bit.
    one = np.eye(1, 6, dtype="f")
    assert nearest(one, np.repeat(one, 5, axis=0), 3).tolist() == [[0, 1, 2]]
    whole = RNG.integers(0, 3, size=(99, 4))  # many are equal, at the border too
    order = np.argsort(-(whole[:5] @ whole.T), axis=1, kind="stable")
    for k in (1, 7, 50, 99):
        np.testing.assert_array_equal(nearest(whole[:5], whole, k), order[:, :k])
    with pytest.raises(ValueError, match="expected 1 <= k <= 39, got 40"):
        nearest(x, x, 40, own=np.arange(40))


def test_labels_of_neighbours_by_hand():
    own, labels = as_labels(np.array([[1, 2], [2, 0]]), 4)
    shared = own.astype(int) @ labels.T
    assert shared.tolist() == [[0, 1, 1, 0], [1, 0, 1, 0]]


def test_lists_weigh_by_rank_both_ways_under_jit():
    lists = NeighbourLists(4, 3)
    lists.rows[...] = jnp.array([[1, 2, 3], [2, 3, 0], [3, 0, 1], [0, 1, 2]])
    rows = jnp.array([3, 0, 1])
    expected = [[0, 1, 2 / 3], [1, 0, 1], [2 / 3, 1, 0]]
    np.testing.assert_allclose(jax.jit(lambda r: lists(r))(rows), expected, rtol=1e-6)
    assert not NeighbourLists(4, 3)(rows).any()  # not filled yet
    assert list_length(3) == 2


def unlabelled(number=260):
    pairs = shapes.load(num_pairs=number, image_size=32)
    return dataclasses.replace(pairs, labels=np.zeros((number, 0)), label_names=())


def config_of(method="concat"):
    config = tiny_config(method)
    with config.unlocked():
        config.backbone = dict(name="tiny", options={}, weights="", frozen_blocks=0)
        config.loss.name = "expected_ap"
        # Of heads that cannot be there.
        config.loss.label_weight, config.model.head_features = 0.3, 8
        config.training.num_epochs = 2
    return config


@pytest.fixture(autouse=True, scope="module")
def tiny():
    kind = BACKBONES["resnet18"]._replace(
        constructor=TinyBackbone, block_of=lambda path: 0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", kind)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir, config = tmp_path_factory.mktemp("run"), config_of()
    experiment = build.experiment(config, unlabelled())
    return workdir, experiment, modes.train(experiment, workdir)


def test_a_run_keeps_neighbours_and_says_that_no_labels_were_there(run, capsys):
    workdir, experiment, result = run
    chance = 10 / 80  # of the unseen pairs
    unseen = result["unseen"]
    assert unseen["num_database"] == 80 and unseen["recall_at"][10] > chance + 0.05
    assert result["queries_without_relevant"] == 0
    page = (workdir / "report" / "index.html").read_text()
    for text in (page, (workdir / "report" / "metrics.md").read_text()):
        assert "No labels were there" in text and "Recall of them by code" in text
    assert "is one of the query&#x27;s 10 nearest by the frozen features" in page
    assert "shares a label" not in page
    told = experiment.task.text({"concat": result})
    assert f"in unseen pairs: {unseen['recall_at'][10]:.1%} among the first 10" in told
    again = modes.evaluate_run(build.experiment(config_of(), unlabelled()), workdir)
    assert again["map_expected"] == result["map_expected"]
    assert "shapes: no labels. Codes learn to keep" in capsys.readouterr().err


def test_its_collection_is_encoded_searched_and_exported(run):
    workdir, experiment, _ = run
    pairs = experiment.collection
    with np.load(modes.encode_collection(experiment, workdir)) as encoded:
        assert encoded["codes"].shape == (260, 1) and encoded["labels"].shape[1] == 0
    (workdir / "query.png").write_bytes(pairs.images[7])
    found = modes.search_run(experiment, workdir, image=workdir / "query.png", k=3)
    assert len(found) == 3 and found[0]["labels"] == []
    model = modes.load_model_file(modes.export_run(experiment, workdir))
    images = np.zeros((2, 32, 32, 3), np.uint8)
    relaxed = model.relaxed({"image": images, "text": pairs.text[:2].astype("f")})
    assert np.asarray(relaxed).shape == (2, 16)


def test_labels_that_no_pair_has_are_none():
    pairs = dataclasses.replace(
        unlabelled(), labels=np.zeros((260, 2)), label_names=("boat", "dog")
    )
    experiment = build.experiment(config_of(), pairs)
    assert isinstance(experiment.model.head, HashHead)
    assert experiment.config["model"]["head_features"] == 0  # an export's, too


def test_frozen_features_of_maps_that_were_computed_once_are_their_means():
    maps = RNG.normal(size=(5, 2, 2, 3, 4)).astype(np.float16)
    experiment = types.SimpleNamespace(
        cached_means=False,
        cached_last=True,
        collection=types.SimpleNamespace(has_image=None, text=np.eye(5)),
        text=None,
    )
    (images, _), (text, has_text) = frozen_features(experiment, maps, (None, None))
    by_hand = [[[own[0, i, j] for i in (0, 1) for j in (0, 1, 2)]] for own in maps]
    np.testing.assert_allclose(images, np.mean(by_hand, axis=2)[:, 0], atol=1e-3)
    assert has_text.all() and text.shape == (5, 5)


def test_what_needs_labels_says_so():
    config = config_of()
    with config.unlocked():
        config.loss.name = "dpsh"
    message = "shapes has no labels, which the loss dpsh needs.*loss.name=expected_ap"
    with pytest.raises(ValueError, match=message):
        build.experiment(config, unlabelled(60 + 200))
