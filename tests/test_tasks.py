"""A task is one file and one row: a toy one runs through everything that is shared."""

import csv
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from test_end_to_end import tiny_config

from modal_aware_jax import build, compare, modes
from modal_aware_jax.experiment import tasks
from modal_aware_jax.experiment.losses import Loss
from modal_aware_jax.experiment.methods import METHODS
from modal_aware_jax.tasks.joint_vector import head_loss, head_output
from modal_aware_jax.tasks.task import Comparison, Lead, Mean, Outcome, Task


def _square(setting, *, weight):
    def loss(outputs, batch, memory):
        wanted = batch["labels"].sum(axis=1, keepdims=True)
        return weight * jnp.mean((outputs - wanted) ** 2)

    return loss


LOSSES = {"square": Loss(_square, {"weight": 1.0})}


def _closeness(experiment, positions, outputs):
    """One over one and the square of the error, of each pair."""
    wanted = experiment.collection.labels[positions].sum(axis=1)
    return 1 / (1 + (outputs[:, 0] - wanted) ** 2)


def _validate(experiment, outputs):
    each = _closeness(experiment, experiment.split.validation, outputs["pairs"])
    return {"closeness": each.mean()}


def _evaluate(experiment, outputs):
    each = _closeness(experiment, experiment.split.query, outputs["pairs"])
    result = {"closeness": float(each.mean()), "of_pair": each}
    return Outcome(result, {"counted": outputs["pairs"]}, [])


def _write(directory, results, **options):
    directory.mkdir(parents=True, exist_ok=True)
    numbers = {name: result["closeness"] for name, result in results.items()}
    (directory / "index.html").write_text(json.dumps(numbers))


COUNTING = Task(
    name="counting",
    methods={
        "text": METHODS["text"]._replace(title="words", loss="square"),
        "standard": METHODS["text"]._replace(title="words again", loss="square"),
    },
    refused={"image": "nothing can be counted in a picture."},
    losses=LOSSES,
    check=lambda config, pairs: None,
    num_outputs=lambda config, pairs: 1,
    loss=lambda *parts: head_loss(LOSSES, *parts),
    output=head_output,
    validation=lambda experiment: {"pairs": experiment.split.validation},
    validate=_validate,
    score="closeness",
    test=lambda experiment: {"pairs": experiment.split.query},
    evaluate=_evaluate,
    arrays_file="counted.npz",
    title=lambda experiment: "Counting",
    write_report=_write,
    text=str,
    comparison=Comparison(
        columns=(
            Mean("closeness", "closeness", lambda r: r["closeness"], "Close:", "close"),
            Lead("", "", lambda r: r["of_pair"]),
        ),
        items={"of_pair": ("of_pair",)},
        read=lambda stored: {**stored, "of_pair": np.asarray(stored["of_pair"])},
        mean=lambda results: results[0],
        draw=lambda directory, results, bits: [],
        write=_write,
    ),
)


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "counting", COUNTING)
    config = tiny_config("text")
    with config.unlocked():
        config.task, config.loss.name = "counting", "square"
        config.loss.options = {"square": {"weight": 2.0}}
    return config


def test_a_task_trains_resumes_and_keeps_its_arrays(config, tmp_path):
    experiment = build.experiment(config)
    result = modes.train(experiment, tmp_path / "run")
    history = json.loads((tmp_path / "run/report/history.json").read_text())["history"]
    scores = [row["validation_closeness"] for row in history]
    assert len(scores) == 2 and 0 < scores[0] < scores[1] < 1
    with np.load(tmp_path / "run" / "counted.npz") as kept:
        assert kept["counted"].shape == (30, 1)
    # From the checkpoint after the first epoch the second gives the same parameters.
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    steps = (tmp_path / "again" / "checkpoints").glob("[0-9]*")
    first, last = sorted(steps, key=lambda path: int(path.name))
    assert (first.name, last.name) == ("3", "6")
    shutil.rmtree(last)
    again = modes.train(build.experiment(config), tmp_path / "again")
    np.testing.assert_array_equal(again["of_pair"], result["of_pair"])
    evaluated = modes.evaluate_run(build.experiment(config), tmp_path / "again")
    np.testing.assert_array_equal(evaluated["of_pair"], result["of_pair"])


def test_its_runs_are_compared_item_by_item(config, tmp_path, capsys):
    cells = [("text", 0, 0), ("standard", 0, 0), ("standard", 0, 1)]
    finished = compare.run_cells(config, cells, tmp_path)
    assert "standard, seed 1: closeness 0." in capsys.readouterr().out
    table = compare.write_comparison(
        tmp_path / "report", finished, config, first=["standard", "text"]
    )
    head = "| method | closeness | seeds | words again minus it (95 % interval) |"
    assert table.splitlines()[0] == f"{head} s a cell |"
    with open(tmp_path / "report" / "comparison.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["title"] == "words again" and first["seeds"] == "2"
    assert second["title"] == "words" and float(second["lead"]) == 0  # the same network
    text = (tmp_path / "report" / "comparison.md").read_text()
    assert "| method | closeness |\n" in text and "bits" not in text
    there = tmp_path / "there"
    records = tmp_path / "report" / "cells.npz"
    assert compare.unpack_records(records, there, config) == 3
    found, left_out = compare.find_cells(config, there)
    assert not left_out and len(found) == 3


def test_what_a_task_cannot_do_is_refused(config):
    with config.unlocked():
        config.model.method = "image"
    with pytest.raises(
        ValueError, match="counting cannot use the method 'image': noth"
    ):
        build.experiment(config)
    config.task = "countng"
    with pytest.raises(ValueError, match="'countng'. Did you mean 'counting'"):
        build.experiment(config)


def test_hashing_is_the_task_of_configs_that_name_none():
    config = tiny_config()
    known = compare.fingerprint(config)
    with config.unlocked():
        del config.task
    assert build.task_of(config).name == "hashing"
    assert compare.fingerprint(config) == known  # of runs from before there were tasks
