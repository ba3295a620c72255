"""Exact, tie-aware retrieval metrics and Hamming search."""

from modal_aware_jax.retrieval.evaluate import evaluate
from modal_aware_jax.retrieval.metrics import (
    average_precision,
    mean_average_precision,
    precision_at,
    precision_recall_by_radius,
    recall_at,
)

__all__ = [
    "average_precision",
    "evaluate",
    "mean_average_precision",
    "precision_at",
    "precision_recall_by_radius",
    "recall_at",
]
