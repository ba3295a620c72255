"""Exact, tie-aware retrieval metrics and Hamming search."""

from modal_aware_jax.retrieval.evaluate import evaluate
from modal_aware_jax.retrieval.index import HammingIndex
from modal_aware_jax.retrieval.index_file import IndexFileError
from modal_aware_jax.retrieval.metrics import (
    average_precision,
    mean_average_precision,
    precision_at,
    precision_recall_by_radius,
    recall_at,
)
from modal_aware_jax.retrieval.sharded import search_sharded
from modal_aware_jax.retrieval.top_k import search

__all__ = [
    "HammingIndex",
    "IndexFileError",
    "average_precision",
    "evaluate",
    "mean_average_precision",
    "precision_at",
    "precision_recall_by_radius",
    "recall_at",
    "search",
    "search_sharded",
]
