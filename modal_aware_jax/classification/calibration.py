"""Is a confidence of .8 right eight times in ten? Calibration in bins.

Source: Guo et al., "On Calibration of Modern Neural Networks" (arXiv:1706.04599,
eqs. 2-3).
"""

from typing import NamedTuple

import numpy as np

from modal_aware_jax.classification.counts import (
    check_classes,
    check_label_sets,
    check_probabilities,
    likeliest_class,
    likely_labels,
)


class ReliabilityBins(NamedTuple):
    """Bins of equal width over confidences; means of empty bins are NaN."""

    edges: np.ndarray  # float64 [bins + 1], 0 to 1
    count: np.ndarray  # int64 [bins]
    confidence: np.ndarray  # float64 [bins], mean within the bin
    accuracy: np.ndarray  # float64 [bins], share of right ones


def class_confidence(probabilities: np.ndarray, labels: np.ndarray):
    """How sure of its likeliest class each item is, and whether that is right.

    Args:
      probabilities: [N, C].
      labels: [N] true classes.

    Returns:
      (confidence float64 [N], right bool [N]).

    Example:
      >>> class_confidence(np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([1, 1]))
      (array([0.8, 0.6]), array([ True, False]))
    """
    probabilities = check_probabilities("class_confidence", probabilities)
    predicted = likeliest_class(probabilities)
    num_classes = probabilities.shape[1]
    labels, _ = check_classes("class_confidence", labels, predicted, num_classes)
    return probabilities.max(axis=1), predicted == labels


def label_confidence(probabilities: np.ndarray, labels: np.ndarray):
    """The same of several labels: each of the N·L is a decision for itself.

    Its confidence is max(p, 1 − p), so at least ½.

    Args:
      probabilities: [N, L].
      labels: [N, L] of 0 and 1.

    Returns:
      (confidence float64 [N·L], right bool [N·L]).

    Example:
      >>> label_confidence(np.array([[0.25, 0.75]]), np.array([[0, 0]]))
      (array([0.75, 0.75]), array([ True, False]))
    """
    probabilities = check_probabilities("label_confidence", probabilities)
    predicted = likely_labels(probabilities)
    labels, predicted = check_label_sets("label_confidence", labels, predicted)
    confidence = np.maximum(probabilities, 1 - probabilities)
    return confidence.ravel(), (labels == predicted).ravel()


def reliability_bins(
    confidence: np.ndarray, right: np.ndarray, *, num_bins: int = 15
) -> ReliabilityBins:
    """Mean confidence and accuracy in bins (0, 1/n], (1/n, 2/n], ...

    A confidence of 0 is in the first bin.

    Args:
      confidence: [N] between 0 and 1.
      right: [N], whether each prediction is right.
      num_bins: 15 in the paper.

    Example:
      >>> found = reliability_bins([0.9, 0.7, 0.5], [True, False, True], num_bins=2)
      >>> found.count.tolist(), found.accuracy.tolist()
      ([1, 2], [1.0, 0.5])
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, bool)
    if confidence.ndim != 1 or confidence.shape != right.shape or not right.size:
        raise ValueError(
            f"reliability_bins expects two vectors [N] of at least one prediction, got "
            f"shapes {confidence.shape} and {right.shape}."
        )
    if num_bins < 1 or not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise ValueError(
            f"reliability_bins expects confidences between 0 and 1 and at least one "
            f"bin, found {confidence.min()} to {confidence.max()} and {num_bins} bins."
        )
    edges = np.arange(num_bins + 1) / num_bins  # linspace is an ulp beside some k/n
    # The first edge at or above a confidence is the upper one of its bin.
    bins = np.clip(np.searchsorted(edges, confidence) - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)

    def mean(values):
        total = np.bincount(bins, values, minlength=num_bins)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    return ReliabilityBins(edges, count, mean(confidence), mean(right.astype(float)))


def expected_calibration_error(
    confidence: np.ndarray, right: np.ndarray, *, num_bins: int = 15
) -> float:
    """Σ over bins of their share of the items times |accuracy − mean confidence|.

    Args:
      confidence: [N] between 0 and 1, of `class_confidence` or `label_confidence`.
      right: [N], whether each prediction is right.
      num_bins: of equal width.

    Example:
      >>> round(expected_calibration_error([0.9, 0.9], [True, False]), 4)
      0.4
    """
    return calibration_error(reliability_bins(confidence, right, num_bins=num_bins))


def calibration_error(bins: ReliabilityBins) -> float:
    """The expected calibration error of predictions in bins."""
    gaps = np.abs(np.nan_to_num(bins.accuracy - bins.confidence))
    return float((bins.count * gaps).sum() / bins.count.sum())
