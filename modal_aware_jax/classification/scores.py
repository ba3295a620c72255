"""Accuracy, precision, recall and F1 of one class an item or of several labels.

Where a ratio has no items to count it is 0, as in scikit-learn with zero_division=0: a
class that is never predicted has precision 0, a class without items recall 0. Macro
means are over all classes there are, not only over those that occur.
"""

from typing import NamedTuple

import numpy as np

from modal_aware_jax.classification.counts import (
    check_label_sets,
    confusion_matrix,
    label_counts,
)


class PerClass(NamedTuple):
    """One number a class or label: float64 [C], the last int64 [C]."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray  # items that have the class


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The share of items whose prediction is right.

    Of several labels, [N, L], all must be right ("subset accuracy").

    Example:
      >>> accuracy([0, 1, 2, 2], [0, 1, 2, 0])
      0.75
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape or labels.ndim not in (1, 2) or not labels.size:
        raise ValueError(
            f"accuracy expects classes [N] or labels [N, L] twice, got shapes "
            f"{labels.shape} and {predicted.shape}."
        )
    right = labels == predicted
    return float((right if right.ndim == 1 else right.all(axis=1)).mean())


def label_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The share of right decisions among all N·L: one minus the Hamming loss.

    Example:
      >>> label_accuracy([[1, 0], [1, 1]], [[1, 0], [0, 1]])
      0.75
    """
    labels, predicted = check_label_sets("label_accuracy", labels, predicted)
    return float((labels == predicted).mean())


def _right_said_had(caller, labels, predicted, num_classes):
    """Items rightly given each class, given it, and having it."""
    if np.ndim(labels) == 2:
        counts = label_counts(labels, predicted)
        return counts[:, 1, 1], counts[:, :, 1].sum(axis=1), counts[:, 1].sum(axis=1)
    if num_classes is None:
        raise ValueError(
            f"{caller} expects num_classes with classes [N], got None: those that do "
            "not occur count as well."
        )
    matrix = confusion_matrix(labels, predicted, num_classes)
    return np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)


def _ratio(part, whole):
    return np.where(whole > 0, part / np.maximum(whole, 1), 0.0)


def per_class(
    labels: np.ndarray, predicted: np.ndarray, num_classes: int | None = None
) -> PerClass:
    """Precision, recall, F1 and number of items of each class.

    Args:
      labels, predicted: classes [N], or labels [N, L] of 0 and 1.
      num_classes: C; needed for classes.

    Example:
      >>> found = per_class([0, 0, 1], [0, 1, 1], 2)
      >>> found.precision.tolist(), found.recall.tolist(), found.support.tolist()
      ([1.0, 0.5], [0.5, 1.0], [2, 1])
    """
    right, said, had = _right_said_had("per_class", labels, predicted, num_classes)
    return PerClass(
        _ratio(right, said), _ratio(right, had), _ratio(2 * right, said + had), had
    )


def macro_f1(
    labels: np.ndarray, predicted: np.ndarray, num_classes: int | None = None
) -> float:
    """The mean of the classes' F1: rare classes count as much as frequent ones.

    Example:
      >>> round(macro_f1([0, 0, 1], [0, 1, 1], 2), 4)
      0.6667
    """
    right, said, had = _right_said_had("macro_f1", labels, predicted, num_classes)
    return float(_ratio(2 * right, said + had).mean())


def micro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """F1 of all N·L decisions for a label together; of labels [N, L] only.

    With one class an item it would be the accuracy.

    Example:
      >>> micro_f1([[1, 0], [1, 1]], [[1, 0], [0, 1]])
      0.8
    """
    check_label_sets("micro_f1", labels, predicted)
    right, said, had = _right_said_had("micro_f1", labels, predicted, None)
    return float(_ratio(2 * right.sum(), said.sum() + had.sum()))
