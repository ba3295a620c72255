"""All that a report says of predictions, from probabilities and truth."""

import numpy as np

from modal_aware_jax.classification.bootstrap import bootstrap_interval
from modal_aware_jax.classification.calibration import (
    class_confidence,
    expected_calibration_error,
    label_confidence,
    reliability_bins,
)
from modal_aware_jax.classification.counts import confusion_matrix
from modal_aware_jax.classification.scores import (
    accuracy,
    label_accuracy,
    macro_f1,
    per_class,
)


def probabilities_of(logits: np.ndarray, one_class: bool) -> np.ndarray:
    """Logits [N, L] to probabilities, float64 [N, L]: softmax, or sigmoid.

    >>> probabilities_of(np.array([[0.0, 0.0]]), one_class=True).tolist()
    [[0.5, 0.5]]
    """
    logits = np.asarray(logits, np.float64)
    if not one_class:
        return 0.5 * (1 + np.tanh(logits / 2))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def scores(probabilities, truth, predicted) -> dict:
    """All scores of predictions.

    Args:
      probabilities: [N, L].
      truth, predicted: classes [N], or labels [N, L].

    Returns:
      dict of
        accuracy, accuracy_low, accuracy_high: with its bootstrap interval; of several
          labels all must be right;
        macro_f1, calibration_error; label_accuracy, of several labels;
        correct: float64 [N], 1 where the prediction is right;
        precision, recall, f1, support: of each class, [L];
        confusion: int64 [L, L], a row a true class; of one class alone;
        bin_count, bin_confidence, bin_accuracy: of the reliability diagram;
        num_items.
    """
    one_class = np.ndim(truth) == 1
    found = bootstrap_interval(accuracy, truth, predicted)
    confidence = class_confidence if one_class else label_confidence
    sure, right = confidence(probabilities, truth)
    bins = reliability_bins(sure, right)
    num_classes = probabilities.shape[1]
    correct = truth == predicted
    result = {
        "accuracy": found.value,
        "accuracy_low": found.low,
        "accuracy_high": found.high,
        "macro_f1": macro_f1(truth, predicted, num_classes),
        "calibration_error": expected_calibration_error(sure, right),
        "correct": (correct if one_class else correct.all(axis=1)).astype(float),
        **per_class(truth, predicted, num_classes)._asdict(),
        "bin_count": bins.count,
        "bin_confidence": bins.confidence,
        "bin_accuracy": bins.accuracy,
        "num_items": len(truth),
    }
    if one_class:
        result["confusion"] = confusion_matrix(truth, predicted, num_classes)
    else:
        result["label_accuracy"] = label_accuracy(truth, predicted)
    return result
