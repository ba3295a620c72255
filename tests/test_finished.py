"""Which finished cells robustness and figures take."""

import numpy as np
import pytest
from test_end_to_end import tiny_config

from modal_aware_jax.compare import (
    Cell,
    Finished,
    cell_config,
    record_of,
    write_cell,
)
from modal_aware_jax.compare.finished import chosen_cells


def finish(config, workdir, method, bits, seed):
    cell = Cell(method, bits, seed)
    result = {
        name: np.zeros(2)
        for name in ("average_precision", "radius_precision", "radius_recall")
    } | {"map_expected": 0.5, "map_index": 0.5, "precision_at": {1: 0.5}}
    record = record_of(cell_config(config, cell), Finished(result))
    write_cell(workdir / cell.folder, record)
    return cell


def test_cells_are_chosen_by_method_length_and_seed(tmp_path, capsys):
    config = tiny_config()
    with pytest.raises(ValueError, match="has no finished cell with this config"):
        chosen_cells(config, tmp_path)
    text = [finish(config, tmp_path, "text", 32, seed) for seed in (1, 0)]
    ours = finish(config, tmp_path, "modal_aware", 32, 0)
    short = [finish(config, tmp_path, "text", 16, seed) for seed in (0, 1)]
    # Most cells have 32 bits; the full model stands first, seeds in order.
    assert list(chosen_cells(config, tmp_path)) == [ours, *text[::-1]]
    assert list(chosen_cells(config, tmp_path, methods=["text"])) == [*text[::-1]]
    assert list(chosen_cells(config, tmp_path, bits=16)) == short
    assert list(chosen_cells(config, tmp_path, bits=16, seeds=[1])) == short[1:]
    with pytest.raises(ValueError, match="no finished cell of modal_aware at 16 bits"):
        chosen_cells(config, tmp_path, methods=["modal_aware"], bits=16)
    with config.unlocked():
        config.training.num_epochs = 7
    with pytest.raises(ValueError, match="compare` first, with the same --config"):
        chosen_cells(config, tmp_path)
    assert capsys.readouterr().out.count("a finished cell of another config") == 5
