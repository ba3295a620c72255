"""Ranks and recalls of matching against all orders, brute force and scikit-learn."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from modal_aware_jax.hashing.codes import hamming_distance, pack
from modal_aware_jax.retrieval import matching, similarity
from modal_aware_jax.retrieval.matching import first_relevant_rank, hits_at, recall_at


def orders_of(distances):
    """Every order of the gallery that ascends in distance."""
    levels = [np.flatnonzero(distances == d) for d in np.unique(distances)]
    for parts in itertools.product(*(itertools.permutations(x) for x in levels)):
        yield [int(i) for part in parts for i in part]


def first_of(order, relevant):
    return next(rank for rank, i in enumerate(order, start=1) if relevant[i])


def codes_case(seed, num_bits=3, queries=4, gallery=7):
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (queries + gallery, num_bits))
    packed = np.asarray(pack(bits))
    groups = np.concatenate([np.arange(queries), rng.integers(0, queries, gallery)])
    groups[queries : 2 * queries] = np.arange(queries)  # each has a right answer
    sides = packed[:queries], packed[queries:]
    return *sides, groups[:queries], groups[queries:]


@pytest.mark.parametrize("seed", range(4))
def test_expected_is_the_mean_over_all_orders_of_the_ties(seed):
    case = codes_case(seed)
    query, gallery, query_groups, gallery_groups = case
    ranks, hits = [], []
    for distances, group in zip(
        np.asarray(hamming_distance(query, gallery)), query_groups, strict=True
    ):
        first = np.array(
            [first_of(o, gallery_groups == group) for o in orders_of(distances)]
        )
        ranks.append(first.mean())
        hits.append([(first <= k).mean() for k in (1, 2, 3, 7)])
    found = first_relevant_rank(*case, num_bits=3)
    np.testing.assert_allclose(found, ranks, rtol=1e-12)
    found = hits_at(*case, num_bits=3, ks=(1, 2, 3, 7))
    np.testing.assert_allclose(found, hits, rtol=1e-12)
    found = recall_at(*case, num_bits=3, ks=(1, 2, 3, 7))
    np.testing.assert_allclose(found, np.mean(hits, axis=0), rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_index_is_a_stable_sort(seed):
    case = codes_case(seed, queries=6, gallery=40)
    query, gallery, query_groups, gallery_groups = case
    expected = []
    for distances, group in zip(
        np.asarray(hamming_distance(query, gallery)), query_groups, strict=True
    ):
        order = sorted(range(40), key=lambda i: (distances[i], i))
        expected.append(first_of(order, gallery_groups == group))
    ranks = first_relevant_rank(*case, num_bits=3, ties="index")
    assert ranks.tolist() == expected
    recall = recall_at(*case, num_bits=3, ties="index", ks=(1, 5))
    np.testing.assert_allclose(recall, [(ranks <= k).mean() for k in (1, 5)])


def embeddings(queries=30, gallery=90, features=16, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    query = rng.normal(size=(queries, features))
    groups = np.arange(gallery) % queries
    texts = 0.4 * query[groups] + rng.normal(size=(gallery, features))
    texts *= rng.uniform(0.1, 10, (gallery, 1))
    return query.astype(dtype), texts.astype(dtype), np.arange(queries), groups


def test_cosine_ranks_equal_a_loop_over_sorted_similarities():
    query, gallery, query_groups, gallery_groups = embeddings()
    expected = []
    for q, group in zip(query.astype(float), query_groups, strict=True):
        sims = [
            float(q @ g) / float(np.linalg.norm(q) * np.linalg.norm(g))
            for g in gallery.astype(float)
        ]
        order = np.argsort(sims)[::-1]
        expected.append(first_of(order, gallery_groups == group))
    for ties in ("expected", "index"):
        ranks = first_relevant_rank(
            query, gallery, query_groups, gallery_groups, ties=ties
        )
        assert ranks.tolist() == expected
        assert ranks.dtype == np.float64


def test_recall_with_one_right_answer_is_scikit_learns_top_k_accuracy():
    query, gallery, groups, _ = embeddings(queries=40, gallery=40)
    scores = sklearn.metrics.pairwise.cosine_similarity(
        query.astype(float), gallery.astype(float)
    )
    recall = recall_at(query, gallery, groups, groups, ks=(1, 3, 10))
    for k, value in zip((1, 3, 10), recall, strict=True):
        assert value == sklearn.metrics.top_k_accuracy_score(groups, scores, k=k)


def test_duplicates_tie_wherever_they_lie_and_however_they_are_scaled(monkeypatch):
    query, gallery, groups, _ = embeddings(queries=5, gallery=5, features=37)
    gallery = gallery.astype(float)  # three times a float32 is exact there
    order = np.random.default_rng(1).permutation(15)
    copies = np.concatenate([gallery, 3 * gallery, gallery])[order]
    # One copy of three is right, the first one: the middle of its tie on average.
    labels = np.full(15, -1)
    for group in groups:
        labels[np.argmax(order % 5 == group)] = group
    plain = first_relevant_rank(query, gallery, groups, groups)
    mean = first_relevant_rank(query, copies, groups, labels)
    np.testing.assert_allclose(mean, 3 * (plain - 1) + 2)
    index = first_relevant_rank(query, copies, groups, labels, ties="index")
    np.testing.assert_allclose(index, 3 * (plain - 1) + 1)
    for rows in (1, 2, 7):
        monkeypatch.setattr(similarity, "GALLERY_ROWS", rows)
        again = first_relevant_rank(query, copies, groups, labels)
        np.testing.assert_array_equal(again, mean)
        again = first_relevant_rank(query, copies, groups, labels, ties="index")
        np.testing.assert_array_equal(again, index)


def test_equal_angles_tie_where_the_sums_round_differently():
    rng = np.random.default_rng(0)
    values = rng.normal(size=64)
    gallery = np.stack([rng.permutation(values) for _ in range(9)])
    ranks = first_relevant_rank(np.ones((1, 64)), gallery, [4], np.arange(9))
    assert ranks.tolist() == [5.0]  # the middle of nine


def test_a_memory_map_gives_what_the_array_gives(tmp_path, monkeypatch):
    query, gallery, *groups = embeddings()
    np.save(tmp_path / "gallery.npy", gallery)
    monkeypatch.setattr(similarity, "GALLERY_ROWS", 16)
    monkeypatch.setattr(similarity, "QUERY_ROWS", 7)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    for ties in ("expected", "index"):
        monkeypatch.setattr(similarity, "GALLERY_ROWS", 16)
        ours = first_relevant_rank(query, mapped, *groups, ties=ties)
        monkeypatch.setattr(similarity, "GALLERY_ROWS", 8192)
        whole = first_relevant_rank(query, gallery, *groups, ties=ties)
        np.testing.assert_array_equal(ours, whole)


def test_the_gallerys_order_does_not_move_the_expectation():
    query, gallery, query_groups, gallery_groups = codes_case(3, gallery=50)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_allclose(
        first_relevant_rank(
            query, gallery[order], query_groups, gallery_groups[order], num_bits=3
        ),
        first_relevant_rank(query, gallery, query_groups, gallery_groups, num_bits=3),
    )


def test_nothing_relevant_is_rank_infinity_and_named_in_the_mean():
    query, gallery = np.eye(2), np.eye(2)
    assert first_relevant_rank(query, gallery, [0, 9], [0, 1]).tolist() == [1, np.inf]
    assert recall_at(query, gallery, [0, 9], [0, 1], ks=(1,)).tolist() == [0.5]
    skip = recall_at(query, gallery, [0, 9], [0, 1], ks=(1,), no_relevant="skip")
    assert skip.tolist() == [1.0]
    assert recall_at(query, gallery, [8, 9], [0, 1], no_relevant="skip").sum() == 0
    assert first_relevant_rank(query[:0], gallery, [], [0, 1]).shape == (0,)


def test_extremes_have_a_defined_rank():
    ones = np.ones((1, 4))
    # A row of zeros has cosine 0: below a positive similarity, above a negative one.
    gallery = np.array([[0.0] * 4, [1e200] * 4, [-1e-200] * 4])
    assert first_relevant_rank(ones, gallery, [0], [0, 1, 2]).tolist() == [2.0]
    assert first_relevant_rank(ones, gallery, [2], [0, 1, 2]).tolist() == [3.0]
    assert recall_at(ones, gallery, ["b"], ["a", "b", "c"], ks=(1, 99)).tolist() == [
        *(1, 1)
    ]
    half = jnp.asarray(gallery.clip(-1, 1), jnp.bfloat16)
    assert first_relevant_rank(half[1:2], half, [1], [0, 1, 2]).tolist() == [1.0]


def test_large_groups_of_either_sign_are_told_apart():
    """A float64, which int64 and uint64 have in common, holds no 2^60 + 1."""
    own, theirs = np.array([2**60]), np.array([2**60 + 1, 2**60], np.uint64)
    query, gallery = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert first_relevant_rank(query, gallery, own, theirs).tolist() == [2]
    own = np.array([-1, 2**60])
    assert first_relevant_rank(query, gallery, theirs[:1], own).tolist() == [np.inf]


def test_wrong_input_is_named():
    query, gallery, *groups = embeddings()
    with pytest.raises(ValueError, match="first_relevant_rank.*ties='expected' or"):
        first_relevant_rank(query, gallery, *groups, ties="random")
    with pytest.raises(ValueError, match=r"recall_at.*every k to be a positive int.*0"):
        recall_at(query, gallery, *groups, ks=(0, 1))
    with pytest.raises(ValueError, match="recall_at.*several ranks, got 5"):
        recall_at(query, gallery, *groups, ks=5)
    with pytest.raises(ValueError, match=r"query_groups of shape \[30\].*\[29\]"):
        recall_at(query, gallery, groups[0][1:], groups[1])
    with pytest.raises(ValueError, match="groups of one kind, got int64 and <U1"):
        recall_at(query, gallery, groups[0], ["a"] * 90)
    with pytest.raises(ValueError, match="whole numbers or names, got float64"):
        recall_at(query, gallery, groups[0] / 2, groups[1])
    with pytest.raises(ValueError, match=r"same D >= 1, got \[30, 16\] and \[90, 15\]"):
        recall_at(query, gallery[:, 1:], *groups)
    with pytest.raises(ValueError, match="uint32.*Give num_bits for packed codes"):
        recall_at(query.view(np.uint32), gallery, *groups)
    with pytest.raises(ValueError, match="gallery is empty"):
        recall_at(query, gallery[:0], groups[0], [])
    gallery[3, 2] = np.nan
    with pytest.raises(ValueError, match="recall_at.*NaN or infinity in gallery"):
        recall_at(query, gallery, *groups)
    with pytest.raises(ValueError, match="recall_at.*packed codes"):
        recall_at(query, query, groups[0], groups[0], num_bits=16)


def test_large_ties_keep_the_closed_form():
    tie = matching.FirstTie(*(np.array([x]) for x in (3, 100_000, 2, 7)))
    # Two right among 100,000 equal: 1 - (1 - 7/N)(1 - 7/(N - 1)) to first order 14/N.
    (chance,) = matching.found_within(tie, [10], "expected")[0]
    assert chance == pytest.approx(14 / 100_000, rel=1e-4)
    assert matching.rank_of(tie, "expected")[0] == 3 + 100_001 / 3
    assert matching.rank_of(tie, "index")[0] == 10
