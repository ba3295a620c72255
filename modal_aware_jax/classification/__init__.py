"""Measures of classification: pure functions of NumPy arrays.

Classes are numbers, [N] of 0..C−1, or several labels an item, [N, L] of 0 and 1.
"""

from modal_aware_jax.classification.bootstrap import (
    Interval,
    bootstrap_difference,
    bootstrap_interval,
)
from modal_aware_jax.classification.calibration import (
    ReliabilityBins,
    class_confidence,
    expected_calibration_error,
    label_confidence,
    reliability_bins,
)
from modal_aware_jax.classification.counts import (
    confusion_matrix,
    label_counts,
    likeliest_class,
    likely_labels,
)
from modal_aware_jax.classification.mcnemar import (
    McNemar,
    mcnemar_chi_square,
    mcnemar_exact,
)
from modal_aware_jax.classification.scores import (
    PerClass,
    accuracy,
    label_accuracy,
    macro_f1,
    micro_f1,
    per_class,
)

__all__ = [
    "Interval",
    "McNemar",
    "PerClass",
    "ReliabilityBins",
    "accuracy",
    "bootstrap_difference",
    "bootstrap_interval",
    "class_confidence",
    "confusion_matrix",
    "expected_calibration_error",
    "label_accuracy",
    "label_confidence",
    "label_counts",
    "likeliest_class",
    "likely_labels",
    "macro_f1",
    "mcnemar_chi_square",
    "mcnemar_exact",
    "micro_f1",
    "per_class",
    "reliability_bins",
]
