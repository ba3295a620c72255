"""Classification: one class, or several labels, from a post's picture and words."""

import jax.numpy as jnp
import numpy as np

from modal_aware_jax.classification import (
    accuracy,
    likeliest_class,
    likely_labels,
    macro_f1,
    mcnemar_exact,
)
from modal_aware_jax.classification.evaluate import probabilities_of, scores
from modal_aware_jax.data.labels import need_labels
from modal_aware_jax.experiment.classifiers import (
    CLASSIFIERS,
    REFUSED,
    added_term,
    network,
)
from modal_aware_jax.experiment.losses import Loss
from modal_aware_jax.losses.cross_entropy import (
    balanced_weights,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from modal_aware_jax.report.predictions import (
    draw_predictions,
    format_predictions,
    write_predictions,
)
from modal_aware_jax.report.shown import shown
from modal_aware_jax.tasks.joint_vector import head_loss
from modal_aware_jax.tasks.task import Comparison, Lead, Mean, Outcome, Task

NUM_EXAMPLES = 10  # of the surest right and of the surest wrong
NUM_OF_CLASS = 4  # of each class
MANY_CLASSES = 12  # more are not shown one by one
COUNTS = ("confusion", "bin_count")
SUMS = ("bin_confidence", "bin_accuracy")  # means over the bin's predictions
NUMBERS = ("accuracy", "macro_f1", "label_accuracy", "calibration_error")


def _weights(setting, balanced):
    """Of the classes, by how often the training posts have them; None for none."""
    if not balanced:
        return None
    return balanced_weights(setting.labels[setting.train].sum(axis=0, dtype=np.int32))


def _softmax(setting, *, label_smoothing, balanced):
    weights = _weights(setting, balanced)

    def loss(logits, batch, memory):
        return softmax_cross_entropy(
            logits,
            batch["labels"].argmax(axis=1),
            class_weights=weights,
            label_smoothing=label_smoothing,
        )

    return loss


def _sigmoid(setting, *, label_smoothing, balanced):
    weights = _weights(setting, balanced)

    def loss(logits, batch, memory):
        return sigmoid_cross_entropy(
            logits,
            batch["labels"],
            class_weights=weights,
            label_smoothing=label_smoothing,
        )

    return loss


OPTIONS = {"label_smoothing": 0.0, "balanced": False}
LOSSES = {"softmax": Loss(_softmax, OPTIONS), "sigmoid": Loss(_sigmoid, OPTIONS)}


def check(config, pairs) -> None:
    """Refuses posts without labels, and several labels where one class is learned."""
    need_labels(pairs)
    others = int((pairs.labels.sum(axis=1) != 1).sum())
    if config.loss.name == "softmax" and others:
        raise ValueError(
            f"The loss 'softmax' gives every post one class, but {others:,} of the "
            f"{len(pairs):,} posts of {pairs.name} have none or several labels. Learn "
            "each label for itself with --config.loss.name=sigmoid."
        )


def training_loss(config, pairs, parts, network, joint):
    """`loss(model, batch, key)`: of the logits, and what the method adds to it."""
    setting = (config, pairs, parts, network, joint)
    return head_loss(LOSSES, *setting, added=added_term(config, network))


def output(joint):
    """`output(model, batch)`: logits [B, L], and beside them the vectors they are of.

    The vector is the fused one before the dense layers, or the joint vector [B, D].
    """

    def logits_and_vectors(model, batch):
        made = joint(model, batch, batch["text"], train=False)
        vectors = made["fused"] if isinstance(made, dict) else made
        return jnp.concatenate([model.head(made), vectors], axis=1)

    return logits_and_vectors


def _has_one_class(experiment) -> bool:
    return experiment.config["loss"]["name"] == "softmax"


def _predictions(experiment, positions, outputs):
    """Probabilities [N, L], truth and prediction, [N] classes or [N, L] labels."""
    logits = outputs[:, : experiment.collection.num_labels]
    one_class = _has_one_class(experiment)
    probabilities = probabilities_of(logits, one_class)
    labels = experiment.collection.labels[positions]
    if one_class:
        return probabilities, labels.argmax(axis=1), likeliest_class(probabilities)
    return probabilities, labels, likely_labels(probabilities)


def validate(experiment, outputs: dict) -> dict[str, float]:
    """Accuracy and macro-F1 of the validation posts."""
    positions = experiment.split.validation
    _, truth, predicted = _predictions(experiment, positions, outputs["posts"])
    return {
        "accuracy": accuracy(truth, predicted),
        "macro_f1": macro_f1(truth, predicted, experiment.collection.num_labels),
    }


def evaluate(experiment, outputs: dict) -> Outcome:
    """All that a report says of the test posts, and their probabilities."""
    pairs, positions = experiment.collection, experiment.split.query
    probabilities, truth, predicted = _predictions(
        experiment, positions, outputs["posts"]
    )
    result = scores(probabilities, truth, predicted)
    result["class_names"] = list(pairs.label_names)
    arrays = {
        "ids": pairs.ids[positions],
        "probabilities": probabilities.astype(np.float32),
        "labels": truth,
        "predicted": predicted,
        "class_names": np.array(pairs.label_names),
        "vectors": outputs["posts"][:, pairs.num_labels :],
    }
    examples = _examples(pairs, positions, probabilities, predicted, result["correct"])
    return Outcome(result, arrays, examples)


def _examples(pairs, positions, probabilities, predicted, correct):
    """The surest right and the surest wrong predictions, with picture and words.

    Of each class where a post has one and they are few.
    """
    labels = pairs.labels[positions]
    by_class = predicted.ndim == 1 and pairs.num_labels <= MANY_CLASSES
    sure = probabilities.max(axis=1)
    if predicted.ndim == 2:  # as sure as of the label that it is least sure of
        sure = np.maximum(probabilities, 1 - probabilities).min(axis=1)
    groups = [("", np.ones(len(labels), bool), NUM_EXAMPLES)]
    if by_class:
        names = enumerate(pairs.label_names)
        groups = [(f": {n}", labels[:, i] > 0, NUM_OF_CLASS) for i, n in names]
    found = []
    for ending, own, count in groups:
        for name, some in (("right", correct > 0), ("wrong", correct == 0)):
            rows = np.flatnonzero(some & own)
            rows = rows[np.argsort(-sure[rows], kind="stable")][:count]
            items = []
            for row in rows:
                said = np.atleast_1d(predicted[row])
                said = said if predicted.ndim == 1 else np.flatnonzero(said)
                said = [pairs.label_names[i] for i in said]
                items.append((*shown(pairs, positions[row]), said, float(sure[row])))
            if items:
                found.append((f"Surest {name}{ending}", items))
    return found


def read(stored: dict) -> dict:
    """A result as JSON gives it back -> as `scores` gave it."""
    result = dict(stored)
    for key, value in stored.items():
        if isinstance(value, list) and key != "class_names":
            result[key] = np.asarray(value)
    for key in ("accuracy", "macro_f1", "calibration_error"):
        result[key] = float(result[key])
    result["correct"] = np.asarray(result["correct"], float)
    return result


def mean(results: list[dict]) -> dict:
    """The mean over seeds of what tables and figures show; counts are added up."""
    first = dict(results[0])
    for key in ("accuracy_low", "accuracy_high", "correct"):
        first.pop(key, None)
    for key in (*NUMBERS, "precision", "recall", "f1"):
        if key in first:
            first[key] = np.mean([result[key] for result in results], axis=0)
    for key in SUMS:
        sums = [np.nan_to_num(r[key]) * r["bin_count"] for r in results]
        count = np.sum([r["bin_count"] for r in results], axis=0)
        share = np.sum(sums, axis=0) / np.maximum(count, 1)
        first[key] = np.where(count > 0, share, np.nan)
    for key in COUNTS:
        if key in first:
            first[key] = np.sum([result[key] for result in results], axis=0)
    return first


def draw(directory, results: dict, bits: int) -> list:
    """Confusion and reliability of the means over the seeds."""
    del bits
    means = {name: mean(some) for name, some in results.items()}
    return draw_predictions(directory, means)


def write(directory, results: dict, *, curves, title: str) -> None:
    """The page of a comparison."""
    write_predictions(directory, results, title=title, curves=curves)


def mcnemar_table(results: dict) -> str:
    """McNemar's exact test of the first method beside every other, as Markdown.

    A method is right about a post where most of its seeds are.

    Args:
      results: of several seeds by the method's title, of the same posts.
    """
    right = {
        name: np.mean([result["correct"] for result in some], axis=0) > 0.5
        for name, some in results.items()
    }
    (first, ours), *others = right.items()
    if not others:
        return ""
    lines = [
        f"McNemar's test: posts about which {first} alone is right, the other alone, "
        "and how likely such a difference is by chance (most seeds decide whether a "
        "method is right).\n",
        f"| other method | {first} alone | it alone | p |",
        "|---|---|---|---|",
    ]
    for name, theirs in others:
        found = mcnemar_exact(ours, theirs)
        counts = f"{found.only_ours} | {found.only_theirs}"
        lines.append(f"| {name} | {counts} | {found.p_value:.4f} |")
    return "\n".join(lines) + "\n"


COMPARISON = Comparison(
    columns=(
        Mean(
            "accuracy",
            "accuracy",
            lambda result: result["accuracy"],
            "Accuracy on the test posts:",
            "accuracy",
        ),
        Lead("", "", lambda result: result["correct"]),
        Mean("macro_f1", "macro-F1", lambda result: result["macro_f1"]),
        Mean(
            "calibration_error",
            "calibration error",
            lambda result: result["calibration_error"],
        ),
    ),
    items={"correct": ("correct",)},
    read=read,
    mean=mean,
    draw=draw,
    write=write,
    more=mcnemar_table,
)

CLASSIFICATION = Task(
    name="classification",
    methods=CLASSIFIERS,
    refused=REFUSED,
    losses=LOSSES,
    check=check,
    num_outputs=lambda config, pairs: pairs.num_labels,
    network=network,
    loss=training_loss,
    output=output,
    validation=lambda experiment: {"posts": experiment.split.validation},
    validate=validate,
    score="accuracy",
    test=lambda experiment: {"posts": experiment.split.query},
    evaluate=evaluate,
    figures=("vectors",),
    arrays_file="predictions.npz",
    title=lambda experiment: f"{experiment.name} on {experiment.collection.name}",
    write_report=write_predictions,
    text=format_predictions,
    comparison=COMPARISON,
)
