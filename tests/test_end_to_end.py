"""One tiny experiment from pictures to the report, by the functions of every mode."""

import json
import pathlib
import runpy

import numpy as np
import pytest
from PIL import Image

from modal_aware_jax import build, compare, modes
from modal_aware_jax.data import pipeline
from modal_aware_jax.training.errors import DataError, WorkdirError

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def tiny_config(method="modal_aware", bits=16):
    config = runpy.run_path(str(CONFIGS / "shapes.py"))["get_config"](
        f"method={method},bits={bits}"
    )
    config.data.options.num_pairs, config.data.options.image_size = 260, 32
    config.data.image_size = 32
    config.data.num_queries = config.data.num_validation = 30
    config.data.num_train = 150
    config.backbone.options.width = 4
    config.model.text_widths = (16, 8)
    config.training.batch_size, config.training.num_epochs = 50, 2
    return config.lock()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, modes.train(build.experiment(tiny_config()), workdir)


def test_training_leaves_a_complete_run(run):
    workdir, results = run
    assert results["num_queries"] == 30 and results["num_database"] == 230
    assert 0 < results["map_expected"] < 1
    for name in ("split.json", "metrics.csv", "codes.npz", "report/index.html"):
        assert (workdir / name).stat().st_size > 100, name
    for picture in ("precision_recall.png", "precision_at.png"):
        Image.open(workdir / "report" / picture).verify()
    split = json.loads((workdir / "split.json").read_text())
    assert not set(split["query"]) & set(split["database"])
    assert set(split["train"]) | set(split["validation"]) <= set(split["database"])
    history = json.loads((workdir / "report" / "history.json").read_text())["history"]
    assert [row["epoch"] for row in history] == [1, 2]


def test_map_agrees_with_sklearn_on_the_saved_codes(run):
    """Ranks by distance, then database position: the 'index' rule, by sklearn."""
    from sklearn.metrics import average_precision_score

    workdir, results = run
    with np.load(workdir / "codes.npz") as saved:
        bits = {
            name: np.unpackbits(saved[name].view(np.uint8), axis=1, bitorder="little")
            for name in ("query", "database")
        }
        labels = saved["query_labels"], saved["database_labels"]
    scores = []
    for code, own in zip(bits["query"], labels[0], strict=True):
        distance = (code != bits["database"]).sum(axis=1)
        order = distance * len(distance) + np.arange(len(distance))  # no ties
        relevant = (labels[1] & own).any(axis=1)
        scores.append(
            average_precision_score(relevant, -order) if relevant.any() else 0
        )
    assert results["map_index"] == pytest.approx(np.mean(scores), abs=1e-6)


def test_evaluating_the_checkpoint_gives_the_same_numbers(run):
    workdir, results = run
    again = modes.evaluate_run(build.experiment(tiny_config()), workdir)
    assert again["map_expected"] == results["map_expected"]
    np.testing.assert_array_equal(
        again["average_precision"], results["average_precision"]
    )


def test_what_cannot_be_read_or_written_by_an_evaluation_is_one_message(
    run, tmp_path, monkeypatch
):
    workdir, _ = run
    experiment = build.experiment(tiny_config())
    (tmp_path / "report").write_text("in the way")
    (tmp_path / "checkpoints").symlink_to(workdir / "checkpoints")
    with pytest.raises(WorkdirError, match="report cannot be written: File exists"):
        modes.evaluate_run(experiment, tmp_path)
    with pytest.raises(WorkdirError, match="cannot be written: Not a directory"):
        modes.train(experiment, tmp_path / "report" / "run")

    def fail(encoded):
        raise OSError(5, "Input/output error", "a network disk")

    monkeypatch.setattr(pipeline, "decode", fail)
    with pytest.raises(DataError, match="Input/output error: 'a network disk'. The"):
        modes.evaluate_run(experiment, workdir)


def test_encoding_and_searching(run):
    workdir, _ = run
    experiment = build.experiment(tiny_config())
    path = modes.encode_collection(experiment, workdir)
    with np.load(path) as encoded, np.load(workdir / "codes.npz") as saved:
        assert encoded["codes"].shape == (260, 1) and int(encoded["num_bits"]) == 16
        position = {name: i for i, name in enumerate(encoded["ids"])}
        rows = [position[name] for name in saved["query_ids"]]
        np.testing.assert_array_equal(encoded["codes"][rows], saved["query"])

    pairs = experiment.collection
    (workdir / "query.jpg").write_bytes(pairs.images[7])
    words = " ".join(np.array(pairs.vocabulary)[pairs.text[7] > 0])
    found = modes.search_run(
        experiment, workdir, image=workdir / "query.jpg", words=words, k=5
    )
    assert [row["rank"] for row in found] == [1, 2, 3, 4, 5]
    assert found[0]["distance"] == 0  # the pair itself is there
    distances = [row["distance"] for row in found]
    assert distances == sorted(distances)
    Image.open(workdir / "search.png").verify()


def test_search_refuses_nothing_and_what_is_no_image(run):
    workdir, _ = run
    experiment = build.experiment(tiny_config())
    with pytest.raises(ValueError, match="--image, a text with --text"):
        modes.search_run(experiment, workdir)
    (workdir / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(ValueError, match="broken.jpg cannot be read as an image"):
        modes.search_run(experiment, workdir, image=workdir / "broken.jpg")


def test_codes_made_elsewhere(run, tmp_path):
    workdir, results = run
    results_again = modes.evaluate_codes_file(workdir / "codes.npz", tmp_path)
    assert results_again["map_expected"] == results["map_expected"]
    assert (tmp_path / "report" / "index.html").exists()


def test_a_cell_of_a_comparison_is_an_ordinary_run(tmp_path, capsys):
    config = tiny_config()
    cell = compare.Cell("text", 16, 0)
    finished = compare.run_cells(config, [cell], tmp_path)[cell]
    assert (tmp_path / "text-16-0" / "report" / "index.html").exists()
    assert finished.seconds > 0 and finished.result["num_queries"] == 30
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[1/1] text, 16 bits, seed 0: starts"
    assert any("seed 0: epoch 2/2 loss" in line for line in lines)
    score = finished.result["map_expected"]
    assert lines[-1].startswith(f"[1/1] text, 16 bits, seed 0: MAP {score:.4f} in ")
    again = modes.evaluate_run(
        build.experiment(compare.cell_config(config, cell)), tmp_path / "text-16-0"
    )
    assert again["map_expected"] == score


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.method": "modal_awere"}, "Did you mean 'modal_aware'"),
        ({"loss.name": "triplets"}, "Unknown loss 'triplets'"),
        ({"data.source": "shape"}, "Did you mean 'shapes'"),
        ({"backbone.weights": "no.safetensors"}, "no.safetensors were not found"),
        ({"training.cached_maps": True}, "frozen_blocks=7 or more, got 0"),
        ({"data.num_train": 900}, r"the collection has 260 pairs"),
    ],
)
def test_mistakes_in_a_config_say_what_to_do(change, message):
    config = tiny_config()
    with config.unlocked():
        config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        build.experiment(config)


def test_frozen_blocks_are_not_trained():
    config = tiny_config()
    with config.unlocked():
        config.backbone.frozen_blocks = 3
    is_trained = build.experiment(config).is_trained
    assert not is_trained(("backbone", "stem", "conv", "kernel"))
    assert not is_trained(("backbone", "stages", 0, 1, "first", "conv", "kernel"))
    assert is_trained(("backbone", "stages", 1, 0, "first", "conv", "kernel"))
    assert is_trained(("head", "dense", "kernel"))
