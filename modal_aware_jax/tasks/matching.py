"""Matching: an image finds its sentences, a sentence its image, among all others.

A collection's items are images with all of their sentences (`data/captions`). A batch
has every image once, with one of its sentences, drawn anew each time: so no other
sentence of the same image is ever a negative. Images and sentences are embedded apart.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modal_aware_jax.data.captions.collection import sentences_of, sentences_there
from modal_aware_jax.data.prepare import default_prepared_dir
from modal_aware_jax.experiment.lookup import choose
from modal_aware_jax.experiment.losses import loss_options
from modal_aware_jax.experiment.matchers import LOSSES, MATCHERS, network
from modal_aware_jax.models.captioned import sentence_rows
from modal_aware_jax.models.captioned_tokens import CaptionedTokens, flat_sentences
from modal_aware_jax.report.matches import format_matches, write_matches
from modal_aware_jax.retrieval.by_rank import precision_recall_by_rank
from modal_aware_jax.retrieval.evaluate_matching import (
    DIRECTIONS,
    KS,
    evaluate_matching,
)
from modal_aware_jax.retrieval.matching_scores import matching_scores
from modal_aware_jax.retrieval.rerank import score_both_ways
from modal_aware_jax.tasks.matching_comparison import COMPARISON
from modal_aware_jax.tasks.matching_examples import examples_of, graph_examples
from modal_aware_jax.tasks.pair_training import draw_text, pair_loss
from modal_aware_jax.tasks.task import Outcome, Task
from modal_aware_jax.training.teacher import TeacherLogits

TEXTS = ("sentences", "word_pieces_by_line", "word_ids_by_line", "sequences")
CHUNK = 256  # images whose sentences are read at once


def check(config, pairs) -> None:
    """Refuses items without sentences, and text that is not read by sentences."""
    if config.data.get("text", "bag") not in TEXTS:
        raise ValueError(
            "The task matching reads each sentence of an image for itself: set "
            "--config.data.text=sentences (vectors by a sentence model), "
            "word_pieces_by_line (vectors of its word pieces), word_ids_by_line (its "
            "word pieces, for a sentence model that is trained along) or sequences "
            f"(words in their order), got {config.data.get('text', 'bag')!r}."
        )
    trained = config.data.text == "word_ids_by_line"
    if trained and "text_learning_rate" not in config.optimizer:
        raise ValueError(
            "config.data.text=word_ids_by_line trains the sentence model along, which "
            "the rate of the other layers would undo: its own is "
            "config.optimizer.text_learning_rate, which "
            "--config=configs/flickr8k.py:text=fine_tuned sets."
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
        width = network.towers.text_features
        chunks = np.split(parts.train, range(CHUNK, len(parts.train), CHUNK))
        text = [np.asarray(sentence_rows(pairs.text[some], width)) for some in chunks]
        text = np.concatenate(text)  # [n, S, T]
        there = text.any(axis=2)
        images = np.asarray(maps[parts.train, 0, 0, 0])
        images = np.repeat(images, there.sum(axis=1), axis=0)
        method.solve(network.towers, images, text[there], **options)

    return fill


def training_loss(task_methods, losses, config, pairs, parts, network, joint):
    """`loss(model, batch, key)`, of one sentence an image; see `Task.loss`.

    Args:
      task_methods, losses: tables such as `MATCHERS` and `LOSSES`. The other arguments
        are those of `Task.loss`.
    """
    del parts
    row = choose("loss", losses, config.loss.name)
    options = loss_options(config.loss, losses)
    dropped = config.training.get("word_dropout", 0.0)
    teacher = _teacher(config, pairs, options.pop("teacher")) if row.taught else None

    def contrast(image, text, temperature, batch):
        further = {"groups": batch[row.groups], **options}
        if teacher is not None:
            further["teacher"] = teacher(batch["index"], batch["sentence"])
        return row.function(image, text, temperature, **further)

    if isinstance(network, CaptionedTokens):
        method = task_methods[config.model.method]
        return pair_loss(config, method, contrast, joint)

    def loss_of_batch(model, batch, key):
        words, window, dropout = jax.random.split(key, 3)
        width = model.towers.text_features
        sentence, number = draw_text(words, batch["text"], width, dropped)
        batch = {**batch, "sentence": number}
        rngs = nnx.Rngs(dropout=dropout)
        image, rows = joint(
            model, batch, sentence, train=True, window=window, rngs=rngs
        )
        return contrast(image, rows[:, 0], model.towers.temperature, batch)

    return loss_of_batch


def _teacher(config, pairs, folder) -> TeacherLogits:
    if not folder:
        raise ValueError(
            f"The loss {config.loss.name} learns from a teacher: give the folder of a "
            "CLIP with "
            "--config.loss.options.similarity_distillation.teacher=FOLDER."
        )
    kept = config.training.get("cache_dir", "") or default_prepared_dir() / "maps"
    return TeacherLogits(folder, pairs, kept)


def output(joint: Callable) -> Callable:
    """`output(model, batch)`: embeddings of image and sentences, [B, (1 + S)·F]."""

    def embeddings(model, batch):
        image, text, *_ = joint(model, batch, batch["text"], train=False)
        both = jnp.concatenate([image[:, None], text], axis=1)  # [B, 1 + S, F]
        return both.reshape(len(both), -1)

    return embeddings


class PairCalls(NamedTuple):
    """How pairs of a gallery are scored; see `Task.pairs`."""

    encode: Callable
    score: Callable
    edges: Callable | None


def pairs(network, joint: Callable) -> PairCalls | None:
    """What pairs are scored from, of a batch, and scores and edges; None without."""
    if not isinstance(network, CaptionedTokens):
        return None

    def encode(model, batch):
        text = model.read(batch["text"])
        image = joint(model, batch, text, train=False)[2]
        words, mask = flat_sentences(text)
        image, words = model.encode(image, words, mask)
        words = words.reshape(*text["mask"].shape[:2], *words.shape[1:])
        return image, words, text["mask"]

    def score(model, image, text, mask):
        return model.score(image, text, mask)

    def edges(model, image, text, mask):
        return model.edges(image, text, mask)

    return PairCalls(encode, score, edges if network.has_graph else None)


def embeddings_of(experiment, positions, outputs: np.ndarray):
    """Outputs of images -> images [N, F], their sentences [M, F] and whose they are."""
    captions = [experiment.collection.captions[int(i)] for i in positions]
    features = experiment.config["model"]["features"]
    both = outputs.reshape(len(positions), -1, features)
    there = sentences_there(captions, both.shape[1] - 1)
    return both[:, 0], both[:, 1:][there], np.nonzero(there)[0]


def validate(experiment, outputs: dict) -> dict[str, float]:
    """rsum of the validation images, which find each other's sentences alone."""
    positions = experiment.split.validation
    images, texts, owners = embeddings_of(experiment, positions, outputs["images"])
    one = 1 if len(texts) == len(images) else None
    found = matching_scores(
        images, texts, np.arange(len(images)), owners, ks=KS, texts_per_image=one
    )
    return {"rsum": found.rsum}


def second(experiment, outputs: dict, scorer: Callable) -> dict:
    """The first `retrieval.rerank` of each test query, ordered by a second score.

    Where a graph scores, its edges of some pairs too, to be drawn.
    """
    options = experiment.config.get("retrieval", {})
    if not options.get("rerank") and experiment.pairs.edges is None:
        return {}
    positions = experiment.split.query
    score, further = scorer(positions), {}
    if options.get("rerank"):
        seen = outputs["images"]
        found = look_again(experiment, positions, seen, lambda positions: score)
        further["reranked"] = in_order(found, options["rerank_weight"])
    if experiment.pairs.edges is not None:
        further["graphs"] = graph_examples(experiment, positions, score)
    return further


def look_again(experiment, positions, outputs: np.ndarray, scorer: Callable) -> dict:
    """What the embeddings find of each query first, with the scores of these pairs.

    Args:
      positions: of the images, which and whose sentences ask each other.
      outputs: theirs.
      scorer: as for `Task.second`.

    Returns:
      By direction rows, similarities (cosine times the learned scale) and scores.
    """
    images, texts, _ = embeddings_of(experiment, positions, outputs)
    score = scorer(positions)
    k = experiment.config["retrieval"]["rerank"]
    found = score_both_ways(images, texts, k, score)
    return {
        way: (rows, score.scale * cosines, scores)
        for way, (rows, cosines, scores) in found.items()
    }


def in_order(found: dict, weight: float) -> dict:
    """`look_again`'s rows by direction with similarity + weight · score."""
    return {
        way: (rows, similarities + weight * scores)
        for way, (rows, similarities, scores) in found.items()
    }


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
    reranked = outputs.get("reranked")
    examples = examples_of(pairs, positions, images, texts, owners, sentences, reranked)
    if graphs := outputs.get("graphs"):
        examples.append(("Which patches the words read", graphs))
    result = evaluate_matching(images, texts, owners, reranked=reranked)
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


MATCHING = Task(
    name="matching",
    methods=MATCHERS,
    losses=LOSSES,
    check=check,
    num_outputs=lambda config, pairs: config.model.features,
    network=network,
    solve=solve,
    loss=functools.partial(training_loss, MATCHERS, LOSSES),
    output=output,
    pairs=pairs,
    second=second,
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
