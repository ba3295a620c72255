"""Finished cells carried from one folder to another in one file."""

import csv
import json

import numpy as np
import pytest
from test_compare import config, finished, result  # noqa: F401  fixtures

from modal_aware_jax import compare
from modal_aware_jax.compare.cells import Cell, Finished


def table(directory):
    with open(directory / "comparison.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_report_goes_on_elsewhere(tmp_path, config, finished):  # noqa: F811
    compare.write_comparison(tmp_path / "here", finished, config)
    there = tmp_path / "there"
    records = tmp_path / "here" / "cells.npz"
    assert compare.unpack_records(records, there, config) == len(finished)
    found, left_out = compare.find_cells(config, there)
    assert not left_out and found.keys() == finished.keys()
    found[Cell("concat", 64, 0)] = Finished(result(0.1, 0.1), 5.0)
    compare.write_comparison(there / "report", found, config)
    before, after = table(tmp_path / "here"), table(there / "report")
    assert len(after) == len(before) + 1
    (concat,) = (row for row in after if row["method"] == "concat")
    after.remove(concat)
    for old, new in zip(before, after, strict=True):
        for name in ("map", "map_sd", "lead", "lead_low", "seconds"):  # float32 scores
            values = [float(row[name] or "nan") for row in (old, new)]
            np.testing.assert_allclose(*values, atol=1e-6)


def test_the_scores_of_single_queries_are_plain_to_read(
    tmp_path,
    config,  # noqa: F811
    finished,  # noqa: F811
):
    compare.write_records(tmp_path / "cells.npz", finished, config)
    with np.load(tmp_path / "cells.npz") as stored:
        rows, scores = json.loads(str(stored["cells"])), stored["average_precision"]
    (row,) = (
        i
        for i, r in enumerate(rows)
        if (r["method"], r["bits"], r["seed"]) == ("gmu", 64, 1)
    )
    np.testing.assert_allclose(scores[row], [0.5, 0.3], rtol=1e-6)
    assert rows[row]["result"]["map_expected"] == pytest.approx(0.4)


def test_what_is_there_is_kept_and_another_config_is_refused(
    tmp_path,
    config,  # noqa: F811
    finished,  # noqa: F811
):
    compare.write_records(tmp_path / "cells.npz", finished, config)
    cell = Cell("gmu", 64, 1)
    own = compare.record_of(
        compare.cell_config(config, cell), Finished(result(0.9, 0.9), 1.0)
    )
    compare.write_cell(tmp_path / cell.folder, own)
    added = compare.unpack_records(tmp_path / "cells.npz", tmp_path, config)
    assert added == len(finished) - 1
    found, _ = compare.find_cells(config, tmp_path)
    assert found[cell].result["map_expected"] == pytest.approx(0.9)
    config.training.num_epochs += 1
    found, left_out = compare.find_cells(config, tmp_path)
    assert not found and len(left_out) == len(finished)
    message = rf"{len(finished)} of its {len(finished)} cells are of another config"
    with pytest.raises(ValueError, match=message):
        compare.unpack_records(tmp_path / "cells.npz", tmp_path / "new", config)
    assert not (tmp_path / "new").exists()  # where they would stand in the way


@pytest.mark.parametrize(
    "content", [None, b"", b"no archive", b"PK\x03\x04 torn"], ids=str
)
def test_a_file_of_another_kind_is_one_message(tmp_path, config, content):  # noqa: F811
    path = tmp_path / "cells.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cells.npz holds no finished cells .*--rec"):
        compare.unpack_records(path, tmp_path, config)
    np.savez(path, codes=np.zeros(3))
    with pytest.raises(ValueError, match="holds no finished cells"):
        compare.unpack_records(path, tmp_path, config)
