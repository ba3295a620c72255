"""Matching by labels: an image finds texts, a text images, that share a label with it.

The networks, losses and training are those of `tasks.matching`, of one text an image,
such as its tags. Test queries of either side search the other side of the database, as
`tasks.hashing` splits it, and precision counts what shares a label.
"""

import functools

import numpy as np

from modal_aware_jax.data.labels import need_labels
from modal_aware_jax.experiment.matchers import LABEL_LOSSES, LABEL_MATCHERS, network
from modal_aware_jax.report.label_matches import (
    format_label_matches,
    write_label_matches,
)
from modal_aware_jax.retrieval.evaluate import PARTS
from modal_aware_jax.retrieval.evaluate_embeddings import evaluate_embedding_parts
from modal_aware_jax.retrieval.evaluate_matching import DIRECTIONS
from modal_aware_jax.retrieval.label_scores import mean_average_precision_by_labels
from modal_aware_jax.retrieval.rerank import first_found, first_in_order, score_once
from modal_aware_jax.tasks import hashing, matching
from modal_aware_jax.tasks.label_comparison import COMPARISON
from modal_aware_jax.tasks.task import Outcome, Task

TEXTS = ("word_tokens", *matching.TEXTS)
NUM_EXAMPLES = 6  # queries shown of each direction
NUM_RESULTS = 5


def check(config, pairs) -> None:
    """Refuses pairs without labels, items without words, several sentences an item."""
    need_labels(pairs)
    if config.data.text not in TEXTS:
        raise ValueError(
            "The task label_matching reads the words or the one sentence of an image: "
            "set --config.data.text=word_tokens (a vector a word), sentences or "
            f"word_pieces_by_line, got {config.data.text!r}."
        )
    rows = np.array([caption.count("\n") for caption in pairs.captions[:]])
    if rows.any():
        raise ValueError(
            f"The task label_matching has one text an image, but {(rows > 0).sum():,} "
            f"images of {pairs.name} have several, such as {pairs.ids[rows.argmax()]}. "
            "Set --config.task=matching."
        )
    if config.data.text == "word_tokens":
        empty = ~np.asarray(pairs.text).any(axis=1)
    else:
        empty = np.array([not caption.strip() for caption in pairs.captions[:]])
    if empty.any():
        raise ValueError(
            f"The task label_matching needs words, but {empty.sum():,} images of "
            f"{pairs.name} have none that is known, such as {pairs.ids[empty.argmax()]}"
            ". Leave them out."
        )


def embeddings_of(experiment, positions, outputs: np.ndarray):
    """Outputs of images -> images [N, F], texts [N, F] and whose they are [N]."""
    features = experiment.config["model"]["features"]
    both = outputs[:, :features], outputs[:, features : 2 * features]
    return *both, np.arange(len(positions))


def _sides(experiment, outputs: dict):
    """By direction: embeddings of the queries and of what they search."""
    own, other = (
        embeddings_of(experiment, outputs[name], outputs[name])[:2]
        for name in ("queries", "database")
    )
    return dict(zip(DIRECTIONS, zip(own, other[::-1], strict=True), strict=True))


def validate(experiment, outputs: dict) -> dict[str, float]:
    """MAP of the validation queries both ways, and their mean."""
    labels = [experiment.collection.labels[x] for x in _validation(experiment)]
    scores = {
        way: mean_average_precision_by_labels(*sides, *labels)
        for way, sides in _sides(experiment, outputs).items()
    }
    return {"map": float(np.mean(list(scores.values()))), **scores}


def _validation(experiment):
    return hashing.validation(experiment).values()


def _unseen(parts) -> np.ndarray:
    """Rows of the database that were not trained on."""
    return np.flatnonzero(~np.isin(parts.database, parts.train))


def second(experiment, outputs: dict, scorer) -> dict:
    """The first `retrieval.rerank` of each test query, ordered by a second score.

    Those of the whole database and those of what was not trained on, by direction.
    """
    options = experiment.config.get("retrieval", {})
    if not options.get("rerank"):
        return {}
    parts = experiment.split
    score = scorer(np.concatenate([parts.query, parts.database]))
    found = {
        (way, part): _candidates(query, database, rows, options["rerank"])
        for way, (query, database) in _sides(experiment, outputs).items()
        for part, rows in (("", slice(None)), ("unseen", _unseen(parts)))
        if len(database[rows])
    }
    pairs, own = [], np.arange(len(parts.query))[:, None]
    for (way, _), (_, rows, _) in found.items():
        sides = own, len(own) + rows
        pairs.append(sides if way == DIRECTIONS[0] else sides[::-1])
    result = {way: {} for way in DIRECTIONS}
    every = zip(found.items(), score_once(pairs, score), strict=True)
    for ((way, part), (rows, _, cosines)), new in every:
        result[way][part] = rows, score.scale * cosines + options["rerank_weight"] * new
    return {"reranked": result}


def _candidates(query, database, rows, k):
    """Rows of a part and of the whole database, and cosines, [Q, k] each."""
    own, cosines = first_found(query, database[rows], k)
    return own, np.arange(len(database))[rows][own], cosines


def evaluate(experiment, outputs: dict) -> Outcome:
    """All that a report says of the test queries, both ways, and their embeddings."""
    pairs, parts = experiment.collection, experiment.split
    trained = np.isin(parts.database, parts.train)
    labels = pairs.labels[parts.query], pairs.labels[parts.database]
    reranked, result, examples = outputs.get("reranked", {}), {}, []
    sides = _sides(experiment, outputs)
    for way, both in sides.items():
        again = reranked.get(way)
        result[way] = evaluate_embedding_parts(
            *both, *labels, trained=trained, reranked=again
        )
        if again is not None:
            own = evaluate_embedding_parts(*both, *labels, trained=trained)
            named = {part.name: own[part.name] for part in PARTS if part.name in own}
            before = {name: _scores(one) for name, one in named.items()}
            result[way]["embeddings"] = _scores(own) | before
        examples.append(_examples(pairs, parts, way, *both, labels, again))
    arrays = {
        "query_images": sides[DIRECTIONS[0]][0],
        "query_texts": sides[DIRECTIONS[1]][0],
        "database_images": sides[DIRECTIONS[1]][1],
        "database_texts": sides[DIRECTIONS[0]][1],
        "query_ids": pairs.ids[parts.query],
        "database_ids": pairs.ids[parts.database],
        "query_labels": labels[0],
        "database_labels": labels[1],
        "database_trained": trained,
    }
    return Outcome(result, arrays, examples)


def _scores(result):
    return {key: result[key] for key in ("map", "map_at_r", "precision_at")}


def _examples(pairs, parts, way, query, database, labels, again):
    """Some queries of a direction with what they find: (heading, [dict])."""
    some = np.linspace(0, len(query) - 1, min(NUM_EXAMPLES, len(query))).astype(int)
    first = None if again is None else [side[some] for side in again[""]]
    rows, values = first_in_order(query[some], database, NUM_RESULTS, first)
    asks_image = way == DIRECTIONS[0]

    def shown(position, is_image):
        image = pairs.images[int(position)] if is_image else None
        return image, pairs.captions[int(position)]

    searches = []
    for number, row in enumerate(some):
        relevant = (labels[1][rows[number]] & labels[0][row]).any(axis=1)
        found = zip(rows[number], values[number], relevant, strict=True)
        results = [
            (*shown(parts.database[i], not asks_image), float(value), bool(right))
            for i, value, right in found
        ]
        asked = shown(parts.query[row], asks_image)
        searches.append({"query": asked, "results": results})
    heading = "Images ask for texts" if asks_image else "Texts ask for images"
    return heading, searches


LABEL_MATCHING = Task(
    name="label_matching",
    methods=LABEL_MATCHERS,
    losses=LABEL_LOSSES,
    check=check,
    num_outputs=lambda config, pairs: config.model.features,
    network=network,
    solve=matching.solve,
    loss=functools.partial(matching.training_loss, LABEL_MATCHERS, LABEL_LOSSES),
    output=matching.output,
    pairs=matching.pairs,
    second=second,
    validation=hashing.validation,
    validate=validate,
    score="map",
    test=hashing.test,
    evaluate=evaluate,
    embeddings=embeddings_of,
    arrays_file="embeddings.npz",
    title=lambda experiment: (
        f"{experiment.name} on {experiment.collection.name}, relevance by labels"
    ),
    write_report=write_label_matches,
    text=format_label_matches,
    comparison=COMPARISON,
)
