"""Precision and recall by rank: a double loop over rankings, ties, no relevant."""

import itertools

import numpy as np
import pytest

from modal_aware_jax.retrieval.by_rank import precision_recall_by_rank


def by_loops(query, gallery, own, theirs, ranks):
    """Every query sorts the gallery; what is relevant is counted one by one."""
    found, relevant = np.zeros(len(ranks)), 0
    for q, group in zip(query, own, strict=True):
        cosines = [
            float(q @ g / np.linalg.norm(q) / np.linalg.norm(g)) for g in gallery
        ]
        order = sorted(range(len(gallery)), key=lambda i: -cosines[i])
        relevant += sum(other == group for other in theirs)
        for place, k in enumerate(ranks):
            found[place] += sum(theirs[i] == group for i in order[:k])
    return found / (len(query) * np.array(ranks)), found / relevant


def test_equals_a_loop_and_both_kinds_of_groups():
    random = np.random.default_rng(0)
    query, gallery = random.normal(size=(7, 5)), random.normal(size=(23, 5))
    own, theirs = random.integers(0, 4, 7), random.integers(0, 5, 23)
    got = precision_recall_by_rank(query, gallery, own, theirs, ranks=(1, 4, 23, 99))
    assert got[0].tolist() == [1, 4, 23]
    expected = by_loops(query, gallery, own, theirs, got[0])
    np.testing.assert_allclose(got[1:], expected)
    names = [f"group {i}" for i in own], [f"group {i}" for i in theirs]
    same = precision_recall_by_rank(query, gallery, *names, ranks=(1, 4, 23))
    np.testing.assert_allclose(same[1:], expected)
    assert got[2][-1] == pytest.approx(1) and (np.diff(got[2]) >= 0).all()


def test_ties_are_the_mean_over_their_orders():
    gallery = np.array([[2.0, 0], [1, 0], [3, 0], [0, 1]])  # the first three tie
    theirs = np.array([1, 0, 0, 1])
    expected = np.mean(
        [
            [theirs[list(order)[:k]].sum() / k for k in (1, 2, 3)]
            for order in itertools.permutations(range(3))
        ],
        axis=0,
    )
    _, precision, recall = precision_recall_by_rank(
        np.eye(2)[:1], gallery, [1], theirs, ranks=(1, 2, 3)
    )
    np.testing.assert_allclose(precision, expected)
    np.testing.assert_allclose(recall, expected * [1, 2, 3] / 2)


def test_nothing_relevant_is_no_recall():
    _, precision, recall = precision_recall_by_rank(
        np.eye(2), np.eye(2), [5, 6], [1, 2]
    )
    assert not precision.any() and not recall.any()
    with pytest.raises(ValueError, match="precision_recall_by_rank: expected query_gr"):
        precision_recall_by_rank(np.eye(2), np.eye(2), [5], [1, 2])
