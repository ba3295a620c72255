"""Hashing without labels: codes that keep the neighbours of the frozen features.

What is near is told by the features that the network starts from, of both modalities:
`retrieval/neighbours.py`. Codes of a batch are ranked by average precision, relevance
falling from 1 for a training pair's nearest to 0 at the end of its list of neighbours
among the training pairs; and the code of an image alone picks that of its own text
alone, and the other way round (InfoNCE), so that either finds what the other would.

Scores are those of hashing with a query's ten nearest pairs as what is relevant, of the
part of the database that is searched.
"""

import dataclasses
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modal_aware_jax.experiment.inputs import drop_words
from modal_aware_jax.experiment.losses import LOSSES, loss_options
from modal_aware_jax.hashing.nested import check_lengths
from modal_aware_jax.losses.info_nce import info_nce
from modal_aware_jax.losses.soft_relevance import soft_relevance_ap_loss
from modal_aware_jax.report import format_results, write_report
from modal_aware_jax.report.shown import shown
from modal_aware_jax.retrieval.evaluate import PARTS, evaluate
from modal_aware_jax.retrieval.metrics import average_precision
from modal_aware_jax.retrieval.neighbours import (
    NUM_TRUE,
    as_labels,
    joint_vectors,
    nearest,
)
from modal_aware_jax.retrieval.top_k import search
from modal_aware_jax.tasks import hashing
from modal_aware_jax.tasks.frozen_features import frozen_features
from modal_aware_jax.tasks.task import Outcome, Task
from modal_aware_jax.training import devices
from modal_aware_jax.training.memory import NeighbourLists
from modal_aware_jax.training.processes import all_rows, is_first

LOSS = "expected_ap"
CROSS_WEIGHT, CROSS_SCALE = 1.0, 10.0  # of InfoNCE, and the inverse of its temperature
GREY = 128  # stands for a missing image, as in `modes/search.py`
MAX_CELLS = 2**28  # queries x database: of larger ones some queries are scored
SHOWN_AT = (10, 100, 1000)
RELEVANT = f"is one of the query's {NUM_TRUE} nearest by the frozen features"


def neighbours() -> Task:
    """The task, with the neighbours of one experiment in it."""
    frozen = Frozen()
    return dataclasses.replace(
        hashing.HASHING,
        check=lambda config, pairs: None,
        loss=frozen.loss,
        prepare=frozen.prepare,
        validate=frozen.validate,
        evaluate=frozen.evaluate,
        title=lambda run: f"{hashing.HASHING.title(run)}, no labels",
        write_report=_write_report,
        text=lambda results: "\n".join(
            [format_results(results), *map(told, results.values())]
        ),
    )


def list_length(num_train: int) -> int:
    """How many neighbours of a training pair are learned: a fiftieth, 10 to 200.

    >>> list_length(45), list_length(2000), list_length(10_000), list_length(8)
    (10, 40, 200, 7)
    """
    return min(max(num_train // 50, 10), 200, num_train - 1)


def told(result: dict) -> str:
    """What a report and the console say of an evaluation without labels."""
    lines = [
        "No labels were there: what is relevant to a query are its "
        f"{NUM_TRUE} nearest pairs by the frozen features of image and text."
    ]
    for name, title in (("", "the whole database"), *PARTS):
        part = result.get(name) if name else result
        if part:
            found = ", ".join(
                f"{part['recall_at'][k]:.1%} among the first {k:,}"
                for k in SHOWN_AT
                if k <= part["num_database"]
            )
            lines.append(f"Recall of them by code in {title}: {found}.")
    return " ".join(lines)


def _write_report(directory, results, **options):
    (result,) = results.values()
    return write_report(
        directory, results, note=told(result), relevant=RELEVANT, **options
    )


class Frozen:
    """The features that a network starts from, and who is whose neighbour by them."""

    def __init__(self):
        self._backbone = self._vectors = None

    def loss(self, config, pairs, parts, network, joint) -> Callable:
        """`loss(model, batch, key)`; gives the network its lists of neighbours."""
        if config.loss.name != LOSS:
            raise ValueError(
                f"{pairs.name} has no labels, which the loss {config.loss.name} needs: "
                f"without them take --config.loss.name={LOSS}, or name the column that "
                "holds them with --config.data.options.label_column=NAME."
            )
        if hasattr(network, "backbone"):  # before anything is trained
            graphdef, state = nnx.split(network.backbone)
            self._backbone = graphdef, nnx.to_pure_dict(state)
        network.memory = NeighbourLists(len(parts.train), list_length(len(parts.train)))
        row_of = np.zeros(len(pairs), np.int32)
        row_of[parts.train] = np.arange(len(parts.train))
        weight = loss_options(config.loss, LOSSES)["weight"]
        lengths = check_lengths(
            config.model.get("nested_bits", ()), config.model.num_bits
        )
        reads_both = hasattr(network, "backbone") and hasattr(network, "text")
        word_dropout = config.training.word_dropout

        def training_loss(model, batch, key):
            words, window, dropout = jax.random.split(key, 3)
            text = batch["text"]
            if word_dropout:
                text = drop_words(words, text, word_dropout)
            rngs = nnx.Rngs(dropout=dropout)
            vectors = joint(model, batch, text, train=True, window=window, rngs=rngs)
            h = jnp.tanh(model.head(vectors))
            relevance = model.memory(jnp.asarray(row_of)[batch["index"]])
            value = sum(
                soft_relevance_ap_loss(h[:, :bits], relevance) for bits in lengths
            )
            value *= weight / len(lengths)
            if reads_both:
                value += CROSS_WEIGHT * _across(model, batch, joint)
            return value

        return training_loss

    def prepare(self, experiment, maps) -> None:
        """Finds the neighbours of the training pairs, and gives them to the model."""
        pairs, train = experiment.collection, experiment.split.train
        self._vectors = joint_vectors(
            frozen_features(experiment, maps, self._backbone), train
        )
        own = self._vectors[train]
        length = experiment.model.memory.rows[...].shape[1]
        lists = nearest(own, own, length, own=np.arange(len(train)))
        experiment.model.memory.rows[...] = jnp.asarray(lists)
        if is_first():
            print(
                f"{pairs.name}: no labels. Codes learn to keep the {length} nearest of "
                f"{len(train):,} training pairs by the frozen features of image and "
                "text.",
                file=sys.stderr,
            )

    def _relevant(self, queries, database):
        """Labels that the true neighbours share with their query alone."""
        vectors = self._vectors
        number = min(NUM_TRUE, len(database))
        found = nearest(vectors[queries], vectors[database], number)
        return as_labels(found, len(database))

    def validate(self, experiment, outputs: dict) -> dict[str, float]:
        """MAP of the validation queries' neighbours among what they search."""
        queries, searched = hashing.validation(experiment).values()
        number, count = devices.share()
        own, labels = self._relevant(queries[number::count], searched)
        scores = average_precision(
            hashing.packed(outputs["queries"])[number::count],
            hashing.packed(outputs["database"]),
            own,
            labels,
            num_bits=experiment.num_bits,
        )
        return {"map": all_rows(scores).mean()}

    def evaluate(self, experiment, outputs: dict) -> Outcome:
        """As `hashing.evaluate`, of neighbours, each part of the database by itself."""
        pairs, parts = experiment.collection, experiment.split
        query = hashing.packed(outputs["queries"])
        database = hashing.packed(outputs["database"])
        trained = np.isin(parts.database, parts.train)
        asked = slice(0, max(MAX_CELLS // len(database), 1))
        relaxed = [np.tanh(outputs[name]) for name in ("queries", "database")]

        def one(rows):
            own, labels = self._relevant(parts.query[asked], parts.database[rows])
            result = evaluate(
                query[asked], database[rows], own, labels, num_bits=experiment.num_bits
            )
            hashing.add_health(
                result,
                relaxed[0][asked],
                relaxed[1][rows],
                database[rows],
                own,
                labels,
                np.zeros(len(labels), bool),
            )
            return result

        result = one(np.arange(len(database)))
        for part, rows in zip(PARTS, (trained, ~trained), strict=True):
            if rows.any():
                result[part.name] = one(np.flatnonzero(rows))
                del result[part.name]["health"]
        arrays = {
            "query": query,
            "database": database,
            "query_ids": pairs.ids[parts.query],
            "database_ids": pairs.ids[parts.database],
            "database_trained": trained,
            "num_bits": experiment.num_bits,
        }
        return Outcome(
            result, arrays, list(self._examples(pairs, parts, query, database))
        )

    def _examples(self, pairs, parts, query, database):
        number = min(hashing.NUM_EXAMPLES, len(query))
        chosen = np.linspace(0, len(query) - 1, number).astype(int)
        distances, ids = search(query[chosen], database, hashing.NUM_RESULTS)
        _, labels = self._relevant(parts.query[chosen], parts.database)
        for row, position in enumerate(parts.query[chosen]):
            found = zip(
                parts.database[ids[row]],
                distances[row].tolist(),
                labels[ids[row], row].astype(bool).tolist(),
                strict=True,
            )
            yield {
                "query": shown(pairs, position),
                "results": [(*shown(pairs, f), d, r) for f, d, r in found],
            }


def _across(model, batch, joint):
    """InfoNCE between codes of images alone and of their texts alone.

    Of half of the batch, and in evaluation mode: statistics of a batch without images
    or without texts are none of the network's.
    """
    half = max(len(batch["text"]) // 2, 1)
    image, text = batch["image"][:half], jnp.asarray(batch["text"][:half])
    blank = GREY if image.dtype == jnp.uint8 else 0
    there = jnp.arange(2 * half) < half
    alone = {
        "image": jnp.concatenate([image, jnp.full_like(image, blank)]),
        "has_image": there,
        "has_text": ~there,
    }
    words = jnp.concatenate([jnp.zeros_like(text), text])
    codes = jnp.tanh(model.head(joint(model, alone, words, train=False)))
    mask = jnp.any(text != 0, axis=1)
    if "has_image" in batch:
        mask &= jnp.asarray(batch["has_image"][:half], bool)
    return info_nce(codes[:half], codes[half:], scale=CROSS_SCALE, mask=mask)
