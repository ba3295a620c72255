"""Splits: sizes, disjointness, repeatability, and what is refused."""

import json

import numpy as np
import pytest

from modal_aware_jax.data.protocol import (
    Split,
    check_split,
    load_split,
    save_split,
    split,
)


def test_a_split_is_disjoint_complete_and_sorted():
    parts = split(100, num_queries=10, num_train=40, num_validation=15, seed=3)
    query, database, train, validation = (set(part.tolist()) for part in parts)
    assert [len(part) for part in parts] == [10, 90, 40, 15]
    assert query | database == set(range(100)) and not query & database
    assert train < database and validation < database and not train & validation
    for part in parts:
        assert part.dtype == np.int64 and part.tolist() == sorted(part)


def test_the_seed_decides_and_is_the_same_for_ever():
    again = [
        split(9, num_queries=2, num_train=3, num_validation=1, seed=seed)
        for seed in (7, 7, 8)
    ]
    np.testing.assert_array_equal(again[0].query, again[1].query)
    assert again[0].query.tolist() != again[2].query.tolist()
    # RandomState(7).permutation(9) = 8 5 0 2 1 ...: published streams do not change.
    expected = np.random.RandomState(7).permutation(9)[:2]
    assert again[0].query.tolist() == sorted(expected.tolist())


def test_queries_per_label_gives_each_label_its_own_distinct_queries():
    random = np.random.default_rng(0)
    labels = (random.random((500, 21)) < 0.2).astype(np.uint8)
    parts = split(
        500,
        num_queries=None,
        num_train=100,
        num_validation=50,
        seed=0,
        labels=labels,
        queries_per_label=5,
    )
    assert len(parts.query) == len(set(parts.query.tolist())) == 105
    assert labels[parts.query].sum(axis=0).min() >= 5
    assert not set(parts.query) & set(parts.database)


def test_rare_labels_choose_their_queries_first():
    labels = np.array([[1, 1], [1, 1], [1, 0], [1, 0]])
    parts = split(
        4,
        num_queries=4,
        num_train=0,
        num_validation=0,
        seed=0,
        labels=labels,
        queries_per_label=2,
    )
    assert parts.query.tolist() == [0, 1, 2, 3]  # label 0 left 0 and 1 to label 1


def test_asking_for_too_many_tells_the_numbers():
    with pytest.raises(ValueError, match=r"= 12, but the collection has 10 .* 2 too"):
        split(10, num_queries=4, num_train=6, num_validation=2, seed=0)
    labels = np.ones((10, 2))
    with pytest.raises(ValueError, match="10 pairs, 4 of them not yet taken"):
        split(
            10,
            num_queries=None,
            num_train=0,
            num_validation=0,
            seed=0,
            labels=labels,
            queries_per_label=6,
        )
    with pytest.raises(ValueError, match="num_train must not be negative, got -1"):
        split(10, num_queries=4, num_train=-1, num_validation=2, seed=0)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (Split([0, 1], [1, 2], [2], []), "query must not share a pair with database"),
        (Split([0], [1, 2], [0], []), "train must lie in database"),
        (Split([0], [1, 2], [1], [1]), "validation must not share a pair with train"),
        (Split([0], [2, 1], [], []), "database must be sorted"),
        (Split([0], [1, 9], [], []), "the collection has 3 pairs"),
    ],
)
def test_a_broken_split_is_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        check_split(Split(*(np.array(part, np.int64) for part in parts)), 3)


def test_a_saved_split_finds_its_pairs_in_any_order(tmp_path):
    ids = np.array([f"im{i}" for i in range(20)])
    parts = split(20, num_queries=3, num_train=8, num_validation=4, seed=1)
    save_split(tmp_path / "run" / "split.json", parts, ids)
    for one, other in zip(
        parts, load_split(tmp_path / "run" / "split.json", ids), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    reverse = load_split(tmp_path / "run" / "split.json", ids[::-1])
    assert set(ids[::-1][reverse.query]) == set(ids[parts.query])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["split.json"]


def test_a_split_of_another_collection_is_refused(tmp_path):
    path = tmp_path / "split.json"
    parts = split(4, num_queries=1, num_train=1, num_validation=0, seed=1)
    save_split(path, parts, ["a", "b", "c", "d"])
    with pytest.raises(ValueError, match=r"1 are not among .*\(d\), and 1 given"):
        load_split(path, ["a", "b", "c", "e"])
    path.write_text("{")
    with pytest.raises(ValueError, match="not a split written by save_split"):
        load_split(path, ["a"])


def test_a_split_edited_by_hand_is_checked_again(tmp_path):
    path = tmp_path / "split.json"
    parts = split(4, num_queries=1, num_train=1, num_validation=0, seed=1)
    save_split(path, parts, ["a", "b", "c", "d"])
    content = json.loads(path.read_text())
    content["train"] = content["query"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="train must lie in database"):
        load_split(path, ["a", "b", "c", "d"])
