"""Comparisons: cells on disk, tables by hand, and what happens when a cell fails."""

import csv
import json
import pathlib
import runpy
import time
import types

import numpy as np
import pytest
from PIL import Image

from modal_aware_jax import build, compare
from modal_aware_jax.compare import __main__ as command
from modal_aware_jax.compare import run as running
from modal_aware_jax.compare.cells import Cell, Finished
from modal_aware_jax.compare.summary import summarise
from modal_aware_jax.compare.tables import grid_markdown, latex, long_markdown
from modal_aware_jax.compare.view import CellsView
from modal_aware_jax.report.health import COLUMNS
from modal_aware_jax.report.published import published, table
from modal_aware_jax.retrieval.evaluate import mean_evaluation
from modal_aware_jax.tasks.hashing import HASHING
from modal_aware_jax.training.errors import (
    Interrupted,
    NonFiniteLoss,
    RunError,
    WorkdirInUse,
)
from modal_aware_jax.training.progress import ProgressBar

FLICKR = {"source": "flickr25k"}
SHAPES = pathlib.Path(__file__).parent.parent / "configs" / "shapes.py"


@pytest.fixture
def config():
    return runpy.run_path(str(SHAPES))["get_config"]()


def result(*scores, radius_recall=(0.0, 0.5, 1.0)):
    """What `evaluate` returns for as many queries, made up."""
    return {
        "average_precision": np.array(scores, float),
        "map_expected": float(np.mean(scores)),
        "map_index": float(np.mean(scores)) - 0.01,
        "precision_at": {1: scores[0], 10: 0.5},
        "recall_at": {1: 0.1, 10: 0.2},
        "ndcg_at": {1: 0.3, 10: 0.4},
        "radius_precision": np.array([0.0, 0.8, 0.5]),
        "radius_recall": np.array(radius_recall),
        "num_queries": len(scores),
        "num_database": 40,
        "num_bits": 2,
        "queries_without_relevant": 0,
    }


@pytest.fixture
def finished():
    """Two methods, two seeds at 64 bits and one at 16; by hand."""
    return {
        Cell("modal_aware", 64, 0): Finished(result(0.8, 0.6), 100.0),
        Cell("modal_aware", 64, 1): Finished(result(0.6, 0.6), 300.0),
        Cell("gmu", 64, 0): Finished(result(0.5, 0.5), 80.0),
        Cell("gmu", 64, 1): Finished(result(0.5, 0.3), None),
        Cell("modal_aware", 16, 0): Finished(result(0.25, 0.75)),
    }


def test_a_method_brings_its_loss_unless_one_is_named_for_all(config):
    own = compare.cell_config(config, Cell("csq", 48, 2))
    assert own.model.method == "csq" and own.loss.name == "csq"
    assert own.model.num_bits == 48 and own.seed == 2
    assert config.model.method == "modal_aware"  # a copy was changed
    config.loss.name = "dsh"
    for method in ("csq", "modal_aware"):
        assert compare.cell_config(config, Cell(method, 48, 2)).loss.name == "dsh"


def test_the_hash_of_a_config_knows_its_own_loss_only(config):
    before = compare.fingerprint(config)
    config.loss.options.csq.quantization_weight = 1.0
    assert compare.fingerprint(config) == before
    config.loss.options.expected_ap.weight = 3.0
    assert compare.fingerprint(config) != before


def test_the_hash_of_a_config_does_not_ask_where_or_how(config):
    config.data.dir, config.backbone.weights = "here/photos", "weights.safetensors"
    before = compare.fingerprint(config)
    config.data.dir = "/elsewhere/photos"
    config.backbone.weights = "/elsewhere/weights.safetensors"
    config.training.workers, config.training.checkpoint_steps = 3, 7
    config.training.validation_search = "database"  # the last checkpoint is scored
    assert compare.fingerprint(config) == before
    config.data.dir = "/elsewhere/paintings"
    assert compare.fingerprint(config) != before


def test_a_cell_comes_back_as_it_was_written(config, tmp_path):
    assert compare.read_cell(tmp_path, config) is None
    record = compare.record_of(config, Finished(result(0.8, 0.6), 12.5))
    compare.write_cell(tmp_path, record)
    again = compare.read_cell(tmp_path, config)
    assert again.seconds == 12.5 and again.made["python"]
    for key, value in result(0.8, 0.6).items():
        np.testing.assert_array_equal(again.result[key], value)
    with config.unlocked():
        config.training.num_epochs += 1
    with pytest.raises(ValueError, match="holds a finished cell of another config"):
        compare.read_cell(tmp_path, config)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace("fingerprint", "fingerprnt"),
        lambda text: text.replace("radius_recall", "radius_rcall"),
        lambda text: text.replace('"map_index": ', '"map_index": [], "x": '),
    ],
)
def test_a_damaged_cell_is_named_with_a_cure(config, tmp_path, damage):
    compare.write_cell(tmp_path, compare.record_of(config, Finished(result(0.8, 0.6))))
    path = tmp_path / "cell.json"
    text = path.read_text()
    assert damage(text) != text
    path.write_text(damage(text))
    with pytest.raises(ValueError, match="cell.json is damaged .*Delete this file"):
        compare.read_cell(tmp_path, config)


def fake_training(monkeypatch, outcome):
    """Cells that end as `outcome(directory)` says, without a network."""
    monkeypatch.setattr(running.build, "collection", lambda data: None)
    monkeypatch.setattr(
        running.build, "experiment", lambda config, pairs: config.model.method
    )
    for maps in ("lower_maps", "degraded_maps"):
        monkeypatch.setattr(running, maps, lambda experiment: None)

    def train(experiment, directory):
        directory.mkdir(parents=True, exist_ok=True)
        return outcome(directory)

    monkeypatch.setattr(running.modes, "train", train)


def test_finished_cells_are_not_run_again(config, tmp_path, monkeypatch):
    ran = []

    def outcome(directory):
        ran.append(directory.name)
        return result(0.8, 0.6)

    fake_training(monkeypatch, outcome)
    compare.run_cells(config, [("gmu", 16, 0), ("text", 16, 0)], tmp_path)
    done = compare.run_cells(config, [("text", 16, 0), ("text", 16, 1)], tmp_path)
    assert ran == ["gmu-16-0", "text-16-0", "text-16-1"]
    assert list(done) == [Cell("text", 16, 0), Cell("text", 16, 1)]
    found, left_out = compare.find_cells(config, tmp_path)
    assert len(found) == 3 and not left_out  # both calls' cells


def test_an_unknown_method_is_told_before_anything_runs(config, tmp_path, monkeypatch):
    fake_training(monkeypatch, lambda directory: pytest.fail("ran"))
    with pytest.raises(ValueError, match="Unknown method 'gmuu'. Did you mean 'gmu'"):
        compare.run_cells(config, [("gmu", 16, 0), ("gmuu", 16, 0)], tmp_path)


def test_a_diverging_cell_does_not_stop_the_others(
    config, tmp_path, monkeypatch, capsys
):
    def outcome(directory):
        if directory.name == "gmu-16-0":
            raise NonFiniteLoss("Step 7: loss is nan.")
        return result(0.8, 0.6)

    fake_training(monkeypatch, outcome)
    with pytest.raises(
        RunError, match=r"1 of 2 cells failed.*gmu, 16 .*Step 7"
    ) as left:
        compare.run_cells(config, [("gmu", 16, 0), ("text", 16, 0)], tmp_path)
    assert left.value.exit_code == NonFiniteLoss.exit_code
    assert list(compare.find_cells(config, tmp_path)[0]) == [Cell("text", 16, 0)]
    assert "[1/2] gmu, 16 bits, seed 0: failed: Step 7" in capsys.readouterr().out


def test_two_processes_share_the_cells(config, tmp_path, monkeypatch, capsys):
    """Another one has begun the first cell, and finishes the second meanwhile."""
    ran = []

    def outcome(directory):
        if directory.name == "gmu-16-0":
            other = Cell("text", 16, 0)
            made = compare.cell_config(config, other)
            record = compare.record_of(made, Finished(result(0.9, 0.7)))
            compare.write_cell(tmp_path / other.folder, record)
            raise WorkdirInUse("gmu-16-0 is in use by process 7.")
        ran.append(directory.name)
        return result(0.8, 0.6)

    fake_training(monkeypatch, outcome)
    cells = [("gmu", 16, 0), ("text", 16, 0), ("text", 16, 1)]
    done = compare.run_cells(config, cells, tmp_path)
    assert ran == ["text-16-1"]
    assert done[Cell("gmu", 16, 0)] is None
    assert done[Cell("text", 16, 0)].result["map_expected"] == pytest.approx(0.8)
    assert "gmu, 16 bits, seed 0: another process runs it" in capsys.readouterr().out


def test_a_cell_that_another_process_ends_while_this_one_prepares_is_taken(
    config, tmp_path, monkeypatch
):
    cell = Cell("text", 16, 0)
    made = compare.cell_config(config, cell)

    def end_elsewhere(experiment):
        record = compare.record_of(made, Finished(result(0.9, 0.7), 123.0))
        compare.write_cell(tmp_path / cell.folder, record)

    fake_training(monkeypatch, pytest.fail)
    monkeypatch.setattr(running, "lower_maps", end_elsewhere)
    assert compare.run_cells(config, [cell], tmp_path)[cell].seconds == 123


def test_an_interrupted_cell_keeps_its_time(config, tmp_path, monkeypatch):
    stops = [True, False]

    def outcome(directory):
        time.sleep(0.2)
        if stops.pop(0):
            raise Interrupted("Stopped by SIGTERM.")
        return result(0.8, 0.6)

    fake_training(monkeypatch, outcome)
    with pytest.raises(Interrupted):
        compare.run_cells(config, [("text", 16, 0)], tmp_path)
    done = compare.run_cells(config, [("text", 16, 0)], tmp_path)
    assert done[Cell("text", 16, 0)].seconds >= 0.4


def test_cells_of_another_config_are_left_out_and_named(config, tmp_path):
    for cell, change in ((Cell("gmu", 8, 0), 0), (Cell("text", 8, 0), 5)):
        directory = tmp_path / cell.folder
        directory.mkdir()
        other = config.copy_and_resolve_references()
        other.training.num_epochs += change
        made = compare.cell_config(other, cell)
        compare.write_cell(
            directory, compare.record_of(made, Finished(result(0.8, 0.6)))
        )
    found, left_out = compare.find_cells(config, tmp_path)
    assert list(found) == [Cell("gmu", 8, 0)]
    assert len(left_out) == 1 and "text-8-0 holds a finished cell of" in left_out[0]


def test_the_summary_by_hand(finished):
    rows = summarise(finished, ["modal_aware", "gmu"], HASHING, data=FLICKR)
    assert [(row["bits"], row["method"]) for row in rows] == [
        *((16, "modal_aware"), (64, "modal_aware"), (64, "gmu"))
    ]
    short, ours, theirs = rows
    assert short["map"] == 0.5 and short["map_sd"] is None and short["seeds"] == 1
    assert short["seconds"] is None and short["lead"] is None
    assert ours["map"] == pytest.approx(0.65) and ours["lead"] is None
    assert ours["map_sd"] == pytest.approx(0.05 * 2**0.5)
    assert ours["seconds"] == 200.0 and theirs["seconds"] == 80.0
    # Per query over the seeds: ours .7 and .6, theirs .5 and .4.
    leads = [theirs[key] for key in ("lead", "lead_low", "lead_high")]
    np.testing.assert_allclose(leads, 0.2)
    assert theirs["published"] == 0.8552 and short["published"] == 0.8564


def test_the_lead_is_over_the_seeds_of_both(finished):
    del finished[Cell("gmu", 64, 1)]
    row = summarise(finished, ["modal_aware", "gmu"], HASHING)[-1]
    assert row["lead"] == pytest.approx(0.2) and row["lead_seeds"] == 1  # .3 and .1
    assert row["lead_low"] == pytest.approx(0.1)
    assert row["lead_high"] == pytest.approx(0.3)
    finished[Cell("gmu", 64, 5)] = finished.pop(Cell("gmu", 64, 0))
    assert summarise(finished, ["modal_aware", "gmu"], HASHING)[-1]["lead"] is None


def test_curves_are_means_over_seeds():
    cells = {
        0: Finished(result(0.2, 0.4, radius_recall=(0.0, 0.2, 1.0))),
        1: Finished(result(0.6, 0.4, radius_recall=(0.1, 0.4, 1.0))),
    }
    for one, constant in zip(cells.values(), (0, 1), strict=True):
        health = {"items": 1000, "distinct": 900, "constant_bits": constant}
        one.result["health"] = health
    mean = mean_evaluation([one.result for one in cells.values()])
    assert mean["health"] == {"items": 1000, "distinct": 900, "constant_bits": 0.5}
    shown = [COLUMNS[name](mean) for name in ("items", "constant bits")]
    assert shown == ["1,000", "0.5"]
    assert mean["map_expected"] == pytest.approx(0.4)
    assert mean["precision_at"] == {1: pytest.approx(0.4), 10: 0.5}
    np.testing.assert_allclose(mean["radius_recall"], [0.0, 0.3, 1.0])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("flickr25k", "dpsh", 16), 0.8262),
        (("flickr25k", "modal_aware", 64), 0.8723),
        (("flickr25k", "modal_aware_paper", 64), 0.8723),
        (("nus_wide", "hashnet", 48), 0.7286),
        (("nus_wide", "dth", 64), 0.7362),
        (("iapr_tc12", "text_hash", 16), 0.5238),
        (("iapr_tc12", "modal_aware", 48, "sentence"), 0.6336),
        (("iapr_tc12", "no_attention", 32), 0.6073),
        (("iapr_tc12", "csq", 64), None),
        (("flickr25k", "modal_aware", 64, "sentence"), None),
        (("flickr25k", "modal_aware", 64, "words"), 0.8723),
    ],
)
def test_published_numbers(place, value):
    assert published(*place) == value


def test_every_published_number_belongs_to_a_method():
    assert len(table()) == 11 * 12 + 4
    assert {method for _, method, _, _ in table()} <= set(build.METHODS)
    for source in ("flickr25k", "nus_wide", "iapr_tc12"):
        for bits in (16, 32, 48, 64):  # the paper's order
            column = {
                key[1]: value
                for key, value in table().items()
                if (key[0], key[2], key[3]) == (source, "bag", bits)
            }
            assert max(column, key=column.get) == "modal_aware"


def test_the_tables_by_hand(finished):
    rows = summarise(finished, ["modal_aware", "gmu"], HASHING, data=FLICKR)
    assert grid_markdown(rows, "map") == (
        "| method | 16 bits | 64 bits |\n"
        "| --- | --- | --- |\n"
        "| modal-aware | **0.5000** | **0.6500 ± 0.0707** |\n"
        "| GMU | – | 0.4500 ± 0.0707 |\n"
    )
    lines = long_markdown(rows, "modal-aware", HASHING.comparison).splitlines()
    assert lines[2] == "| modal-aware | 16 | 0.5000 | 1 |  | 0.8564 |  |"
    assert lines[4] == (
        "| GMU | 64 | 0.4500 ± 0.0707 | 2 | +0.2000 (+0.2000 to +0.2000) | 0.8552 |"
        " 80 |"
    )


def test_latex_by_hand(finished):
    rows = summarise(finished, ["modal_aware", "gmu"], HASHING, data=FLICKR)
    assert latex(
        rows, HASHING.comparison, caption="50 % & more", label="tab:map"
    ).splitlines() == [
        r"\begin{table}",
        r"  \centering",
        r"  \caption{50 \% \& more}",
        r"  \label{tab:map}",
        r"  \begin{tabular}{lrrrr}",
        r"    \toprule",
        r"     & \multicolumn{2}{c}{measured} & \multicolumn{2}{c}{published} \\",
        r"    \cmidrule(lr){2-3} \cmidrule(lr){4-5}",
        r"    method & 16 bits & 64 bits & 16 bits & 64 bits \\",
        r"    \midrule",
        r"    modal-aware & \textbf{0.5000} & \textbf{0.6500} "
        r"{\scriptsize$\pm$ 0.0707} & 0.8564 & 0.8723 \\",
        r"    GMU & -- & 0.4500 {\scriptsize$\pm$ 0.0707} & -- & 0.8552 \\",
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    alone = latex(
        summarise(finished, ["gmu"], HASHING),
        HASHING.comparison,
        caption="",
        label="tab:a",
    )
    assert "published" not in alone and r"\begin{tabular}{lr}" in alone


@pytest.fixture
def workdir(config, finished, tmp_path):
    finished[Cell("no_kernel", 64, 0)] = Finished(result(0.4, 0.4))
    for cell, one in finished.items():
        record = compare.record_of(compare.cell_config(config, cell), one)
        compare.write_cell(tmp_path / cell.folder, record)
    return tmp_path


def flags(given, directory, **changes):
    values = {
        "config": given,
        "workdir": str(directory),
        "methods": ["gmu", "modal_aware"],
        "bits": ["64"],
        "seeds": ["0"],
        "records": None,
        "report_only": True,
    }
    return types.SimpleNamespace(**values | changes)


def test_the_report_covers_every_finished_cell(config, workdir, capsys):
    command.run(flags(config, workdir))
    report = workdir / "report"
    with open(report / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["bits"]) for row in rows] == [
        ("modal_aware", "16"),
        *(("gmu", "64"), ("modal_aware", "64"), ("no_kernel", "64")),
    ]
    assert float(rows[2]["lead"]) == pytest.approx(-0.2)  # the first method is ours
    record = json.loads((report / "comparison.json").read_text())
    assert [row["map"] for row in record["rows"]] == [float(row["map"]) for row in rows]
    assert record["provenance"]["cells"]["modal_aware-64-1"]["seconds"] == 300.0
    assert r"\toprule" in (report / "comparison.tex").read_text()
    assert "w/o kernel network" in (report / "ablation.md").read_text()
    assert "GMU" not in (report / "ablation.tex").read_text()
    for bits in (16, 64):
        for name in ("precision_recall", "precision_at"):
            Image.open(report / f"{name}_{bits}.png").verify()
    assert "GMU, 64 bits" in (report / "index.html").read_text()
    assert "| GMU | 64 |" in capsys.readouterr().out


def test_the_report_says_what_it_leaves_out(config, workdir, capsys):
    (workdir / "gmu-64-0" / "cell.json").write_text("{")
    command.run(flags(config, workdir))
    told = [x for x in capsys.readouterr().out.splitlines() if x.startswith("Left out")]
    assert len(told) == 1 and "cell.json is damaged" in told[0]
    assert "cell.json is damaged" in (workdir / "report" / "comparison.md").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": ["16", "x"]}, r"--bits takes whole numbers from 1.*got 'x'"),
        ({"bits": ["0"]}, r"--bits takes whole numbers from 1.*got '0'"),
        ({"seeds": [""]}, r"--seeds takes whole numbers from 0, such as --seeds=0,1,2"),
        ({"config": None}, "--config=configs/shapes.py"),
        ({"workdir": "nowhere"}, "nowhere holds no finished cell of this config"),
    ],
)
def test_mistakes_on_the_command_line(config, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        command.run(flags(config, tmp_path, **changes))


def test_both_commands_live_in_one_process():
    from absl.flags import FLAGS

    from modal_aware_jax import main

    assert main.run is not command.run
    assert {"config", "workdir", "mode", "methods"} <= set(FLAGS)


def test_the_view_without_a_terminal(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("modal_aware_jax.compare.view.time.monotonic", lambda: now[0])
    with CellsView(4, 1, [None], HASHING.comparison.headline) as view:
        view.start(Cell("gmu", 64, 0))
        with ProgressBar(9, label="frozen maps") as bar:
            now[0] = 7200.0  # once for all cells
            bar.update(9)
        with ProgressBar(10, done=2, label="train") as bar:
            bar.update(2, "compiling")
            now[0] += 600.0
            bar.update(6, "loss 0.5")
            bar.print("epoch 1/2 loss 0.5000")  # 10 minutes were 0.4 of a cell
            bar.update(10, "loss 0.4")
        view.finish(Finished({"map_expected": 0.75}, 1200.0))
        view.start(Cell("gmu", 64, 1))
        view.fail(ValueError("nan"))
    assert capsys.readouterr().out.splitlines() == [
        "[2/4] gmu, 64 bits, seed 0: starts",
        "[2/4] gmu, 64 bits, seed 0: epoch 1/2 loss 0.5000 (1:00 h left)",
        "[2/4] gmu, 64 bits, seed 0: MAP 0.7500 in 1200 s (0:40 h left)",
        "[3/4] gmu, 64 bits, seed 1: starts (0:40 h left)",
        "[3/4] gmu, 64 bits, seed 1: failed: nan",
    ]
    with ProgressBar(1, label="train") as bar:  # outside, a bar is a bar again
        bar.update(1)
    assert capsys.readouterr().out == "train 1/1 \n"


def test_the_view_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with CellsView(2, 0, (), HASHING.comparison.headline) as view:
        view.start(Cell("gmu", 64, 0))
        with ProgressBar(10, label="train") as bar:
            bar.update(5, "loss 0.5")
            bar.print("epoch 1/2 validation_map 0.7")
            bar.update(10, "loss 0.4")
        view.finish(Finished({"map_expected": 0.75}, 1200.0))
    printed = capsys.readouterr().out
    for text in ("cells", "gmu, 64 bits, seed 0: train", "MAP 0.7500", "map 0.7"):
        assert text in printed, text
