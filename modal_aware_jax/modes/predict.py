"""New posts to classes, by a run or by an exported model."""

import csv
import pathlib
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from modal_aware_jax.build import Experiment
from modal_aware_jax.classification.evaluate import probabilities_of
from modal_aware_jax.data.new_posts import Post, look, one_post, read_posts
from modal_aware_jax.data.text_vectors import BagOfWords
from modal_aware_jax.modes.encoder import output_of
from modal_aware_jax.modes.evaluate import load_run
from modal_aware_jax.modes.model_files import EncoderModel
from modal_aware_jax.training.workdir import explain_write_errors

BATCH = 32
GREY = 128  # in place of a picture that is not there


class Predictor(NamedTuple):
    """What predicts, wherever it came from.

    Attributes:
      logits: a batch of `image`, `text`, `has_image` and `has_text` -> [B, L].
      text: an encoder of texts, of `data.text_vectors`.
      image_size: S.
      class_names: L of them.
      one_class: whether a post has one class, or any number of labels.
    """

    logits: Callable
    text: Any
    image_size: int
    class_names: tuple[str, ...]
    one_class: bool


class Prediction(NamedTuple):
    """What is said of one post.

    Attributes:
      id: the post's.
      classes: the likeliest class, or all labels of probability ½ and more.
      probabilities: [L]; None where nothing could be predicted.
      note: what was missing or wrong, '' for nothing.
    """

    id: str
    classes: list[str]
    probabilities: np.ndarray | None
    note: str


def predictor_of_run(
    experiment: Experiment, workdir: pathlib.Path, *, step="latest"
) -> Predictor:
    """A run's checkpoint.

    Args:
      experiment: built from the config the run was trained with; `cached_maps` off.
      workdir: the run's directory.
      step: 'latest', 'best' or a step.
    """
    need_classes(experiment.task.name)
    load_run(experiment, workdir, step)
    output, num_labels = output_of(experiment), experiment.collection.num_labels
    return Predictor(
        lambda batch: output(batch)[:, :num_labels],
        experiment.text,
        experiment.image_size,
        experiment.collection.label_names,
        experiment.config["loss"]["name"] == "softmax",
    )


def predictor_of_model(model: EncoderModel) -> Predictor:
    """An exported model, of bags of words or of word pieces."""
    if model.task:
        need_classes(model.task)
    if not model.task or not (model.vocabulary or model.pieces is not None):
        raise ValueError(
            "--model: its vocabulary is not known. Keep config.json beside it."
        )
    words = types.SimpleNamespace(name="the model", vocabulary=model.vocabulary)
    return Predictor(
        model.relaxed,
        model.pieces or BagOfWords(words),
        model.image_size,
        model.label_names,
        model.loss == "softmax",
    )


def need_classes(task: str) -> None:
    """Refuses what was not trained to classify."""
    if task != "classification":
        raise ValueError(
            f"--mode=predict gives classes, which the task {task} does not learn. "
            "Train with --config=configs/posts.py, or --config=configs/folder.py:"
            "task=classification."
        )


def posts_to_predict(
    image: pathlib.Path | None,
    words: str,
    table: pathlib.Path | None,
    *,
    image_column: str | None = None,
    text_column: str | None = None,
) -> list[Post]:
    """The post of an image file and a text, or the posts of a table.

    Args:
      image, words: of one post.
      table: of many, in place of both.
      image_column, text_column: of the table; None: the usual names.
    """
    if table is None:
        return one_post(image, words)
    if image is not None or words:
        raise ValueError("predict: give --table, or --image and --text, not both.")
    return read_posts(table, image=image_column, text=text_column)


def predict(predictor: Predictor, posts: Sequence[Post]) -> Iterator[Prediction]:
    """A prediction, or a line that says why there is none, for each post in its order.

    A post without a picture is predicted from its words, one without words from its
    picture; networks that know no missing modality see a grey picture, or no words.
    """
    size = BATCH if len(posts) > 1 else 1
    for start in range(0, len(posts), size):
        yield from _predict_batch(predictor, posts[start : start + size], size)


def _predict_batch(predictor, posts, rows):
    side = predictor.image_size
    seen = [look(post, side) for post in posts]
    words = [predictor.text.split(post.text)[0] for post in posts]
    images = np.full((rows, side, side, 3), GREY, np.uint8)
    for image, own in zip(images, seen, strict=False):
        if own.pixels is not None:
            image[:] = own.pixels
    filled = words + [[] for _ in range(rows - len(posts))]
    has_image = np.zeros(rows, bool)
    has_image[: len(posts)] = [own.pixels is not None for own in seen]
    batch = {
        "image": images,
        "text": predictor.text.encode(filled),
        "has_image": has_image,
        "has_text": np.array([bool(some) for some in filled]),
        "index": np.arange(rows, dtype=np.int32),
    }
    found = probabilities_of(predictor.logits(batch), predictor.one_class)
    for post, own, some, row in zip(posts, seen, words, found, strict=False):
        notes = [own.problem] if own.problem else []
        if not some and not post.problem:
            notes.append("no words" if not post.text.strip() else "no known words")
        note = ", ".join(notes)
        if own.pixels is None and not some:
            yield Prediction(post.id, [], None, f"not predicted: {note}")
        elif not np.isfinite(row).all():
            raise ValueError(
                "predict: the network gave numbers that are not finite (NaN or "
                "infinite); its weights are broken."
            )
        else:
            yield Prediction(post.id, _classes(predictor, row), row, note)


def _classes(predictor, row):
    if predictor.one_class:
        return [predictor.class_names[int(row.argmax())]]
    return [predictor.class_names[i] for i in np.flatnonzero(row >= 0.5)]


def line_of(prediction: Prediction) -> str:
    """A prediction for the terminal.

    >>> line_of(Prediction("a.jpg", ["sea"], np.array([0.9, 0.1]), "no words"))
    'a.jpg  sea (0.900)  [no words]'
    """
    note = f"  [{prediction.note}]" if prediction.note else ""
    if prediction.probabilities is None:
        return f"{prediction.id}{note}"
    sure = f" ({prediction.probabilities.max():.3f})" if prediction.classes else ""
    said = ", ".join(prediction.classes) or "no label"
    return f"{prediction.id}  {said}{sure}{note}"


def write_predictions_table(
    path: pathlib.Path,
    predictions: Sequence[Prediction],
    class_names: Sequence[str],
) -> None:
    """One row a post: `id`, `predicted`, `note`, and a column a class; as CSV."""
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "predicted", "note", *class_names])
            for found in predictions:
                numbers = [""] * len(class_names)
                if found.probabilities is not None:
                    numbers = [f"{p:.6f}" for p in found.probabilities]
                said = "; ".join(found.classes)
                writer.writerow([found.id, said, found.note, *numbers])
