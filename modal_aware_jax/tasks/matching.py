"""Matching: an image finds its sentences, a sentence its image, among all others.

A collection's items are images with all of their sentences (`data/captions`). A batch
has every image once, with one of its sentences, drawn anew each time: so no other
sentence of the same image is ever a negative. Images and sentences are embedded apart.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modal_aware_jax.data.captions.collection import sentences_of
from modal_aware_jax.experiment.lookup import choose
from modal_aware_jax.experiment.losses import loss_options
from modal_aware_jax.experiment.matchers import LOSSES, MATCHERS, network
from modal_aware_jax.models.captioned import sentence_rows
from modal_aware_jax.report.matches import (
    draw_matches,
    format_matches,
    write_matches,
)
from modal_aware_jax.retrieval.by_rank import precision_recall_by_rank
from modal_aware_jax.retrieval.evaluate_matching import (
    DIRECTIONS,
    KS,
    evaluate_matching,
)
from modal_aware_jax.retrieval.matching_scores import matching_scores
from modal_aware_jax.tasks.task import Comparison, Lead, Mean, Outcome, Task

NUM_EXAMPLES = 6  # queries shown of each direction
NUM_RESULTS = 5


def check(config, pairs) -> None:
    """Refuses items without sentences, and text that is not read by sentences."""
    if config.data.get("text", "bag") not in ("sentences", "sequences"):
        raise ValueError(
            "The task matching reads each sentence of an image for itself: set "
            "--config.data.text=sentences (vectors by a sentence model) or sequences "
            f"(words in their order), got {config.data.get('text', 'bag')!r}."
        )
    empty = [
        name
        for name, caption in zip(pairs.ids, pairs.captions[:], strict=True)
        if not all(line.strip() for line in sentences_of(caption))
    ]
    if empty:
        raise ValueError(
            f"The task matching needs sentences, but {len(empty):,} images of "
            f"{pairs.name} have an empty one, such as {empty[0]}. Leave them out."
        )


def draw_sentence(key: jax.Array, text: jax.Array, num_sentences: int) -> jax.Array:
    """One of the sentences of each image, all alike likely.

    Args:
      key: of the draw.
      text: [B, S·T], side by side; zeros stand for a sentence that is not there.
      num_sentences: S.

    Returns:
      [B, T]; zeros for an image without any.

    >>> text = jnp.array([[0.0, 0.0, 1.0, 2.0, 0.0, 0.0]])
    >>> draw_sentence(jax.random.key(0), text, 3).tolist()
    [[1.0, 2.0]]
    """
    rows = text.reshape(len(text), num_sentences, -1)  # [B, S, T]
    there = jnp.any(rows != 0, axis=2)
    drawn = jax.random.uniform(key, there.shape) * there
    return jnp.take_along_axis(rows, drawn.argmax(axis=1)[:, None, None], axis=1)[:, 0]


def solve(config, pairs, parts, method) -> Callable | None:
    """`solve(network, maps)` of a method in closed form, by all training sentences."""
    if method.solve is None:
        return None
    options = config.model.get("cca", {})

    def fill(network, maps):
        if maps is None or maps.shape[2:4] != (1, 1):
            raise ValueError(
                f"The method {config.model.method} is solved from the cached means of "
                "a frozen backbone: set --config.training.cached_maps=True and "
                "--config.training.cached_means=True."
            )
        text = np.asarray(
            sentence_rows(pairs.text[parts.train], network.towers.text_features)
        )
        there = text.any(axis=2)
        images = np.asarray(maps[parts.train, 0, 0, 0])
        images = np.repeat(images, there.sum(axis=1), axis=0)
        method.solve(network.towers, images, text[there], **options)

    return fill


def training_loss(config, pairs, parts, network, joint) -> Callable:
    """`loss(model, batch, key)`, of one sentence an image; see `Task.loss`."""
    del parts
    loss = choose("loss", LOSSES, config.loss.name).function
    options = loss_options(config.loss, LOSSES)
    num_sentences = pairs.num_text_features // network.towers.text_features

    def loss_of_batch(model, batch, key):
        words, window, dropout = jax.random.split(key, 3)
        sentence = draw_sentence(words, batch["text"], num_sentences)
        rngs = nnx.Rngs(dropout=dropout)
        image, text = joint(
            model, batch, sentence, train=True, window=window, rngs=rngs
        )
        temperature, groups = model.towers.temperature, batch["index"]
        return loss(image, text[:, 0], temperature, groups=groups, **options)

    return loss_of_batch


def output(joint: Callable) -> Callable:
    """`output(model, batch)`: embeddings of image and sentences, [B, (1 + S)·F]."""

    def embeddings(model, batch):
        image, text = joint(model, batch, batch["text"], train=False)
        both = jnp.concatenate([image[:, None], text], axis=1)  # [B, 1 + S, F]
        return both.reshape(len(both), -1)

    return embeddings


def embeddings_of(experiment, positions, outputs: np.ndarray):
    """Outputs of images -> images [N, F], their sentences [M, F] and whose they are."""
    pairs = experiment.collection
    counts = [len(sentences_of(pairs.captions[int(i)])) for i in positions]
    features = experiment.config["model"]["features"]
    both = outputs.reshape(len(positions), -1, features)
    there = np.arange(both.shape[1] - 1) < np.array(counts)[:, None]
    return both[:, 0], both[:, 1:][there], np.repeat(np.arange(len(counts)), counts)


def validate(experiment, outputs: dict) -> dict[str, float]:
    """rsum of the validation images, which find each other's sentences alone."""
    positions = experiment.split.validation
    images, texts, owners = embeddings_of(experiment, positions, outputs["images"])
    one = 1 if len(texts) == len(images) else None
    found = matching_scores(
        images, texts, np.arange(len(images)), owners, ks=KS, texts_per_image=one
    )
    return {"rsum": found.rsum}


def evaluate(experiment, outputs: dict) -> Outcome:
    """All that a report says of the test images, and their embeddings."""
    pairs, positions = experiment.collection, experiment.split.query
    images, texts, owners = embeddings_of(experiment, positions, outputs["images"])
    sentences = [line for i in positions for line in sentences_of(pairs.captions[i])]
    arrays = {
        "ids": pairs.ids[positions],
        "images": images,
        "texts": texts,
        "text_images": owners,
        "sentences": np.array(sentences),
    }
    examples = _examples(pairs, positions, images, texts, owners, sentences)
    result = evaluate_matching(images, texts, owners)
    result["by_rank"] = _by_rank(images, texts, owners)
    return Outcome(result, arrays, examples)


def _by_rank(images, texts, owners) -> dict:
    """Precision and recall among the first k, both ways, in the embeddings' order."""
    groups = np.arange(len(images))
    found = {}
    for name, sides in zip(
        DIRECTIONS,
        ((images, texts, groups, owners), (texts, images, owners, groups)),
        strict=True,
    ):
        ranks, precision, recall = precision_recall_by_rank(*sides)
        found[name] = {"ranks": ranks, "precision": precision, "recall": recall}
    return found


def _examples(pairs, positions, images, texts, owners, sentences):
    """Queries of both directions, with what they find: (heading, [dict])."""
    images, texts = (_unit(x) for x in (images, texts))
    some = np.linspace(0, len(images) - 1, min(NUM_EXAMPLES, len(images))).astype(int)

    def picture(row):
        return pairs.images[int(positions[row])]

    asked, found = [], []

    def own(row):
        return [sentences[i] for i in np.flatnonzero(owners == row)]

    for row in some:
        cosines = texts @ images[row]
        best = np.argsort(-cosines, kind="stable")[:NUM_RESULTS]
        results = [(None, sentences[i], cosines[i], owners[i] == row) for i in best]
        asked.append(
            {"query": (picture(row), " / ".join(own(row))), "results": results}
        )
        first = int(np.flatnonzero(owners == row)[0])
        cosines = images @ texts[first]
        best = np.argsort(-cosines, kind="stable")[:NUM_RESULTS]
        results = [(picture(i), own(i)[0], cosines[i], i == row) for i in best]
        found.append({"query": (None, sentences[first]), "results": results})
    return [("Images ask for sentences", asked), ("Sentences ask for images", found)]


def _unit(rows):
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(length, 1e-12)


def read(stored: dict) -> dict:
    """A result as JSON gives it back -> as `evaluate_matching` gave it."""
    result = dict(stored)
    for name in DIRECTIONS:
        arrays = {
            key: np.asarray(stored[name][key], float) for key in ("recall", "cmc")
        }
        result[name] = {**stored[name], **arrays}
    if "by_rank" in stored:  # results of before it was kept lack it
        result["by_rank"] = {
            name: {key: np.asarray(stored["by_rank"][name][key], float) for key in some}
            for name, some in stored["by_rank"].items()
        }
    result["rsum"] = float(result["rsum"])
    result["of_image"] = np.asarray(result["of_image"], float)
    return result


def mean(results: list[dict]) -> dict:
    """The mean over seeds of what tables and figures show."""
    first = dict(results[0])
    for key in ("rsum_low", "rsum_high", "of_image"):
        first.pop(key, None)
    first["rsum"] = float(np.mean([result["rsum"] for result in results]))
    for name in DIRECTIONS:
        first[name] = _mean_of([result[name] for result in results])
    if all("by_rank" in result for result in results):
        first["by_rank"] = {
            name: _mean_of([result["by_rank"][name] for result in results])
            for name in DIRECTIONS
        }
    else:
        first.pop("by_rank", None)
    return first


def _mean_of(results: list[dict]) -> dict:
    """The means of numbers and arrays under the same names."""
    return {key: np.mean([r[key] for r in results], axis=0) for key in results[0]}


def draw(directory, results: dict, bits: int) -> list:
    """Cumulative match of the means over the seeds."""
    del bits
    return draw_matches(directory, {name: mean(some) for name, some in results.items()})


def write(directory, results: dict, *, curves, title: str) -> None:
    """The page of a comparison."""
    write_matches(directory, results, title=title, curves=curves)


def _recalls():
    """Columns of R@1, 5 and 10 of both directions, in percent."""
    for name, short, arrow in zip(
        DIRECTIONS, ("i2t", "t2i"), ("i→t", "t→i"), strict=True
    ):
        for place, k in enumerate(KS):
            yield Mean(
                f"r{k}_{short}",
                f"R@{k} {arrow}",
                lambda result, name=name, place=place: float(
                    100 * result[name]["recall"][place]
                ),
            )


COMPARISON = Comparison(
    columns=(
        Mean(
            "rsum",
            "rsum",
            lambda result: result["rsum"],
            "Sum of R@1, R@5 and R@10 both ways on the test images, in percent:",
            "rsum",
        ),
        Lead("", "", lambda result: result["of_image"]),
        *_recalls(),
    ),
    items={"of_image": ("of_image",)},
    read=read,
    mean=mean,
    draw=draw,
    write=write,
)

MATCHING = Task(
    name="matching",
    methods=MATCHERS,
    losses=LOSSES,
    check=check,
    num_outputs=lambda config, pairs: config.model.features,
    network=network,
    solve=solve,
    loss=training_loss,
    output=output,
    validation=lambda experiment: {"images": experiment.split.validation},
    validate=validate,
    score="rsum",
    test=lambda experiment: {"images": experiment.split.query},
    evaluate=evaluate,
    embeddings=embeddings_of,
    arrays_file="embeddings.npz",
    title=lambda experiment: f"{experiment.name} on {experiment.collection.name}",
    write_report=write_matches,
    text=format_matches,
    comparison=COMPARISON,
)
