"""From probabilities to decisions, and how often which class was decided for which."""

import numpy as np


def likeliest_class(probabilities: np.ndarray) -> np.ndarray:
    """The class of the highest probability, [N, C] to int64 [N]; the first of equals.

    Example:
      >>> likeliest_class(np.array([[0.2, 0.8], [0.5, 0.5]])).tolist()
      [1, 0]
    """
    probabilities = check_probabilities("likeliest_class", probabilities)
    return probabilities.argmax(axis=1)


def likely_labels(probabilities: np.ndarray, *, threshold: float = 0.5) -> np.ndarray:
    """Every label of at least this probability, [N, L] to 0 and 1, uint8 [N, L].

    Example:
      >>> likely_labels(np.array([[0.2, 0.5], [0.1, 0.1]])).tolist()
      [[0, 1], [0, 0]]
    """
    probabilities = check_probabilities("likely_labels", probabilities)
    return (probabilities >= threshold).astype(np.uint8)


def confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, num_classes: int
) -> np.ndarray:
    """How many items of each class were given each class: int64 [C, C].

    Args:
      labels: [N] true classes, the rows.
      predicted: [N] classes, the columns.
      num_classes: C.

    Example:
      >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
      [[1, 1], [0, 1]]
    """
    labels, predicted = check_classes(
        "confusion_matrix", labels, predicted, num_classes
    )
    counts = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def label_counts(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Right and wrong decisions about each label: int64 [L, 2, 2].

    Entry [l, t, p] counts the items whose label l is t and was predicted to be p.

    Args:
      labels, predicted: [N, L] of 0 and 1.

    Example:
      >>> label_counts([[1, 0], [1, 1]], [[1, 0], [0, 1]]).tolist()
      [[[0, 0], [1, 1]], [[1, 0], [0, 1]]]
    """
    labels, predicted = check_label_sets("label_counts", labels, predicted)
    counts = np.empty((labels.shape[1], 2, 2), np.int64)
    for true in (0, 1):
        for said in (0, 1):
            counts[:, true, said] = ((labels == true) & (predicted == said)).sum(axis=0)
    return counts


def check_probabilities(caller: str, probabilities) -> np.ndarray:
    """The probabilities as float64 [N, C]; a ValueError where they are none."""
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or not probabilities.size:
        raise ValueError(
            f"{caller} expects probabilities [N, C] of at least one item, got shape "
            f"{probabilities.shape}."
        )
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
        raise ValueError(
            f"{caller} expects probabilities between 0 and 1, found "
            f"{probabilities.min()} to {probabilities.max()}. Apply softmax (one "
            f"class) or sigmoid (several labels) to logits first."
        )
    return probabilities


def check_classes(caller: str, labels, predicted, num_classes: int):
    """Both as int64 [N] of 0..C−1; a ValueError where they are not."""
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.ndim != 1 or labels.shape != predicted.shape or not labels.size:
        raise ValueError(
            f"{caller} expects two vectors [N] of classes of at least one item, got "
            f"shapes {labels.shape} and {predicted.shape}."
        )
    for name, classes in (("labels", labels), ("predicted", predicted)):
        if classes.dtype.kind not in "iu":
            raise ValueError(
                f"{caller} expects {name} as whole numbers, got {classes.dtype}. "
                f"likeliest_class makes them of probabilities."
            )
        if classes.min() < 0 or classes.max() >= num_classes:
            raise ValueError(
                f"{caller} expects {name} between 0 and {num_classes - 1}, found "
                f"{classes.min()} to {classes.max()}. Leave out items without a class."
            )
    return labels.astype(np.int64), predicted.astype(np.int64)


def check_label_sets(caller: str, labels, predicted):
    """Both as uint8 [N, L] of 0 and 1; a ValueError where they are not."""
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.ndim != 2 or labels.shape != predicted.shape or not labels.size:
        raise ValueError(
            f"{caller} expects two arrays [N, L] of labels of at least one item, got "
            f"shapes {labels.shape} and {predicted.shape}."
        )
    for name, marks in (("labels", labels), ("predicted", predicted)):
        if not ((marks == 0) | (marks == 1)).all():
            raise ValueError(
                f"{caller} expects {name} of 0 and 1, found other values. "
                f"likely_labels makes them of probabilities."
            )
    return labels.astype(np.uint8), predicted.astype(np.uint8)
