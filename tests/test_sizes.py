"""Sizes that fit the collection, and splits that it brings itself."""

import dataclasses
import pathlib
import runpy

import numpy as np
import pytest

from modal_aware_jax import build
from modal_aware_jax.data import shapes
from modal_aware_jax.data.given_split import given_split
from modal_aware_jax.data.protocol import load_split, save_split
from modal_aware_jax.data.sizes import fitting_batch, fitting_sizes
from modal_aware_jax.experiment.sources import fitted, split_of

FOLDER = pathlib.Path(__file__).parents[1] / "configs" / "folder.py"


@pytest.fixture
def config():
    return runpy.run_path(str(FOLDER))["get_config"]().lock()


@pytest.mark.parametrize("number", [60, 61, 100, 300, 2700, 20_000, 300_000, 10**6])
def test_sizes_fit_any_collection_from_sixty_pairs_on(number):
    queries, train, validation = sizes = fitting_sizes(number)
    assert sum(sizes) <= number and min(sizes) > 0
    assert queries >= 10 and train > 2 * validation
    batch = fitting_batch(train)
    assert 8 <= batch <= 100 and train // batch >= 5


def test_sizes_grow_and_end_where_protocols_do():
    sizes = [fitting_sizes(number) for number in (60, 600, 6000, 60_000)]
    assert sizes == sorted(sizes)
    assert fitting_sizes(60_000) == (2000, 10_000, 1000)


def test_sizes_that_are_given_stay():
    assert fitting_sizes(300, num_train=100) == (50, 100, 20)
    assert fitting_sizes(300, num_queries=1, num_validation=0) == (1, 299, 0)
    assert fitting_sizes(9, num_queries=2, num_train=5, num_validation=1) == (2, 5, 1)
    with pytest.raises(ValueError, match="59 pairs are too few .* at least 60 are"):
        fitting_sizes(59)


def test_a_config_without_sizes_is_filled_and_says_so(config, capsys):
    pairs = shapes.load(num_pairs=60, image_size=16)
    full = fitted(config, pairs)
    told = capsys.readouterr().err
    assert told == (
        "shapes: 60 pairs, split as drawn: 10 queries, 50 in the database, 45 of them "
        "to train on and 5 to validate with; batches of 8\n"
    )
    assert full.is_locked and full.training.batch_size == 8
    assert fitted(full, pairs).to_dict() == full.to_dict()
    assert not capsys.readouterr().err  # nothing was left open
    assert config.data.num_train is None  # the given one is as it was
    with pytest.raises(ValueError, match="59 pairs are too few"):
        fitted(config, shapes.load(num_pairs=59, image_size=16))


PARTS = np.array(["train"] * 20 + ["validation"] * 4 + ["query"] * 5 + ["", "database"])


def test_a_given_split_is_kept(config, tmp_path, capsys):
    pairs = shapes.load(num_pairs=len(PARTS), image_size=16)
    pairs = dataclasses.replace(pairs, parts=PARTS)
    parts = split_of(fitted(config, pairs).data, pairs)
    assert "split as given: 5 queries, 26 in the database" in capsys.readouterr().err
    for name, part in (("train", 20), ("validation", 4), ("query", 5)):
        assert (PARTS[getattr(parts, name)] == name).all()
        assert len(getattr(parts, name)) == part
    assert set(parts.database) == set(range(31)) - set(parts.query)
    save_split(tmp_path / "split.json", parts, pairs.ids)  # and saved with the run
    again = load_split(tmp_path / "split.json", pairs.ids[::-1])
    assert set(pairs.ids[::-1][again.query]) == set(pairs.ids[parts.query])
    with config.unlocked():
        config.data.num_queries = 7
    with pytest.raises(ValueError, match="brings its own split.*given_split=false"):
        fitted(config, pairs)
    with config.unlocked():
        config.data.source = "captioned_shapes"  # has no option to draw another
    with pytest.raises(ValueError, match="leave --config.data.num_queries out[.]$"):
        fitted(config, pairs)


def test_what_a_given_split_leaves_open_is_drawn():
    train_and_query = PARTS[[*range(20), *range(24, 29)]]
    parts = given_split(train_and_query, num_validation=3, num_train=10, seed=1)
    assert [len(part) for part in parts] == [5, 20, 10, 3]
    assert (train_and_query[parts.validation] == "train").all()
    assert given_split(PARTS[:24]).query.tolist() == [20, 21, 22, 23]
    unnamed = given_split(PARTS[24:])  # no part to learn from: all of the database
    assert unnamed.train.tolist() == [5, 6] and unnamed.query.tolist() == [*range(5)]
    assert len(given_split(PARTS, num_validation=2).validation) == 2
    with pytest.raises(ValueError, match="has parts 'train' only.*given_split=false"):
        given_split(PARTS[:20])
    with pytest.raises(ValueError, match="leaves 20 pairs for --config.data.num_train"):
        given_split(PARTS, num_train=21)


def test_a_task_that_needs_labels_refuses_a_collection_without():
    config = runpy.run_path(str(FOLDER))["get_config"]("task=classification").lock()
    pairs = shapes.load(num_pairs=60, image_size=16)
    pairs = dataclasses.replace(pairs, labels=np.zeros((60, 0)), label_names=())
    message = "shapes has no labels.*label_column=NAME"
    with pytest.raises(ValueError, match=message) as caught:
        build.experiment(config, pairs)
    assert "\n" not in str(caught.value)
