"""The database's trained and unseen parts: scored by loops, kept, carried and shown."""

import json

import numpy as np
import pytest
from test_compare import config, result  # noqa: F401  fixtures

from modal_aware_jax import compare
from modal_aware_jax.compare.cells import Cell, Finished
from modal_aware_jax.compare.summary import summarise
from modal_aware_jax.compare.tables import grid_markdown, latex, long_markdown
from modal_aware_jax.hashing.codes import pack
from modal_aware_jax.report import format_results
from modal_aware_jax.report import robustness as falls
from modal_aware_jax.report.page import render_table
from modal_aware_jax.retrieval.evaluate import evaluate_parts, mean_evaluation
from modal_aware_jax.tasks.hashing import HASHING


def brute_force(query, database, query_labels, database_labels):
    """MAP under 'index' by loops over ±1 codes."""
    scores = []
    for code, own in zip(query, query_labels, strict=True):
        distance = [(code != other).sum() for other in database]
        ranked = sorted(range(len(database)), key=lambda i: (distance[i], i))
        hits = [bool((own & database_labels[i]).any()) for i in ranked]
        precision = [sum(hits[: n + 1]) / (n + 1) for n, hit in enumerate(hits) if hit]
        scores.append(np.mean(precision) if precision else 0.0)
    return np.mean(scores)


def test_each_part_is_a_database_of_its_own():
    random = np.random.RandomState(0)
    codes = random.choice([-1, 1], (60, 12))
    labels = (random.rand(60, 4) < 0.3).astype(np.uint8)
    trained = random.rand(50) < 0.6
    packed = np.asarray(pack(codes))
    found = evaluate_parts(
        packed[50:],
        packed[:50],
        labels[50:],
        labels[:50],
        num_bits=12,
        trained=trained,
    )
    for part, rows in (("seen", trained), ("unseen", ~trained), (None, slice(None))):
        own = found[part] if part else found
        expected = brute_force(
            codes[50:], codes[:50][rows], labels[50:], labels[:50][rows]
        )
        assert own["map_index"] == pytest.approx(expected, abs=1e-9)
        assert own["num_database"] == len(codes[:50][rows])
    whole = evaluate_parts(
        packed[50:],
        packed[:50],
        labels[50:],
        labels[:50],
        num_bits=12,
        trained=np.ones(50),
    )
    assert "unseen" not in whole and whole["seen"]["map_index"] == whole["map_index"]
    with pytest.raises(ValueError, match=r"each of the 50 items.*got shape \(49,\)"):
        evaluate_parts(
            packed[50:], packed[:50], labels[50:], labels[:50], num_bits=12,
            trained=trained[:49],
        )  # fmt: skip


@pytest.fixture
def finished():
    """Ours remembers, theirs generalises; one cell was scored without parts."""

    def cell(whole, seen, unseen):
        parts = {"seen": result(*seen), "unseen": result(*unseen)}
        return Finished(result(*whole) | parts, 10.0)

    return {
        Cell("modal_aware", 64, 0): cell((0.8, 0.6), (0.9, 0.7), (0.5, 0.3)),
        Cell("modal_aware", 64, 1): cell((0.8, 0.6), (0.9, 0.7), (0.6, 0.4)),
        Cell("gmu", 64, 0): cell((0.5, 0.3), (0.6, 0.4), (0.7, 0.5)),
        Cell("gmu", 64, 1): Finished(result(0.5, 0.3), 10.0),
    }


def test_the_lead_on_unseen_pairs_by_hand(finished):
    ours, theirs = summarise(finished, ["modal_aware", "gmu"], HASHING)
    assert ours["map_seen"] == pytest.approx(0.8)
    assert ours["map_unseen"] == pytest.approx(0.45)
    assert ours["map_unseen_sd"] == pytest.approx(0.05 * 2**0.5)
    assert (
        theirs["map_unseen"] == pytest.approx(0.6) and theirs["map_unseen_sd"] is None
    )
    assert theirs["lead"] == pytest.approx(0.3) and theirs["lead_seeds"] == 2
    assert theirs["unseen_lead"] == pytest.approx(-0.2)
    assert theirs["unseen_lead_seeds"] == 1


def test_the_tables_have_both(finished):
    rows = summarise(finished, ["modal_aware", "gmu"], HASHING)
    assert "| GMU | **0.6000** |" in grid_markdown(rows, "map_unseen")
    assert "| GMU | 0.4000 ± 0.0000 |" in grid_markdown(rows, "map")
    line = long_markdown(rows, "modal-aware", HASHING.comparison).splitlines()[-1]
    assert "| 0.5000 | 0.6000 | -0.2000 (-0.2000 to -0.2000) |" in line
    text = latex(rows, HASHING.comparison, caption="", label="tab:a")
    assert r"\multicolumn{1}{c}{measured, unseen pairs}" in text
    assert r"GMU & 0.4000 {\scriptsize$\pm$ 0.0000} & \textbf{0.6000} \\" in text


def test_curves_of_unseen_pairs_are_means_over_the_cells_that_have_them(finished):
    cells = {cell.seed: one for cell, one in finished.items() if cell.method != "gmu"}
    assert mean_evaluation([one.result for one in cells.values()])["unseen"][
        "map_expected"
    ] == pytest.approx(0.45)
    cells[2] = finished[Cell("gmu", 64, 1)]
    assert "unseen" not in mean_evaluation([one.result for one in cells.values()])


def test_parts_are_kept_and_carried(tmp_path, config, finished):  # noqa: F811
    compare.write_comparison(tmp_path / "here", finished, config)
    assert (tmp_path / "here" / "precision_recall_unseen_64.png").is_file()
    assert (
        compare.unpack_records(tmp_path / "here" / "cells.npz", tmp_path, config) == 4
    )
    found, left_out = compare.find_cells(config, tmp_path)
    assert not left_out
    unseen = found[Cell("gmu", 64, 0)].result["unseen"]
    np.testing.assert_allclose(unseen["average_precision"], [0.7, 0.5], rtol=1e-6)
    assert unseen["precision_at"] == {1: 0.7, 10: 0.5}
    assert "unseen" not in found[Cell("gmu", 64, 1)].result
    with np.load(tmp_path / "here" / "cells.npz") as stored:
        methods = [row["method"] for row in json.loads(str(stored["cells"]))]
        scores = stored["average_precision_unseen"]
    np.testing.assert_allclose(scores[methods.index("gmu")], [0.7, 0.5], rtol=1e-6)
    assert np.isnan(scores[methods.index("gmu") + 1]).all()


def test_a_single_run_shows_its_parts(finished):
    one = finished[Cell("modal_aware", 64, 0)].result
    lines = format_results({"modal_aware": one}).splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "modal_aware",
        "modal_aware, trained pairs",
        "modal_aware, unseen pairs",
    ]
    assert "0.7000" in lines[2] and "0.8000" in lines[3] and "0.4000" in lines[4]


def test_robustness_on_unseen_pairs(tmp_path):
    def row(level, score, unseen):
        own = dict(method="ours", seed=0, image="noise" * bool(level), text="")
        return own | {"level": level, "map": score, "map_unseen": unseen}

    text = falls.write_robustness(
        tmp_path,
        [row(0, 0.8, 0.5), row(1, 0.76, 0.4)],
        method="ours",
        doses={"noise": ("grey levels", (10, 20, 40))},
        note="",
    )
    assert "| ours | 0.8000 | 5.00 | 5.00 | – |" in text
    assert "| ours | 0.5000 | 20.00 | 20.00 | – |" in text
    assert "| one of them | mild | < 4 % | 20.00 % | no |" in text
    lines = (tmp_path / "robustness.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["database", "whole", "unseen"]


def test_the_page_compares_methods_within_a_part(finished):
    ours, theirs = (finished[Cell(m, 64, 0)].result for m in ("modal_aware", "gmu"))
    lines = render_table({"a": ours, "b": theirs}).splitlines()[1:]
    marked = [
        'class="best" data-name="MAP">' in line for line in lines if "MAP" in line
    ]
    assert marked == [True, True, False, False, False, True]  # a has the first two
    assert 'class="best"' not in render_table({"a": ours})
