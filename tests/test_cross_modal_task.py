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

from modal_aware_jax import build, compare, modes
from modal_aware_jax.compare.finished import chosen_cells
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
        config.model.hidden_features = 16
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


def test_what_needs_one_code_of_a_pair_is_refused(finished):
    """Both codes of a pair, side by side, are no code of K bits."""
    config, workdir, cell, _ = finished
    run, folder = build.experiment(config), workdir / cell.folder
    for mode in (
        lambda: modes.encode_collection(run, folder),
        lambda: modes.search_run(run, folder, words="kite"),
        lambda: modes.service_of_run(run, folder),
        lambda: modes.export_run(run, folder),
    ):
        with pytest.raises(ValueError, match="codes of pairs .* is in codes.npz"):
            mode()
    assert not (folder / "encoded.npz").exists()
    with pytest.raises(ValueError, match="codes of pairs .* cross_modal has none"):
        chosen_cells(config, workdir)


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
