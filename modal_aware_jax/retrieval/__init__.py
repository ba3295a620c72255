"""Exact, tie-aware retrieval metrics and Hamming search."""

from modal_aware_jax.retrieval.codes_file import (
    CodesFileError,
    read_codes,
    read_queries,
)
from modal_aware_jax.retrieval.embedding_index import EmbeddingIndex
from modal_aware_jax.retrieval.evaluate import evaluate
from modal_aware_jax.retrieval.graded import exponential_gain, linear_gain, ndcg_at
from modal_aware_jax.retrieval.index import HammingIndex
from modal_aware_jax.retrieval.index_file import IndexFileError
from modal_aware_jax.retrieval.interpolated import interpolated_precision
from modal_aware_jax.retrieval.lookup import HashLookup, cumulative_match, hash_lookup
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
    "CodesFileError",
    "EmbeddingIndex",
    "HammingIndex",
    "HashLookup",
    "IndexFileError",
    "average_precision",
    "cumulative_match",
    "evaluate",
    "exponential_gain",
    "hash_lookup",
    "interpolated_precision",
    "linear_gain",
    "mean_average_precision",
    "ndcg_at",
    "precision_at",
    "precision_recall_by_radius",
    "read_codes",
    "read_queries",
    "recall_at",
    "search",
    "search_sharded",
]
