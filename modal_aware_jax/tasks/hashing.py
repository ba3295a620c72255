"""Hashing: one code of K bits from a pair, by which a database is ranked."""

import functools

import numpy as np

from modal_aware_jax.data import protocol
from modal_aware_jax.data.labels import need_labels
from modal_aware_jax.experiment.lookup import choose
from modal_aware_jax.experiment.losses import LOSSES
from modal_aware_jax.experiment.methods import METHODS
from modal_aware_jax.hashing.codes import binarize, pack
from modal_aware_jax.report import format_results, write_report
from modal_aware_jax.report.curves import draw_precision_at, draw_precision_recall
from modal_aware_jax.report.health import health_markdown
from modal_aware_jax.report.page import write_page
from modal_aware_jax.report.published import NOTE, published
from modal_aware_jax.report.shown import shown
from modal_aware_jax.retrieval.code_health import code_health
from modal_aware_jax.retrieval.evaluate import PARTS, evaluate_parts, mean_evaluation
from modal_aware_jax.retrieval.label_scores import average_precision_by_labels
from modal_aware_jax.retrieval.metrics import average_precision
from modal_aware_jax.retrieval.top_k import search
from modal_aware_jax.tasks.joint_vector import head_loss, head_output
from modal_aware_jax.tasks.task import Comparison, Lead, Mean, Outcome, Task
from modal_aware_jax.training import devices
from modal_aware_jax.training.processes import all_rows

NUM_EXAMPLES = 8
NUM_RESULTS = 10
# Names of `training.validation_search`, and whether training pairs are left out.
SEARCHED = {"unseen": True, "database": False}
ARRAYS = ("average_precision", "radius_precision", "radius_recall")
BY_NUMBER = ("precision_at", "recall_at", "ndcg_at")


def packed(relaxed: np.ndarray) -> np.ndarray:
    """Relaxed bits [N, K] to packed codes, uint32 [N, Wd]."""
    return np.asarray(pack(binarize(relaxed)))


def validation_database(
    parts: protocol.Split, search: str = "unseen", size: int | None = None
) -> np.ndarray:
    """What the validation queries search.

    Args:
      parts: the split.
      search: 'unseen', the pairs of the database that are not trained on: choices made
        on training pairs favour what remembers them; or 'database', all of it. Where
        every other pair is trained on, the whole database is searched.
      size: draw so many of them; None takes all.

    Returns:
      Sorted positions in the collection; the validation queries are not among them.
    """
    searched = np.setdiff1d(parts.database, parts.validation)
    unseen = np.setdiff1d(searched, parts.train)
    if choose("training.validation_search", SEARCHED, search) and len(unseen):
        searched = unseen
    if size is None or size >= len(searched):
        return searched
    chosen = np.random.RandomState(0).permutation(len(searched))[:size]
    return np.sort(searched[chosen])


def validation(experiment) -> dict:
    """The validation queries and what they search."""
    searched = validation_database(
        experiment.split,
        experiment.validation_search,
        experiment.validation_database,
    )
    return {"queries": experiment.split.validation, "database": searched}


def validate(experiment, outputs: dict) -> dict[str, float]:
    """MAP of the validation queries."""
    labels = experiment.collection.labels
    queries, searched = validation(experiment).values()
    number, count = devices.share()  # of the queries, too
    scores = average_precision(
        packed(outputs["queries"])[number::count],
        packed(outputs["database"]),
        labels[queries[number::count]],
        labels[searched],
        num_bits=experiment.num_bits,
    )
    return {"map": all_rows(scores).mean()}


def test(experiment) -> dict:
    """The queries and the database, as the protocol has them."""
    return {"queries": experiment.split.query, "database": experiment.split.database}


def evaluate(experiment, outputs: dict) -> Outcome:
    """All that a report says of the test queries, and their codes."""
    pairs, parts = experiment.collection, experiment.split
    query, database = packed(outputs["queries"]), packed(outputs["database"])
    trained = np.isin(parts.database, parts.train)
    labels = pairs.labels[parts.query], pairs.labels[parts.database]
    results = evaluate_parts(
        query, database, *labels, num_bits=experiment.num_bits, trained=trained
    )
    relaxed = (np.tanh(outputs[name]) for name in ("queries", "database"))
    add_health(results, *relaxed, database, *labels, ~trained)
    arrays = {
        "query": query,
        "database": database,
        "query_ids": pairs.ids[parts.query],
        "database_ids": pairs.ids[parts.database],
        "query_labels": labels[0],
        "database_labels": labels[1],
        "database_trained": trained,
        "num_bits": experiment.num_bits,
    }
    return Outcome(results, arrays, list(examples(pairs, parts, query, database)))


def add_health(results, query, database, codes, query_labels, labels, unseen) -> None:
    """Adds `health` of the database's codes, and what their binarisation costs.

    Args:
      results: of `evaluate_parts`; changed in place.
      query, database: what was trained, tanh of the relaxed bits, [Q, K] and [N, K].
      codes: of the database, packed [N, Wd].
      query_labels, labels: 0/1 [Q, L], [N, L].
      unseen: bool [N], what was not trained on.
    """
    results["health"] = code_health(codes, results["num_bits"])
    for own, rows in ((results, slice(None)), (results.get("unseen"), unseen)):
        if own is not None:
            scores = average_precision_by_labels(
                query, database[rows], query_labels, labels[rows]
            )
            own["map_unbinarised"] = float(scores.mean())


def examples(pairs, parts, query, database):
    """A few queries with what they find, for the report's page."""
    chosen = np.linspace(0, len(query) - 1, min(NUM_EXAMPLES, len(query))).astype(int)
    distances, ids = search(query[chosen], database, NUM_RESULTS)
    for row, position in enumerate(parts.query[chosen]):
        found = parts.database[ids[row]]
        relevant = (pairs.labels[found] & pairs.labels[position]).any(axis=1)
        yield {
            "query": shown(pairs, position),
            "results": [
                (*shown(pairs, f), int(d), bool(r))
                for f, d, r in zip(found, distances[row], relevant, strict=True)
            ],
        }


def read(stored: dict) -> dict:
    """A result as JSON gives it back -> as `evaluate_parts` gave it."""
    result = _read_part(stored)
    for part in PARTS:
        if part.name in result:
            result[part.name] = _read_part(result[part.name])
    return result


def _read_part(stored):
    result = dict(stored)
    for key in ARRAYS:
        result[key] = np.asarray(result[key], float)
    for key in BY_NUMBER:
        values = result.get(key, {})
        result[key] = {int(n): float(value) for n, value in values.items()}
    for key in ("map_expected", "map_index"):
        result[key] = float(result[key])
    return result


def draw(directory, results: dict, bits: int) -> list:
    """Curves over the whole database, and over unseen pairs where they were scored.

    Args:
      directory: for the files.
      results: by method, those of its seeds.
      bits: K.
    """
    curves = []
    for part in ("", "unseen"):
        own = {
            name: [result[part] if part else result for result in some]
            for name, all_seeds in results.items()
            if (some := [r for r in all_seeds if not part or part in r])
        }
        means = {name: mean_evaluation(some) for name, some in own.items()}
        if not means:
            continue
        for name, draw_one, what in (
            ("precision_recall", draw_precision_recall, "Precision over recall"),
            ("precision_at", draw_precision_at, "Precision among the N nearest"),
        ):
            path = directory / f"{'_'.join(filter(None, (name, part)))}_{bits}.png"
            draw_one(means, path)
            where = f"{part} pairs, mean" if part else "mean"
            curves.append((f"{what} at {bits} bits, {where} over the seeds", path))
    return curves


def write(directory, results: dict, *, curves, title: str) -> None:
    """The page of a comparison, and the health of the codes."""
    (directory / "health.md").write_text(health_markdown(results))
    write_page(directory / "index.html", results, curves=curves, title=title)


def _of(part: str, name: str):
    """`of(result)`: a value of the result, or of its part."""

    def of(result):
        return (result.get(part, {}) if part else result).get(name)

    return of


COMPARISON = Comparison(
    columns=(
        Mean(
            "map",
            "MAP",
            _of("", "map_expected"),
            "MAP of the whole database, training pairs included (the papers' "
            "protocol):",
            "measured",
        ),
        Mean("map_index", "", _of("", "map_index")),
        Lead("", "", _of("", "average_precision")),
        Mean("map_seen", "MAP, trained pairs", _of("seen", "map_expected")),
        Mean(
            "map_unseen",
            "MAP, unseen pairs",
            _of("unseen", "map_expected"),
            "MAP of the pairs that were not trained on:",
            "measured, unseen pairs",
        ),
        Lead("unseen_", "unseen: ", _of("unseen", "average_precision")),
    ),
    items={
        "average_precision": ("average_precision",),
        "average_precision_unseen": ("unseen", "average_precision"),
        "average_precision_seen": ("seen", "average_precision"),
    },
    read=read,
    mean=mean_evaluation,
    draw=draw,
    write=write,
    by_bits=True,
    published=lambda data, method, bits: published(
        data.get("source", ""), method, bits, data.get("text", "bag")
    ),
    published_note=NOTE,
)

HASHING = Task(
    name="hashing",
    methods=METHODS,
    losses=LOSSES,
    check=lambda config, pairs: need_labels(pairs),
    num_outputs=lambda config, pairs: config.model.num_bits,
    loss=functools.partial(head_loss, LOSSES),
    output=head_output,
    code_of_pair=True,
    figures=("convergence", "latency", "codes", "attention", "statistics"),
    validation=validation,
    validate=validate,
    score="map",
    test=test,
    evaluate=evaluate,
    arrays_file="codes.npz",
    title=lambda experiment: (
        f"{experiment.name} on {experiment.collection.name}, {experiment.num_bits} bits"
    ),
    write_report=write_report,
    text=format_results,
    comparison=COMPARISON,
)
