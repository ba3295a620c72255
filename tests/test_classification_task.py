"""Posts to classes by the shared loop: scores by hand, and one tiny run to its page."""

import json
import pathlib
import runpy

import numpy as np
import pytest
from PIL import Image
from test_end_to_end import tiny_config

from modal_aware_jax import build, compare, modes
from modal_aware_jax.classification import mcnemar_exact
from modal_aware_jax.compare.vectors import draw_vectors
from modal_aware_jax.data import shapes
from modal_aware_jax.experiment.losses import Setting
from modal_aware_jax.tasks import classification
from modal_aware_jax.tasks.classification import LOSSES, probabilities_of, scores

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def posts_config(method="text", **changes):
    """The demo's config, tiny."""
    config = runpy.run_path(str(CONFIGS / "posts.py"))["get_config"](f"method={method}")
    config.data.options.num_pairs, config.data.options.image_size = 260, 32
    config.data.image_size = 32
    config.data.num_queries = config.data.num_validation = 30
    config.data.num_train = 150
    config.backbone.options.width = 4
    config.model.text_widths, config.data.text = (16, 8), "bag"
    config.training.batch_size, config.training.num_epochs = 50, 2
    config.update_from_flattened_dict(changes)
    return config.lock()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two cells of a comparison, in their folder."""
    workdir = tmp_path_factory.mktemp("cells")
    config = posts_config()
    cells = [("text", 0, 0), ("text", 0, 1)]
    return config, workdir, compare.run_cells(config, cells, workdir)


def test_a_run_keeps_ids_probabilities_and_the_page(finished):
    config, workdir, cells = finished
    run = workdir / "text-0-0"
    result = cells[compare.Cell("text", 0, 0)].result
    pairs = build.collection(config.data)
    with np.load(run / "predictions.npz") as kept:
        position = {name: i for i, name in enumerate(pairs.ids)}
        rows = [position[name] for name in kept["ids"]]
        np.testing.assert_array_equal(kept["labels"], pairs.labels[rows].argmax(1))
        np.testing.assert_allclose(kept["probabilities"].sum(axis=1), 1, rtol=1e-5)
        right = kept["probabilities"].argmax(axis=1) == kept["labels"]
        assert kept["class_names"].tolist() == list(pairs.label_names)
        assert kept["vectors"].shape == (30, 8)  # the text's narrow vector
    assert len(right) == 30 and result["accuracy"] == pytest.approx(right.mean())
    np.testing.assert_array_equal(result["correct"], right)
    assert np.trace(result["confusion"]) == right.sum()
    for picture in ("confusion.png", "reliability.png"):
        Image.open(run / "report" / picture).verify()
    page = (run / "report" / "index.html").read_text()
    seen = [name for name in pairs.label_names if f"Surest wrong: {name}" in page]
    assert seen and "Surest right: " in page
    assert "| coast-night |" in (run / "report" / "metrics.md").read_text()
    history = json.loads((run / "report" / "history.json").read_text())["history"]
    assert {"validation_accuracy", "validation_macro_f1"} <= history[-1].keys()
    again = modes.evaluate_run(build.experiment(config), run)
    assert again["accuracy"] == result["accuracy"]


def test_runs_are_compared_post_by_post(finished, tmp_path):
    config, workdir, cells = finished
    found, left_out = compare.find_cells(config, workdir)
    assert not left_out and found.keys() == cells.keys()
    both = {cell: cells[cell] for cell in cells}
    other = cells[compare.Cell("text", 0, 0)]
    wrong = other.result | {"correct": np.zeros(30), "accuracy": 0.0}
    both[compare.Cell("gmu", 0, 0)] = other._replace(result=wrong)
    table = compare.write_comparison(tmp_path, both, config, first=["text"])
    head = (
        "| method | accuracy | seeds | text alone minus it (95 % interval) | macro-F1"
    )
    assert table.startswith(head)
    rows = json.loads((tmp_path / "comparison.json").read_text())["rows"]
    assert rows[1]["lead"] == pytest.approx(other.result["accuracy"])
    assert rows[0]["accuracy"] == pytest.approx(
        np.mean([cells[cell].result["accuracy"] for cell in cells])
    )
    assert "text alone" in (tmp_path / "index.html").read_text()
    # The majority of the two seeds, against one that is never right.
    both = np.mean([one.result["correct"] for one in cells.values()], axis=0) > 0.5
    told = (tmp_path / "comparison.md").read_text()
    p = mcnemar_exact(both, np.zeros(30)).p_value
    assert f"| GMU | {both.sum()} | 0 | {p:.4f} |" in told


def test_fused_vectors_are_drawn_method_beside_method(finished, tmp_path):
    config, workdir, cells = finished
    draw_vectors(config, workdir, tmp_path, cells, points=25)
    for name in ("vectors_pca.png", "vectors_tsne.png"):
        Image.open(tmp_path / name).verify()


def test_scores_by_hand():
    probabilities = np.array([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9], [0.8, 0.2]])
    truth = np.array([0, 1, 1, 0])
    result = scores(probabilities, truth, probabilities.argmax(axis=1))
    assert result["accuracy"] == 0.75
    np.testing.assert_array_equal(result["correct"], [1, 0, 1, 1])
    np.testing.assert_array_equal(result["confusion"], [[2, 0], [1, 1]])
    np.testing.assert_allclose(result["precision"], [2 / 3, 1])
    np.testing.assert_allclose(result["recall"], [1, 0.5])
    # Confidences .7 .8 .9 right, .6 wrong: gaps .3 .2 .1 and .6, each of one post.
    assert result["calibration_error"] == pytest.approx(0.3)
    labels = np.array([[1, 1], [0, 1]])
    several = scores(
        np.array([[0.9, 0.6], [0.7, 0.8]]), labels, np.array([[1, 1], [1, 1]])
    )
    assert several["accuracy"] == 0.5 and several["label_accuracy"] == 0.75
    assert "confusion" not in several


def test_a_mean_over_seeds_by_hand():
    truth = np.array([0, 1])
    one = scores(np.array([[0.95, 0.05], [0.3, 0.7]]), truth, np.array([0, 1]))
    two = scores(np.array([[0.95, 0.05], [0.96, 0.04]]), truth, np.array([0, 0]))
    names = {"class_names": ["a", "b"]}
    mean = classification.mean([one | names, two | names])
    assert mean["accuracy"] == 0.75 and "correct" not in mean
    np.testing.assert_array_equal(mean["confusion"], [[2, 0], [1, 1]])
    # The last of 15 bins holds three predictions, two of them right.
    assert mean["bin_count"][-1] == 3
    assert mean["bin_accuracy"][-1] == pytest.approx(2 / 3)
    assert np.isnan(mean["bin_accuracy"][0])


def test_probabilities_are_stable():
    huge = np.array([[1000.0, 0.0], [-1000.0, 0.0]])
    assert probabilities_of(huge, one_class=True).tolist() == [[1, 0], [0, 1]]
    assert probabilities_of(huge, one_class=False).tolist() == [[1, 0.5], [0, 0.5]]


@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_the_losses_count_training_posts_only(name):
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], np.uint8)
    setting = Setting(0, 2, 5, np.arange(3), num_steps=1, seed=0, labels=labels)
    logits = np.zeros((3, 2), np.float32)
    batch = {"labels": labels[:3]}
    made = LOSSES[name].make(setting, label_smoothing=0.0, balanced=True)
    np.testing.assert_allclose(made(logits, batch, None), np.log(2), rtol=1e-6)
    logits[2, 1] = -50.0  # the one post of the rare class is wrong
    plain = LOSSES[name].make(setting, label_smoothing=0.0, balanced=False)
    assert made(logits, batch, None) > plain(logits, batch, None) > np.log(2)


def test_what_it_cannot_do_is_refused(finished):
    config, workdir, _ = finished
    several = posts_config(**{"data.options.one_class": False})
    with pytest.raises(ValueError, match=r"of shapes have none or several.*=sigmoid"):
        build.experiment(several)
    get_config = runpy.run_path(str(CONFIGS / "posts.py"))["get_config"]
    with pytest.raises(ValueError, match="cannot use the method 'dpsh': it is the net"):
        get_config("method=dpsh")
    experiment = build.experiment(config)
    for mode in (modes.encode_collection, modes.search_run):
        with pytest.raises(ValueError, match="has no codes .*predictions.npz after"):
            mode(experiment, workdir / "text-0-0")
    with pytest.raises(ValueError, match="'softmax'.*Did you mean|Unknown loss"):
        config = tiny_config()
        with config.unlocked():
            config.loss.name = "softmax"
        build.experiment(config)


def test_several_labels_have_a_step(tmp_path):
    changes = {"data.options.one_class": False, "loss.name": "sigmoid"}
    config = posts_config(**changes)
    with config.unlocked():
        config.training.num_epochs = 1
    result = modes.train(build.experiment(config), tmp_path)
    assert 0.5 < result["label_accuracy"] < 1 and len(result["f1"]) == 19


def test_a_table_of_ones_own_is_classified_by_the_same_config():
    get_config = runpy.run_path(str(CONFIGS / "folder.py"))["get_config"]
    config = get_config("task=classification,method=gmu")
    assert config.task == "classification" and config.loss.name == "softmax"
    assert set(config.loss.options) == {"softmax", "sigmoid"}
    assert get_config().task == "hashing"


def test_one_class_of_shapes_by_the_scene():
    pairs, full = (shapes.load(num_pairs=40, one_class=one) for one in (True, False))
    assert pairs.label_names[-1] == "elsewhere" and pairs.labels.shape == (40, 5)
    np.testing.assert_array_equal(pairs.labels.sum(axis=1), 1)
    columns = [full.label_names.index(name) for name in pairs.label_names[:4]]
    np.testing.assert_array_equal(pairs.labels[:, :4], full.labels[:, columns])
    np.testing.assert_array_equal(pairs.text, full.text)
