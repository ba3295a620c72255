"""One pass over the database gives everything a report shows."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from modal_aware_jax.retrieval.graded import ndcg_at
from modal_aware_jax.retrieval.inputs import check_inputs
from modal_aware_jax.retrieval.interpolated import expected_curve
from modal_aware_jax.retrieval.lookup import lookup_of_counts
from modal_aware_jax.retrieval.metrics import (
    check_ns,
    expected_average_precision,
    expected_relevant_at,
    pooled_precision_recall,
    ranked_average_precision,
)
from modal_aware_jax.retrieval.order import map_ranked
from modal_aware_jax.retrieval.ranking import iterate_counts


class Part(NamedTuple):
    """A part of the database that is scored by itself.

    Attributes:
      name: its key in `evaluate_parts`' result.
      title: what reports call it.
    """

    name: str
    title: str


# By the papers' protocols the training pairs lie in the database: what a network
# remembers of them and what it makes of new items are two scores.
PARTS = (Part("seen", "trained pairs"), Part("unseen", "unseen pairs"))


def evaluate_parts(
    query, database, query_labels, database_labels, *, num_bits: int, trained
) -> dict:
    """`evaluate` over the whole database, over its training pairs and over the others.

    >>> code = np.array([[0], [1], [3]], np.uint32)
    >>> result = evaluate_parts(code[:1], code, [1], [1, 0, 1], num_bits=2,
    ...                         trained=[True, True, False])
    >>> result["seen"]["map_expected"], result["unseen"]["num_database"]
    (1.0, 1)

    Args:
      query, database, query_labels, database_labels, num_bits: as for `evaluate`.
      trained: bool [N], whether an item of the database was trained on.

    Returns:
      `evaluate`'s dict of the whole database, with `seen` and `unseen`, the same dict
      of either part; a part without items is left out.

    Raises:
      ValueError: `trained` is not [N].
    """
    database, labels = np.asarray(database), np.asarray(database_labels)

    def of(rows, part):
        del part
        own = database[rows], query_labels, labels[rows]
        return evaluate(query, *own, num_bits=num_bits)

    return over_parts("evaluate_parts", trained, len(database), of)


def over_parts(function: str, trained, num_items: int, of: Callable) -> dict:
    """What `of` finds in a whole database, and under their names in its two parts.

    >>> over_parts("f", [True, False], 2, lambda rows, part: {"of": part})
    {'of': '', 'seen': {'of': 'seen'}, 'unseen': {'of': 'unseen'}}

    Args:
      function: the name in the message.
      trained: bool [N], whether an item was trained on.
      num_items: N.
      of: `of(rows, part)` -> dict; `part` is '' for the whole.

    Raises:
      ValueError: `trained` is not [N].
    """
    trained = np.asarray(trained, bool)
    if trained.shape != (num_items,):
        raise ValueError(
            f"{function}: trained says of each of the {num_items} items of the "
            f"database whether it was trained on, got shape {trained.shape}."
        )
    whole = of(slice(None), "")
    for part, rows in zip(PARTS, (trained, ~trained), strict=True):
        if rows.any():
            whole[part.name] = of(rows, part.name)
    return whole


def evaluate(
    query,
    database,
    query_labels,
    database_labels,
    *,
    num_bits: int,
    ns=(1, 5, 10, 50, 100, 500, 1000),
) -> dict:
    """All metrics of one experiment; a query with nothing relevant counts 0.

    >>> code = np.array([[0], [1], [3]], np.uint32)
    >>> result = evaluate(code[:1], code, [1], [1, 0, 1], num_bits=2, ns=(1, 2))
    >>> round(result["map_expected"], 4), result["precision_at"]
    (0.8333, {1: 1.0, 2: 0.5})

    Args:
      query, database: uint32 [Q, Wd], [N, Wd] packed codes.
      query_labels, database_labels: 0/1 [Q, L], [N, L], or class numbers [Q], [N].
      num_bits: K.
      ns: where precision and recall are taken.

    Returns:
      dict of
        map_expected, map_index: MAP over all ranks under both rules for ties;
        average_precision: float64 [Q], 'expected';
        precision_at, recall_at, ndcg_at: {n: value}, 'expected';
        interpolated_precision: float64 [11], 'expected', at recall 0, 0.1, ..., 1;
        radius_precision, radius_recall: float64 [K + 1], pooled over queries;
        lookup_success, lookup_precision: of all items within radius 2;
        num_queries, num_database, num_bits, queries_without_relevant.
    """
    ns = check_ns("evaluate", ns)
    inputs = check_inputs(
        "evaluate", query, database, query_labels, database_labels, num_bits
    )
    if not inputs.num_queries:
        raise ValueError("evaluate: there are no queries, shape [0, Wd].")
    ap = np.zeros(inputs.num_queries)
    found = np.zeros((inputs.num_queries, len(ns)))
    total = np.zeros(inputs.num_queries, np.int64)
    lookup = np.zeros((inputs.num_queries, 3))
    curve = np.zeros((inputs.num_queries, 11))
    pooled = np.zeros((2, num_bits + 1), np.int64)
    cut = np.minimum(ns, inputs.num_database)
    for queries, counts in iterate_counts(inputs):
        count, relevant = counts.sum(axis=1), counts[:, 1]
        ap[queries] = expected_average_precision(count, relevant)
        found[queries] = expected_relevant_at(count, relevant, cut)
        total[queries] = relevant.sum(axis=1)
        lookup[queries] = lookup_of_counts(count, relevant, radius=2)
        curve[queries] = expected_curve(count, relevant)
        pooled += counts.sum(axis=0)
    precision, recall = pooled_precision_recall(
        pooled.sum(axis=0), pooled[1], pooled[1].sum()
    )

    def one(ranked, totals):
        return ranked_average_precision(ranked, totals[1])

    by_n = (found / cut).mean(axis=0)
    share = (found / np.maximum(total, 1)[:, None]).mean(axis=0)
    ndcg = ndcg_at(
        query, database, query_labels, database_labels, num_bits=num_bits, ns=ns
    )
    keys = [int(n) for n in ns]
    return {
        "map_expected": float(ap.mean()),
        "map_index": float(np.mean(map_ranked(inputs, one))),
        "average_precision": ap,
        "precision_at": dict(zip(keys, by_n.tolist(), strict=True)),
        "recall_at": dict(zip(keys, share.tolist(), strict=True)),
        "ndcg_at": dict(zip(keys, ndcg.tolist(), strict=True)),
        "interpolated_precision": curve.mean(axis=0),
        "radius_precision": precision,
        "radius_recall": recall,
        "lookup_success": float(lookup[:, 0].mean()),
        "lookup_precision": float(lookup[:, 1].mean()),
        "num_queries": inputs.num_queries,
        "num_database": inputs.num_database,
        "num_bits": num_bits,
        "queries_without_relevant": int(np.count_nonzero(total == 0)),
    }


def mean_evaluation(results: list[dict]) -> dict:
    """The mean over seeds of what tables and curves show of `evaluate_parts`' results.

    At radii where one seed finds nothing relevant the precision is no mean of the same
    thing; recall is set to 0 there, which draws no point.
    """
    names = [part.name for part in PARTS]
    first = {key: value for key, value in results[0].items() if key not in names}
    for part in names:
        if all(part in result for result in results):
            first[part] = mean_evaluation([result[part] for result in results])
    if all("map_unbinarised" in result for result in results):
        scores = [result["map_unbinarised"] for result in results]
        first["map_unbinarised"] = float(np.mean(scores))
    if all("health" in result for result in results):
        first["health"] = {
            key: _mean([r["health"][key] for r in results]) for key in first["health"]
        }
    recall = np.array([result["radius_recall"] for result in results])
    found = (recall > 0).all(axis=0)
    ns = results[0]["precision_at"]
    return first | {
        "map_expected": float(np.mean([r["map_expected"] for r in results])),
        "map_index": float(np.mean([r["map_index"] for r in results])),
        "precision_at": {
            n: float(np.mean([r["precision_at"][n] for r in results])) for n in ns
        },
        "radius_precision": np.mean([r["radius_precision"] for r in results], axis=0),
        "radius_recall": np.where(found, recall.mean(axis=0), 0.0),
    }


def _mean(values):
    """Of counts a whole number where it is one."""
    mean = float(np.mean(values))
    whole = mean.is_integer() and all(isinstance(x, int) for x in values)
    return int(mean) if whole else mean
