"""Embeddings of one side that search those of another, relevance by labels: one pass.

What `evaluate` is for codes, for float rows that are compared by cosine: the whole
database, and apart from it what was trained on and what was not.
"""

import numpy as np

from modal_aware_jax.retrieval.by_rank import RANKS
from modal_aware_jax.retrieval.evaluate import over_parts
from modal_aware_jax.retrieval.label_scores import Ranking, map_queries
from modal_aware_jax.retrieval.metrics import (
    expected_average_precision,
    expected_relevant_at,
)
from modal_aware_jax.retrieval.rerank import put_first
from modal_aware_jax.retrieval.similarity import Similarity

NS = (1, 5, 10)


def evaluate_embeddings(
    query, database, query_labels, database_labels, *, reranked=None
) -> dict:
    """All measures of one direction; a query with nothing relevant counts 0.

    >>> gallery = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> result = evaluate_embeddings(gallery[:1], gallery, [1], [1, 0, 1])
    >>> round(result["map"], 4), result["precision_at"][1]
    (0.8333, 1.0)

    Args:
      query, database: float [Q, D], [N, D].
      query_labels, database_labels: 0/1 [Q, L], [N, L], or class numbers [Q], [N].
      reranked: rows of the database [Q, k] and the scores that put them first, [Q, k];
        None: ranked by the cosines alone.

    Returns:
      dict, with the expectation over the order inside ties, of
        map, map_at_r: means of AP over all ranks and of AP@R;
        average_precision: float64 [Q];
        precision_at: {1, 5, 10: value}, of the first n, divided by min(n, N);
        by_rank: dict of `ranks` [R], and pooled over queries `precision` and `recall`;
        num_queries, num_database, queries_without_relevant.
    """
    name = "evaluate_embeddings"
    similarity = Similarity(name, query, database)
    if not similarity.num_queries:
        raise ValueError(f"{name}: there are no queries, shape [0, D].")
    ranks = np.array([rank for rank in RANKS if rank <= similarity.num_gallery])
    at = np.minimum(NS, similarity.num_gallery)
    cut = np.concatenate([at, ranks])

    def one(ranking: Ranking):
        bins = ranking.bins()
        found = expected_relevant_at(*bins, cut)[0]
        ap = expected_average_precision(*bins)[0]
        return (ranking.total, ap, ranking.average_precision_at_r("expected"), *found)

    def reorder(rows, scores):
        return put_first(scores, *(np.asarray(side)[rows] for side in reranked))

    labels = query_labels, database_labels
    again = None if reranked is None else reorder
    each = np.array(map_queries(name, similarity, labels, one, again))
    total, ap, at_r, found = each[:, 0], each[:, 1], each[:, 2], each[:, 3:]
    by_n = (found[:, : len(NS)] / at).mean(axis=0)
    pooled = found[:, len(NS) :].sum(axis=0)
    return {
        "map": float(ap.mean()),
        "map_at_r": float(at_r.mean()),
        "average_precision": ap,
        "precision_at": dict(zip(NS, by_n.tolist(), strict=True)),
        "by_rank": {
            "ranks": ranks,
            "precision": pooled / (ranks * len(each)),
            "recall": pooled / max(total.sum(), 1),
        },
        "num_queries": len(each),
        "num_database": similarity.num_gallery,
        "queries_without_relevant": int(np.count_nonzero(total == 0)),
    }


def evaluate_embedding_parts(
    query, database, query_labels, database_labels, *, trained, reranked=None
) -> dict:
    """`evaluate_embeddings` over the whole database and over either part of it.

    Args:
      query, database, query_labels, database_labels: as there.
      trained: bool [N], whether an item of the database was trained on.
      reranked: by part, '' the whole, `seen` or `unseen`, what is put first there, rows
        counting the part's own; None, or a part that is not named: the cosines' order.

    Returns:
      its dict of the whole database, with `seen` and `unseen`, the same of either part;
      a part without items is left out.

    Raises:
      ValueError: `trained` is not [N].
    """
    database, labels = np.asarray(database), np.asarray(database_labels)
    reranked = reranked or {}

    def of(rows, part):
        again = reranked.get(part)
        own = database[rows], query_labels, labels[rows]
        return evaluate_embeddings(query, *own, reranked=again)

    return over_parts("evaluate_embedding_parts", trained, len(database), of)
