"""Matching's tables, label scores, intervals and folds by loops and scikit-learn."""

import itertools

import numpy as np
import pytest
import sklearn.metrics

from modal_aware_jax.hashing.codes import hamming_distance, pack
from modal_aware_jax.retrieval import label_scores, metrics
from modal_aware_jax.retrieval.bootstrap import bootstrap_by_image
from modal_aware_jax.retrieval.cmc import cumulative_match_curve
from modal_aware_jax.retrieval.coco_protocol import first_texts, fold_scores, folds
from modal_aware_jax.retrieval.label_scores import (
    average_precision_at_r,
    average_precision_by_labels,
    mean_average_precision_by_labels,
    precision_by_labels,
)
from modal_aware_jax.retrieval.matching import hits_at
from modal_aware_jax.retrieval.matching_scores import matching_scores


def pairs(images=20, texts_per_image=5, features=8, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(images, features))
    groups = rng.permutation(np.repeat(np.arange(images), texts_per_image))
    text = 0.5 * image[groups] + rng.normal(size=(len(groups), features))
    return image, text, np.arange(images), groups


def first_ranks(query, gallery, own, theirs):
    """Ranks by a sort of scikit-learn's similarities, one query at a time."""
    scores = sklearn.metrics.pairwise.cosine_similarity(query, gallery)
    ranks = []
    for row, group in zip(scores, own, strict=True):
        order = np.argsort(-row)
        ranks.append(1 + next(i for i, n in enumerate(order) if theirs[n] == group))
    return np.array(ranks)


def test_the_table_of_both_directions_equals_a_loop():
    image, text, own, theirs = pairs()
    scores = matching_scores(image, text, own, theirs, texts_per_image=5)
    rsum = 0.0
    for found, ranks in (
        (scores.image_to_text, first_ranks(image, text, own, theirs)),
        (scores.text_to_image, first_ranks(text, image, theirs, own)),
    ):
        recall = [sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 5, 10)]
        np.testing.assert_allclose(found.recall, recall)
        middle = sorted(ranks)[len(ranks) // 2 - 1 : len(ranks) // 2 + 1]
        assert found.median_rank == sum(middle) / 2
        assert found.mean_rank == pytest.approx(sum(ranks) / len(ranks))
        rsum += 100 * sum(recall)
    assert scores.rsum == pytest.approx(rsum)
    assert scores[4:] == (20, 100, (5, 5)) and scores.ks == (1, 5, 10)


def test_perfect_codes_have_the_whole_sum():
    rows = np.asarray(pack(np.eye(4, dtype=int)))
    scores = matching_scores(
        rows, np.repeat(rows, 2, axis=0), list("abcd"), list("aabbccdd"), num_bits=4
    )
    assert scores.rsum == 600 and scores.text_to_image.median_rank == 1


def test_sides_that_do_not_fit_are_refused_and_the_common_mistake_is_named():
    image, text, own, theirs = pairs()

    def refused(match, own=own, theirs=theirs, image=image, text=text, **options):
        with pytest.raises(ValueError, match=match):
            matching_scores(image, text, own, theirs, **options)

    first = first_texts(theirs, 1)
    one = dict(theirs=theirs[first], text=text[first])
    refused("every image has one text.*common mistake.*texts_per_image=1", **one)
    assert matching_scores(image, text[first], own, theirs[first], texts_per_image=1)
    refused("expected 5 texts an image, but 20 images have", texts_per_image=5, **one)
    twice = dict(own=theirs, image=image[theirs])
    refused(r"image \d+ is there 5 times.*Give every image once", **twice)
    refused("5 texts have no image, the first is of 3", own=own[own != 3], image=image)
    missing = theirs != 7
    refused("1 images have no text, such as 7", theirs=theirs[missing], text=text)
    refused("not empty, got .20. and .0.", theirs=[])
    refused("of one kind, got int64 and <U", theirs=theirs.astype(str))


def test_cumulative_match_never_falls_and_ends_at_one():
    image, text, own, theirs = pairs()
    curve = cumulative_match_curve(text, image, theirs, own, max_rank=20)
    ranks = first_ranks(text, image, theirs, own)
    np.testing.assert_allclose(curve, [(ranks <= k).mean() for k in range(1, 21)])
    assert (np.diff(curve) >= 0).all() and curve[-1] == 1
    with pytest.raises(ValueError, match="max_rank to be a positive integer, got 0"):
        cumulative_match_curve(text, image, theirs, own, max_rank=0)


def labelled(seed=0, queries=6, gallery=40, labels=5, dtype=float):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(queries + gallery, 8)).astype(dtype)
    tags = (rng.random((queries + gallery, labels)) < 0.25).astype(np.uint8)
    tags[:queries, 0] |= tags[:queries].sum(axis=1) == 0
    return rows[:queries], rows[queries:], tags[:queries], tags[queries:]


def test_average_precision_of_embeddings_is_scikit_learns():
    query, gallery, own, theirs = labelled()
    scores = sklearn.metrics.pairwise.cosine_similarity(query, gallery)
    relevant = own @ theirs.T > 0
    expected = [
        sklearn.metrics.average_precision_score(r, s)
        for r, s in zip(relevant, scores, strict=True)
    ]
    for ties in ("expected", "index"):
        found = average_precision_by_labels(query, gallery, own, theirs, ties=ties)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    mean = mean_average_precision_by_labels(query, gallery, own, theirs)
    assert mean == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("ties", ["expected", "index"])
@pytest.mark.parametrize("at", [None, 1, 7])
def test_codes_give_what_the_hamming_metrics_give(ties, at, monkeypatch):
    monkeypatch.setattr(label_scores, "SCORES", 100)  # more than one block
    query, gallery, own, theirs = labelled(seed=1)
    query, gallery = (np.asarray(pack((x > 0)[:, :5])) for x in (query, gallery))
    case = query, gallery, own, theirs
    np.testing.assert_allclose(
        average_precision_by_labels(*case, num_bits=5, at=at, ties=ties),
        metrics.average_precision(*case, num_bits=5, at=at, ties=ties),
        rtol=1e-12,
    )
    ns = (1, 3, 10, 99)
    np.testing.assert_allclose(
        precision_by_labels(*case, num_bits=5, ns=ns, ties=ties),
        metrics.precision_at(*case, num_bits=5, ns=ns, ties=ties),
        rtol=1e-12,
    )


@pytest.mark.parametrize("seed", range(3))
def test_ap_at_r_is_the_mean_over_all_orders_of_the_ties(seed):
    rng = np.random.default_rng(seed)
    query = np.asarray(pack(rng.integers(0, 2, (3, 3))))
    gallery = np.asarray(pack(rng.integers(0, 2, (7, 3))))
    own, theirs = np.arange(3), rng.integers(0, 4, 7)
    expected, by_index = [], []
    for distances, group in zip(hamming_distance(query, gallery), own, strict=True):
        relevant, distances = theirs == group, np.asarray(distances)
        total = relevant.sum()
        values = []
        for order in itertools.permutations(range(7)):
            if any(np.diff(distances[list(order)]) < 0):
                continue
            hits = [relevant[i] for i in order][:total]
            places = [i + 1 for i, hit in enumerate(hits) if hit]
            precisions = [(n + 1) / place for n, place in enumerate(places)]
            values.append(sum(precisions) / total if total else 0.0)
        expected.append(np.mean(values))
        by_index.append(values[0])  # permutations come in lexicographic order
    case = query, gallery, own, theirs
    found = average_precision_at_r(*case, num_bits=3)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    found = average_precision_at_r(*case, num_bits=3, ties="index")
    np.testing.assert_allclose(found, by_index, rtol=1e-12)


def test_duplicates_of_embeddings_tie_and_the_perfect_ranking_is_one():
    query = np.array([[1.0, 2.0, 3.0]])
    gallery = np.concatenate([query, 3 * query, query / 7, -query])
    # One of three equal rows is relevant: ranks 1, 2, 3 with equal chance.
    found = average_precision_by_labels(query, gallery, [1], [0, 0, 1, 0])
    np.testing.assert_allclose(found, [(1 + 1 / 2 + 1 / 3) / 3])
    np.testing.assert_allclose(
        precision_by_labels(query, gallery, [1], [0, 0, 1, 0], ns=(1, 2, 4)),
        [1 / 3, 1 / 3, 1 / 4],
    )
    assert average_precision_at_r(query, gallery, [1], [1, 1, 1, 0]).tolist() == [1]
    assert average_precision_at_r(query, gallery, [5], [1, 1, 1, 0]).tolist() == [0]
    skip = dict(no_relevant="skip")
    assert mean_average_precision_by_labels(query, gallery, [5], [1] * 4, **skip) == 0


def test_wrong_labels_are_named():
    query, gallery, own, theirs = labelled()
    with pytest.raises(ValueError, match="average_precision_at_r.*0 and 1, found oth"):
        average_precision_at_r(query, gallery, own * 2, theirs)
    with pytest.raises(ValueError, match=r"same L on both.*\[6, 4\] and \[40, 5\]"):
        precision_by_labels(query, gallery, own[:, 1:], theirs)
    with pytest.raises(ValueError, match="average_precision_at_r: a class .* -1; else"):
        average_precision_at_r(query, gallery, np.zeros(6, int), np.arange(40) - 1)
    with pytest.raises(ValueError, match="precision_by_labels: ns is empty"):
        precision_by_labels(query, gallery, own, theirs, ns=())


def test_intervals_resample_images_and_are_paired():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 5)
    hard = np.repeat(rng.random(200) < 0.5, 5).astype(float)  # all five or none
    by_image = bootstrap_by_image([hard], [groups])
    by_sentence = bootstrap_by_image([hard], [np.arange(1000)])
    # Binomial over 200 images, not over 1,000 sentences: twice the root of 5.
    width, narrow = (x.high - x.low for x in (by_image, by_sentence))
    assert width == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 200), rel=0.1)
    assert width / narrow == pytest.approx(np.sqrt(5), rel=0.1)
    assert by_image.value == hard.mean()
    better = bootstrap_by_image([hard + 0.01], [groups], others=[hard])
    np.testing.assert_allclose(better, [0.01] * 3, rtol=1e-9)
    assert bootstrap_by_image([hard], [groups], seed=3) == bootstrap_by_image(
        [hard], [groups], seed=3
    )


def test_the_interval_of_rsum_adds_both_directions():
    image, text, own, theirs = pairs()
    scores = matching_scores(image, text, own, theirs)
    values = [
        100 * hits_at(image, text, own, theirs).sum(axis=1),
        100 * hits_at(text, image, theirs, own).sum(axis=1),
    ]
    interval = bootstrap_by_image(values, [own, theirs], samples=300)
    assert interval.value == pytest.approx(scores.rsum)
    assert interval.low < interval.value < interval.high
    assert len(set(interval)) == 3


def test_what_does_not_fit_the_bootstrap_is_named():
    with pytest.raises(ValueError, match="One part. Put it in a list"):
        bootstrap_by_image([1.0, 2.0], [[0, 1]])
    with pytest.raises(ValueError, match="one has 2, another 3 of which 2 are shared"):
        bootstrap_by_image([[1, 2], [1, 2, 3]], [[0, 1], [0, 1, 2]])
    with pytest.raises(ValueError, match="others of the same shapes"):
        bootstrap_by_image([[1, 2]], [[0, 1]], others=[[1]])
    with pytest.raises(ValueError, match="NaN or infinity"):
        bootstrap_by_image([[1, np.inf]], [[0, 1]])
    with pytest.raises(ValueError, match="confidence between 0 and 1, got 95"):
        bootstrap_by_image([[1, 2]], [[0, 1]], confidence=95)


def test_folds_are_consecutive_and_texts_follow_their_image():
    image, text, own, theirs = pairs(images=20)
    names = np.array([f"im{n}" for n in own])
    mean, each = fold_scores(image, text, names, names[theirs], num_folds=5)
    for f, scores in enumerate(each):
        images = list(range(4 * f, 4 * f + 4))
        texts = [i for i, n in enumerate(theirs) if n in images]
        alone = matching_scores(image[images], text[texts], images, theirs[texts])
        assert scores == alone
    assert mean.rsum == pytest.approx(sum(scores.rsum for scores in each) / 5)
    assert mean.num_images == 4 and mean.num_texts == 20
    whole, (only,) = fold_scores(image, text, own, theirs, num_folds=1)
    assert whole == only == matching_scores(image, text, own, theirs)
    with pytest.raises(ValueError, match=r"N is a multiple of 3, got \[20\]"):
        folds(own, theirs, num_folds=3)
    with pytest.raises(ValueError, match="fold_scores: expected 4 texts an image"):
        fold_scores(image, text, own, theirs, texts_per_image=4)


def test_first_texts_keep_the_order_of_each_image():
    groups = [3, 1, 3, 3, 1, 2, 1]
    assert first_texts(groups, 2).tolist() == [0, 1, 2, 4, 5]
    with pytest.raises(ValueError, match="first_texts: expected count"):
        first_texts(groups, 0)
