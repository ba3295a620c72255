"""A checkpoint against a split: metrics, curves and a page of examples."""

import contextlib
import json
import pathlib
from collections.abc import Iterator

import numpy as np

from modal_aware_jax.build import Experiment
from modal_aware_jax.hashing.codes import binarize, pack
from modal_aware_jax.modes.encoder import Encoder, lower_maps, variables_of
from modal_aware_jax.modes.reading import check_reading
from modal_aware_jax.report import write_report
from modal_aware_jax.retrieval.code_health import code_health
from modal_aware_jax.retrieval.codes_file import read_codes
from modal_aware_jax.retrieval.evaluate import evaluate, evaluate_parts
from modal_aware_jax.retrieval.label_scores import average_precision_by_labels
from modal_aware_jax.retrieval.top_k import search
from modal_aware_jax.training.checkpoint import load_model
from modal_aware_jax.training.errors import DataError
from modal_aware_jax.training.processes import is_first
from modal_aware_jax.training.workdir import explain_write_errors

NUM_EXAMPLES = 8
NUM_RESULTS = 10


def load_run(experiment: Experiment, workdir: pathlib.Path, step="latest"):
    """Fills the experiment's model from a run's checkpoint -> the run's record."""
    check_reading(experiment, workdir)
    return load_model(experiment.model, workdir / "checkpoints", step=step)


def evaluate_run(experiment: Experiment, workdir: pathlib.Path, *, step="latest"):
    """Evaluates a run's checkpoint on its test queries and writes its report.

    Args:
      experiment: built from the config the run was trained with.
      workdir: the run's directory.
      step: 'latest' (the default and the protocol), 'best' or a step.
    """
    record = load_run(experiment, workdir, step)
    encoder = Encoder(experiment, lower_maps(experiment))
    variables = variables_of(experiment.model)
    return report_run(experiment, encoder, variables, workdir, record.get("history"))


def report_run(experiment, encoder, variables, workdir, history=None) -> dict:
    """Encodes queries and database once and writes `report/` and the codes.

    Returns:
      `retrieval.evaluate.evaluate_parts`' result for the test queries; an empty dict
      in all processes but the first, which writes.
    """
    pairs, parts = experiment.collection, experiment.split
    with explain_read_errors(workdir):
        relaxed = [
            encoder.relaxed(variables, some, label=f"encode the {name}")
            for name, some in (("queries", parts.query), ("database", parts.database))
        ]
        if not is_first():
            return {}
        query, database = (np.asarray(pack(binarize(some))) for some in relaxed)
        pages = list(examples(pairs, parts, query, database))
    trained = np.isin(parts.database, parts.train)
    labels = pairs.labels[parts.query], pairs.labels[parts.database]
    results = evaluate_parts(
        query, database, *labels, num_bits=experiment.num_bits, trained=trained
    )
    add_health(results, *map(np.tanh, relaxed), database, *labels, ~trained)
    directory = workdir / "report"
    with explain_write_errors(directory):
        write_report(
            directory,
            {experiment.name: results},
            examples=pages,
            title=f"{experiment.name} on {pairs.name}, {experiment.num_bits} bits",
        )
        np.savez_compressed(
            workdir / "codes.npz",
            query=query,
            database=database,
            query_ids=pairs.ids[parts.query],
            database_ids=pairs.ids[parts.database],
            query_labels=pairs.labels[parts.query],
            database_labels=pairs.labels[parts.database],
            database_trained=trained,
            num_bits=experiment.num_bits,
        )
        if history:
            text = json.dumps({"history": history}, indent=1)
            (directory / "history.json").write_text(text)
    return results


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


@contextlib.contextmanager
def explain_read_errors(workdir: pathlib.Path) -> Iterator[None]:
    """Turns what cannot be read during an evaluation into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The evaluation failed: {type(error).__name__}: {error}. The checkpoints "
            f"in {workdir} are untouched: when the cause is mended, give the same "
            "command again."
        ) from error


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


def shown(pairs, position) -> tuple[bytes, str, list[str]]:
    """Image, caption and label names of a pair."""
    labels = [
        name
        for name, has in zip(pairs.label_names, pairs.labels[position], strict=True)
        if has
    ]
    return pairs.images[int(position)], pairs.captions[int(position)], labels


def evaluate_codes_file(path: pathlib.Path, workdir: pathlib.Path) -> dict:
    """Evaluates codes made elsewhere and writes `report/` without examples.

    Args:
      path: an `.npz` file as `retrieval.read_codes` describes it.
      workdir: where the report goes.
    """
    codes = read_codes(path)
    results = evaluate(
        codes.query,
        codes.database,
        codes.query_labels,
        codes.database_labels,
        num_bits=codes.num_bits,
    )
    results["health"] = code_health(codes.database, codes.num_bits)
    write_report(
        workdir / "report", {path.stem: results}, title=f"Codes of {path.name}"
    )
    return results
