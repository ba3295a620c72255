"""Ranking the first k again: by hand, against a sort in Python, and its errors."""

from types import SimpleNamespace

import numpy as np
import pytest

from modal_aware_jax.retrieval.evaluate_matching import evaluate_matching
from modal_aware_jax.retrieval.matching import first_relevant_rank, rank_of
from modal_aware_jax.retrieval.rerank import (
    first_found,
    reranked_tie,
    score_both_ways,
)
from modal_aware_jax.tasks.matching_examples import examples_of


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_first_found_are_those_of_a_full_sort():
    random = np.random.default_rng(0)
    query, gallery = random.normal(size=(7, 3)), random.normal(size=(40, 3))
    gallery[30] = gallery[4]  # a tie: the earlier row stands first
    cosine = unit(query) @ unit(gallery).T
    rows, cosines = first_found(query, gallery, 9)
    for i in range(7):
        expected = sorted(range(40), key=lambda j, i=i: (-round(cosine[i, j], 12), j))
        assert rows[i].tolist() == expected[:9]
    np.testing.assert_allclose(cosines, np.take_along_axis(cosine, rows, 1))
    assert first_found(query, gallery, 99)[0].shape == (7, 40)


def test_each_pair_is_scored_once():
    random = np.random.default_rng(1)
    images, texts, asked = random.normal(size=(4, 2)), random.normal(size=(6, 2)), []

    def score(image, text):
        asked.extend(zip(image.tolist(), text.tolist(), strict=True))
        return image + 0.01 * text

    found = score_both_ways(images, texts, 3, score)
    assert len(asked) == len(set(asked)) < 4 * 3 + 6 * 3
    rows, _, scores = found["image_to_text"]
    np.testing.assert_allclose(scores, np.arange(4)[:, None] + 0.01 * rows)
    rows, _, scores = found["text_to_image"]
    np.testing.assert_allclose(scores, rows + 0.01 * np.arange(6)[:, None])


def test_ranks_are_those_of_a_sorted_list():
    random = np.random.default_rng(2)
    query, gallery = random.normal(size=(30, 4)), random.normal(size=(25, 4))
    own, theirs = random.integers(0, 6, 30), random.integers(0, 6, 25)
    rows, _ = first_found(query, gallery, 8)
    scores = random.normal(size=rows.shape)
    ranks = rank_of(reranked_tie(query, gallery, own, theirs, rows, scores), "expected")
    cosine = unit(query) @ unit(gallery).T
    for i in range(30):
        order = [int(rows[i, j]) for j in np.argsort(-scores[i])]
        order += [j for j in np.argsort(-cosine[i]) if j not in order]
        right = [place for place, j in enumerate(order, 1) if theirs[j] == own[i]]
        assert ranks[i] == (right[0] if right else np.inf)


def test_the_same_order_changes_nothing():
    random = np.random.default_rng(3)
    images, texts = random.normal(size=(12, 3)), random.normal(size=(24, 3))
    groups, owners = np.arange(12), np.repeat(np.arange(12), 2)
    texts[3] = texts[0]  # two images tie, inside and across the border
    plain = evaluate_matching(images, texts, owners)
    same = score_both_ways(images, texts, 24, lambda i, t: np.zeros(len(i)))
    reranked = {way: (rows, cosines) for way, (rows, cosines, _) in same.items()}
    again = evaluate_matching(images, texts, owners, reranked=reranked)
    assert again["rsum"] == again["embeddings"]["rsum"] == plain["rsum"]
    np.testing.assert_allclose(again["embeddings"]["of_image"], plain["of_image"])
    rows = np.tile(np.arange(24), (12, 1))
    right = (owners[rows] == groups[:, None]).astype(float)
    best = evaluate_matching(
        images, texts, owners, reranked={**reranked, "image_to_text": (rows, right)}
    )
    assert best["image_to_text"]["recall"].tolist() == [1, 1, 1]
    assert (
        best["text_to_image"]["cmc"].tolist() == plain["text_to_image"]["cmc"].tolist()
    )


def test_a_tie_across_the_border_is_counted_by_hand():
    # Four equal rows, the right one third: candidates 0 and 1 are both wrong, so it is
    # first or second of the two behind them.
    query, gallery = np.ones((1, 2)), np.ones((4, 2))
    tie = reranked_tie(query, gallery, [2], np.arange(4), [[0, 1]], [[1.0, 2.0]])
    assert rank_of(tie, "expected").tolist() == [3.5]
    assert rank_of(tie, "index").tolist() == [3]
    equal = reranked_tie(query, gallery, [1], np.arange(4), [[0, 1]], [[1.0, 1.0]])
    assert rank_of(equal, "expected").tolist() == [1.5]
    assert first_relevant_rank(query, gallery, [2], np.arange(4)).tolist() == [2.5]


def test_errors():
    eye = np.eye(2)
    with pytest.raises(ValueError, match=r"candidates and scores \[2, k\].*\(1, 1\)"):
        reranked_tie(eye, eye, [0, 1], [0, 1], [[0]], [[1.0]])
    with pytest.raises(ValueError, match="scores hold NaN or infinity"):
        reranked_tie(eye, eye, [0, 1], [0, 1], [[0], [1]], [[1.0], [np.nan]])
    with pytest.raises(ValueError, match="k"):
        first_found(eye, eye, 0)


def test_the_page_shows_the_order_of_the_second_look():
    images = np.eye(3)
    texts = np.array([[1.0, 0.5, 0.1], [0.2, 1.0, 0.5], [0.5, 0.2, 1.0], [0.0, 0, 1]])
    owners, sentences = np.array([0, 1, 2, 2]), ["a", "b", "c", "d"]
    pairs = SimpleNamespace(images=[b"x", b"y", b"z"])
    scores = {  # the cosines' order, the other way round
        "image_to_text": np.array([[1.0, 2.0]] * 3),
        "text_to_image": np.array([[1.0, 2.0]] * 4),
    }
    first = {
        "image_to_text": np.array([[0, 2], [1, 0], [3, 2]]),
        "text_to_image": np.array([[0, 1], [1, 2], [2, 0], [2, 1]]),
    }
    both = {way: (first[way], scores[way]) for way in scores}
    shown = examples_of(pairs, range(3), images, texts, owners, sentences, both)
    (_, asked), (_, found) = shown
    assert [[x[1] for x in one["results"]] for one in asked] == [
        ["c", "a"],
        ["a", "b"],
        ["c", "d"],
    ]
    assert asked[2]["query"] == (b"z", "c / d")
    assert [x[3] for x in asked[0]["results"]] == [False, True]
    # Of the sentences that ask, the first of each image: a, b and c.
    assert [one["query"][1] for one in found] == ["a", "b", "c"]
    assert [x[0] for x in found[2]["results"]] == [b"x", b"z"]
    assert found[2]["results"][0][2] == 2.0  # the new score
    plain = examples_of(pairs, range(3), images, texts, owners, sentences)
    assert [x[1] for x in plain[0][1][2]["results"]] == ["d", "c", "b", "a"]
