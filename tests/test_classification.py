"""Measures of classification against scikit-learn, SciPy and values by hand."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as reference
from sklearn.calibration import calibration_curve

from modal_aware_jax import classification as measures

RNG = np.random.default_rng(0)
N, C = 300, 4
LABELS = RNG.integers(0, 3, N)  # class 3 has no item
PROBABILITIES = RNG.dirichlet(np.ones(C), N)
PROBABILITIES[np.arange(N), LABELS] += 0.5
PROBABILITIES /= PROBABILITIES.sum(axis=1, keepdims=True)
PREDICTED = measures.likeliest_class(PROBABILITIES)
LABEL_SETS = (RNG.random((N, C)) < [0.5, 0.2, 0.9, 0.0]).astype(int)
SET_PROBABILITIES = np.clip(0.6 * LABEL_SETS + 0.5 * RNG.random((N, C)), 0, 1)
SETS = measures.likely_labels(SET_PROBABILITIES)
ALL = list(range(C))


def test_classes_equal_scikit_learn():
    np.testing.assert_array_equal(
        measures.confusion_matrix(LABELS, PREDICTED, C),
        reference.confusion_matrix(LABELS, PREDICTED, labels=ALL),
    )
    assert measures.accuracy(LABELS, PREDICTED) == pytest.approx(
        reference.accuracy_score(LABELS, PREDICTED), abs=1e-12
    )
    expected = reference.precision_recall_fscore_support(
        LABELS, PREDICTED, labels=ALL, zero_division=0
    )
    for ours, theirs in zip(
        measures.per_class(LABELS, PREDICTED, C), expected, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert measures.macro_f1(LABELS, PREDICTED, C) == pytest.approx(
        reference.f1_score(
            LABELS, PREDICTED, labels=ALL, average="macro", zero_division=0
        ),
        abs=1e-12,
    )


def test_label_sets_equal_scikit_learn():
    pair = LABEL_SETS, SETS
    np.testing.assert_array_equal(
        measures.label_counts(*pair), reference.multilabel_confusion_matrix(*pair)
    )
    assert measures.accuracy(*pair) == reference.accuracy_score(*pair)
    assert measures.label_accuracy(*pair) == pytest.approx(
        1 - reference.hamming_loss(*pair), abs=1e-12
    )
    expected = reference.precision_recall_fscore_support(*pair, zero_division=0)
    for ours, theirs in zip(measures.per_class(*pair), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    for average, score in (("macro", measures.macro_f1), ("micro", measures.micro_f1)):
        assert score(*pair) == pytest.approx(
            reference.f1_score(*pair, average=average, zero_division=0), abs=1e-12
        )


def test_nothing_predicted_and_nothing_there_count_zero():
    zeros = np.zeros((2, 3), int)
    found = measures.per_class(zeros, zeros)
    assert not np.any(found)  # no NaN, no warning
    assert measures.micro_f1(zeros, zeros) == 0
    assert measures.per_class([1], [1], 2).f1.tolist() == [0, 1]


def test_reliability_bins_by_hand():
    confidence = [0.0, 0.25, 0.26, 0.5, 0.51, 1.0]
    right = [True, False, True, True, False, True]
    found = measures.reliability_bins(confidence, right, num_bins=4)
    assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.count.tolist() == [2, 2, 1, 1]  # an edge belongs to the lower bin
    np.testing.assert_allclose(found.confidence, [0.125, 0.38, 0.51, 1.0])
    np.testing.assert_allclose(found.accuracy, [0.5, 1, 0, 1])
    error = measures.expected_calibration_error(confidence, right, num_bins=4)
    assert error == pytest.approx((2 * 0.375 + 2 * 0.62 + 0.51 + 0) / 6)
    for n in (6, 7, 9, 12, 15):
        at_edges = np.array([k / n for k in range(1, n + 1)])
        assert (
            measures.reliability_bins(at_edges, at_edges > 0, num_bins=n)[1] == 1
        ).all()
    empty = measures.reliability_bins([0.9], [True], num_bins=2)
    assert np.isnan(empty.accuracy[0]) and empty.count.tolist() == [0, 1]
    assert measures.expected_calibration_error([1.0, 1.0], [True, True]) == 0


def test_bins_equal_scikit_learns_curve():
    confidence, right = measures.class_confidence(PROBABILITIES, LABELS)
    share, mean = calibration_curve(right, confidence, n_bins=10)
    found = measures.reliability_bins(confidence, right, num_bins=10)
    some = found.count > 0
    np.testing.assert_allclose(found.accuracy[some], share)
    np.testing.assert_allclose(found.confidence[some], mean)
    error = measures.expected_calibration_error(confidence, right, num_bins=10)
    expected = np.average(np.abs(share - mean), weights=found.count[some])
    assert error == pytest.approx(expected)


def test_confidences_are_those_of_single_decisions():
    confidence, right = measures.label_confidence(SET_PROBABILITIES, LABEL_SETS)
    for i, (row, column) in enumerate(np.ndindex(N, C)):
        p, label = SET_PROBABILITIES[row, column], LABEL_SETS[row, column]
        assert confidence[i] == (p if p >= 0.5 else 1 - p)
        assert right[i] == ((p >= 0.5) == label)


def test_intervals_equal_scipys_bootstrap_of_a_mean():
    right = (LABELS == PREDICTED).astype(float)
    found = measures.bootstrap_interval(measures.accuracy, LABELS, PREDICTED)
    expected = scipy.stats.bootstrap(
        (right,), np.mean, n_resamples=2000, method="percentile", rng=1
    ).confidence_interval
    assert found.value == pytest.approx(right.mean())
    np.testing.assert_allclose(found[1:], expected, atol=0.01)
    again = measures.bootstrap_interval(measures.accuracy, LABELS, PREDICTED)
    assert found == again
    narrow = measures.bootstrap_interval(
        measures.accuracy, LABELS, PREDICTED, confidence=0.5
    )
    assert found.low < narrow.low < narrow.high < found.high


def test_a_difference_is_paired():
    """Two methods that differ in one item: an interval much narrower than either's."""
    theirs = PREDICTED.copy()
    theirs[np.flatnonzero(LABELS == PREDICTED)[0]] = 3
    found = measures.bootstrap_difference(
        measures.accuracy, LABELS, PREDICTED, theirs, samples=500
    )
    assert found.value == pytest.approx(1 / N)
    assert 0 <= found.low and found.high < 5 / N
    swapped = measures.bootstrap_difference(
        measures.accuracy, LABELS, theirs, PREDICTED, samples=500
    )
    np.testing.assert_allclose(swapped, [-found.value, -found.high, -found.low])


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (3, 4), (40, 22), (700, 800)])
def test_mcnemar_equals_scipy(b, c):
    ours = np.repeat([True, False, True, False], [b, c, 7, 3])
    theirs = np.repeat([False, True, True, False], [b, c, 7, 3])
    exact = measures.mcnemar_exact(ours, theirs)
    assert exact[:2] == (b, c)
    coin = scipy.stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert exact.p_value == pytest.approx(coin, rel=1e-9)
    assert measures.mcnemar_exact(theirs, ours).p_value == exact.p_value
    square = measures.mcnemar_chi_square(ours, theirs)
    statistic = max(abs(b - c) - 1, 0) ** 2 / max(b + c, 1)
    assert square.p_value == pytest.approx(scipy.stats.chi2.sf(statistic, 1))


def test_mcnemar_of_many_items_stays_exact():
    ours = np.arange(40_000) % 2 == 0
    found = measures.mcnemar_exact(ours, ~ours)
    assert found == (20_000, 20_000, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measures.confusion_matrix([0, 1], [0], 2), r"\(2,\) and \(1,\)"),
        (lambda: measures.confusion_matrix([0, 2], [0, 1], 2), "between 0 and 1"),
        (lambda: measures.confusion_matrix([-1, 1], [0, 1], 2), "without a class"),
        (lambda: measures.confusion_matrix([0, 1], [0.5, 1], 2), "likeliest_class"),
        (lambda: measures.per_class([0, 1], [0, 1]), "^per_class expects num_classes"),
        (lambda: measures.macro_f1([0, 1], [0, 1]), "^macro_f1 expects num_classes"),
        (lambda: measures.accuracy([0, 1], [[0, 1]]), r"\(2,\) and \(1, 2\)"),
        (lambda: measures.label_counts([[2]], [[1]]), "labels of 0 and 1"),
        (lambda: measures.likeliest_class([[-3.0, 4.0]]), "Apply softmax"),
        (lambda: measures.likely_labels([0.5]), r"shape \(1,\)"),
        (lambda: measures.reliability_bins([2.0], [True]), "between 0 and 1"),
        (lambda: measures.reliability_bins([], []), r"\(0,\)"),
        (lambda: measures.bootstrap_interval(len, [1], [1, 2]), "the same items"),
        (lambda: measures.bootstrap_interval(len, [1], samples=0), "samples >= 1"),
        (lambda: measures.mcnemar_exact([1], [0, 1]), r"\(1,\) and \(2,\)"),
        (lambda: measures.mcnemar_chi_square([3], [0]), "True and False"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
