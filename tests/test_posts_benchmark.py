"""The benchmark of the posts: its folds, its choice, its tables, by hand."""

import json
import pathlib
import sys

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def posts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import posts

    yield posts
    for name in ("posts", "posts_report"):
        sys.modules.pop(name, None)


def test_folds_share_the_classes(posts):
    classes = np.repeat([0, 1, 2], [50, 20, 10])
    positions = np.arange(80)
    folds = posts.folds_of(classes, positions)
    np.testing.assert_array_equal(np.sort(np.concatenate(folds)), positions)
    for fold in folds:
        assert np.bincount(classes[fold]).tolist() == [10, 4, 2]
    again = posts.folds_of(classes, positions)
    assert all((a == b).all() for a, b in zip(folds, again, strict=True))


def test_the_trial_of_the_lowest_cross_entropy_is_chosen(posts):
    classes, fold = np.array([0, 1, 0]), np.array([0, 1])
    sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.0, 1.0]])  # right once, wrong once
    even = np.array([[0.6, 0.4], [0.4, 0.6], [0.0, 1.0]])
    assert posts.chosen([sure, even], fold, classes) == 1


def test_tables_by_hand(posts, tmp_path, monkeypatch, capsys):
    import posts_report

    monkeypatch.setattr(posts_report, "HERE", tmp_path)
    (tmp_path / "results").mkdir()
    classes = np.array([0, 1, 0, 1, 0, 1])
    data = {"labels": np.eye(2)[classes], "test": np.array([4, 5])}
    folds = [np.array([0, 1]), np.array([2, 3])]
    made = json.dumps({"commit": "abc"})

    def keep(method, name, said):
        folder = tmp_path / method
        folder.mkdir(exist_ok=True)
        found = np.eye(2)[said]
        np.savez(folder / f"{name}.npz", probabilities=found, seconds=2.0, made=made)

    for method, first, second in (
        ("sgmft", [0, 1, 1, 1, 0, 1], [0, 0, 0, 1, 0, 0]),
        ("concat", [0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0]),
    ):
        keep(method, "trial1", first)
        keep(method, "trial1-fold1", second)
        keep(method, "trial1-seed0", first)
        keep(method, "trial1-seed1", second)
    keep("text", "trial0", [0] * 6)  # not finished: left out
    methods = ["sgmft", "concat", "text", "image"]
    posts_report.write(tmp_path, data, methods, posts.TRIALS, folds)
    lines = (tmp_path / "results" / "posts.md").read_text().splitlines()
    # Held aside: sgmft right about all four, concat about 0 and 3.
    assert lines[2].startswith("| SG-MFT | 1.0000 | 1.0000 |  |  | 0.7500 ± 0.3536 | 2")
    assert lines[3].startswith("| Concat | 0.5000 |") and "+0.5000 (" in lines[3]
    assert "| 0.5000 | 0.5000 ± 0.0000 | 2 | 2 |" in lines[3]  # p of 2 against 0
    assert len(lines) == 6 and "Commits abc" in lines[5]
    kept = json.loads((tmp_path / "results" / "posts.json").read_text())
    assert kept["methods"]["concat"]["setting"]["blocks"] == 0.1
