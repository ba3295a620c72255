"""Cross-modal codes: one code from an image, one from its text, in the same K bits.

Images ask a database of texts and texts one of images; relevant is what shares a label.
Both ways are scored as `tasks.hashing` scores its codes, by the same parts of the
database. No code of one side has seen the other side.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modal_aware_jax.data.labels import need_labels
from modal_aware_jax.experiment.cross_modal_methods import LOSSES, METHODS, network
from modal_aware_jax.experiment.inputs import drop_words
from modal_aware_jax.experiment.lookup import choose
from modal_aware_jax.experiment.losses import loss_options
from modal_aware_jax.report import format_results, write_report
from modal_aware_jax.report.page import write_page
from modal_aware_jax.retrieval.evaluate import evaluate_parts, mean_evaluation
from modal_aware_jax.retrieval.metrics import mean_average_precision
from modal_aware_jax.tasks import hashing
from modal_aware_jax.tasks.task import Comparison, Lead, Mean, Outcome, Task

TOKENS = (  # of `config.data.text`
    "sequences",
    "word_tokens",
    "word_pieces",
    "word_pieces_by_line",
    "word_ids",
    "word_ids_by_line",
)
WAYS = {"image_to_text": "image → text", "text_to_image": "text → image"}


def check(config, pairs) -> None:
    """Refuses pairs without labels, and texts that are no vectors."""
    need_labels(pairs)
    if config.data.text in TOKENS:
        raise ValueError(
            "The task cross_modal reads one vector a text: set "
            f"--config.data.text=words, bag or sentence, got {config.data.text!r}."
        )


def training_loss(config, pairs, parts, network, joint) -> Callable:
    """`loss(model, batch, key)`; see `Task.loss`."""
    del pairs, parts, network
    loss = choose("loss", LOSSES, config.loss.name).function
    options = loss_options(config.loss, LOSSES)
    rate = config.training.get("word_dropout", 0.0)

    def loss_of_batch(model, batch, key):
        words, window, dropout = jax.random.split(key, 3)
        text = drop_words(words, batch["text"], rate) if rate else batch["text"]
        rngs = nnx.Rngs(dropout=dropout)
        image, text = joint(model, batch, text, train=True, window=window, rngs=rngs)
        temperature = model.towers.temperature
        return loss(image, text[:, 0], batch["labels"], temperature, **options)

    return loss_of_batch


def output(joint: Callable) -> Callable:
    """`output(model, batch)`: relaxed bits of image and text side by side, [B, 2 K]."""

    def bits(model, batch):
        image, text = joint(model, batch, batch["text"], train=False)
        return jnp.concatenate([image, text[:, 0]], axis=1)

    return bits


def _sides(outputs: dict, num_bits: int):
    """Codes by direction: of the queries and of what they search."""
    image, text = slice(0, num_bits), slice(num_bits, None)
    for way, own, other in zip(WAYS, (image, text), (text, image), strict=True):
        query, database = outputs["queries"][:, own], outputs["database"][:, other]
        yield way, hashing.packed(query), hashing.packed(database)


def validate(experiment, outputs: dict) -> dict[str, float]:
    """MAP of the validation queries both ways, and their mean."""
    labels, bits = experiment.collection.labels, experiment.num_bits
    queries, searched = hashing.validation(experiment).values()
    scores = {
        way: mean_average_precision(
            *codes, labels[queries], labels[searched], num_bits=bits
        )
        for way, *codes in _sides(outputs, bits)
    }
    return {"map": float(np.mean(list(scores.values()))), **scores}


def evaluate(experiment, outputs: dict) -> Outcome:
    """All that a report says of the test queries, both ways, and their codes."""
    pairs, parts, bits = experiment.collection, experiment.split, experiment.num_bits
    trained = np.isin(parts.database, parts.train)
    labels = pairs.labels[parts.query], pairs.labels[parts.database]
    result, arrays = {"num_bits": bits}, {}
    for way, query, database in _sides(outputs, bits):
        result[way] = evaluate_parts(
            query, database, *labels, num_bits=bits, trained=trained
        )
        arrays |= {f"{way}_query": query, f"{way}_database": database}
    arrays |= {
        "query_ids": pairs.ids[parts.query],
        "database_ids": pairs.ids[parts.database],
        "query_labels": labels[0],
        "database_labels": labels[1],
        "database_trained": trained,
        "num_bits": bits,
    }
    return Outcome(result, arrays, [])


def both_ways(results: dict) -> dict:
    """{name: what is of each direction} -> {name with the direction: that}.

    >>> list(both_ways({"a": {"image_to_text": 1, "text_to_image": 2}}))
    ['a, image → text', 'a, text → image']
    """
    return {
        f"{name}, {title}": result[way]
        for name, result in results.items()
        for way, title in WAYS.items()
    }


def read(stored: dict) -> dict:
    """A result as JSON gives it back -> as `evaluate` gave it."""
    return {**stored, **{way: hashing.read(stored[way]) for way in WAYS}}


def mean(results: list[dict]) -> dict:
    """The mean over seeds of what tables and figures show."""
    means = {way: mean_evaluation([result[way] for result in results]) for way in WAYS}
    return {"num_bits": results[0]["num_bits"], **means}


def draw(directory, results: dict, bits: int) -> list:
    """Curves of both directions."""
    sides = {
        f"{name}, {title}": [result[way] for result in some]
        for name, some in results.items()
        for way, title in WAYS.items()
    }
    return hashing.draw(directory, sides, bits)


def write(directory, results: dict, *, curves, title: str) -> None:
    """The page of a comparison."""
    page = directory / "index.html"
    ways = WAYS.values()
    write_page(page, both_ways(results), curves=curves, title=title, apart=ways)


def _columns():
    """MAP of both ways, over the whole database and over unseen pairs, with leads."""
    for part in ("", "unseen"):
        for way, title in WAYS.items():
            name = "_".join(filter(None, ("map", way, part)))
            shown = f"MAP {title}" + (", unseen pairs" if part else "")

            def of(result, key, way=way, part=part):
                own = result[way].get(part, {}) if part else result[way]
                return own.get(key)

            yield Mean(
                name,
                shown,
                lambda result, of=of: of(result, "map_expected"),
                f"{shown}:",
                shown,
            )
            yield Lead(
                f"{name}_",
                f"{title}{', unseen' if part else ''}: ",
                lambda result, of=of: of(result, "average_precision"),
            )


COMPARISON = Comparison(
    columns=tuple(_columns()),
    items={
        "image_to_text": ("image_to_text", "average_precision"),
        "text_to_image": ("text_to_image", "average_precision"),
        "image_to_text_unseen": ("image_to_text", "unseen", "average_precision"),
        "text_to_image_unseen": ("text_to_image", "unseen", "average_precision"),
        "image_to_text_seen": ("image_to_text", "seen", "average_precision"),
        "text_to_image_seen": ("text_to_image", "seen", "average_precision"),
    },
    read=read,
    mean=mean,
    draw=draw,
    write=write,
    by_bits=True,
)

CROSS_MODAL = Task(
    name="cross_modal",
    methods=METHODS,
    losses=LOSSES,
    check=check,
    num_outputs=lambda config, pairs: config.model.num_bits,
    network=network,
    loss=training_loss,
    output=output,
    validation=hashing.validation,
    validate=validate,
    score="map",
    test=hashing.test,
    evaluate=evaluate,
    figures=("convergence", "statistics"),
    arrays_file="codes.npz",
    title=lambda experiment: (
        f"{experiment.name} on {experiment.collection.name}, {experiment.num_bits} "
        "bits, image and text apart"
    ),
    write_report=lambda directory, results, **options: write_report(
        directory, both_ways(results), apart=WAYS.values(), **options
    ),
    text=lambda results: format_results(both_ways(results)),
    comparison=COMPARISON,
)
