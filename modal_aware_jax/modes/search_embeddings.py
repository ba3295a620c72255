"""Words find pictures, a picture finds sentences: search by a task's embeddings."""

import io
import pathlib

import numpy as np
from PIL import Image

from modal_aware_jax.build import Experiment
from modal_aware_jax.data.captions.collection import sentences_of
from modal_aware_jax.modes.encoder import (
    Encoder,
    lower_maps,
    output_of,
    variables_of,
)
from modal_aware_jax.modes.evaluate import load_run
from modal_aware_jax.modes.index_facts import (
    index_facts,
    keep_facts,
    read_facts,
    weights_digest,
)
from modal_aware_jax.modes.reading import codes_name
from modal_aware_jax.modes.search import read_query_image
from modal_aware_jax.report import result_picture
from modal_aware_jax.retrieval.embedding_index import EmbeddingIndex

TARGETS = ("image", "text")


def search_embeddings(
    experiment: Experiment,
    workdir: pathlib.Path,
    *,
    step="latest",
    image: pathlib.Path | None = None,
    words: str = "",
    target: str = "",
    k: int = 10,
) -> list[dict]:
    """Ranks a collection's pictures or sentences for a text or a picture.

    The collection is embedded and indexed on first use (`collection-STEP.images` and
    `.sentences` in the workdir). A picture of the result goes to `search.png` there.

    Args:
      experiment: built from the config the run was trained with; `cached_maps` off.
      workdir: the run's directory.
      step: 'latest', 'best' or a step.
      image: an image file, or None.
      words: a sentence, or ''. One of both is asked with.
      target: 'image' or 'text', what is searched; '': the one that is not asked with.
      k: how many results.

    Returns:
      k dicts of rank, id of the image, cosine and caption (the sentence that was found,
      or all of the image's), nearest first.
    """
    check_one_query(image, words, experiment.task.name)
    target = target or ("text" if image else "image")
    if target not in TARGETS:
        raise ValueError(f"search: --target is image or text, not {target!r}.")
    record = load_run(experiment, workdir, step)
    which = codes_name(experiment, record)
    pixels, embedding = _query(experiment, image, words)
    index = _index(experiment, workdir, which, target)
    cosines, names = index.search(embedding[None], k)
    pairs = experiment.collection
    position = {name: i for i, name in enumerate(pairs.ids.tolist())}
    found, results = [], []
    for rank, (cosine, name) in enumerate(
        zip(cosines[0].tolist(), names[0].tolist(), strict=True), 1
    ):
        name, _, number = name.rpartition("#")
        row = position[name]
        caption = pairs.captions[row]
        if target == "text":
            caption = sentences_of(caption)[int(number)]
        facts = {"rank": rank, "id": name, "cosine": cosine, "caption": caption}
        found.append(facts)
        results.append((pairs.images[row], caption, [], f"{cosine:.3f}", None))
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    query = (png.getvalue(), words, [])
    result_picture(query, results, workdir / "search.png", measure="cosine")
    return found


def check_one_query(image: pathlib.Path | None, words: str, task: str) -> None:
    """Refuses a query of both or of neither."""
    if (image is None) == (not words.strip()):
        raise ValueError(
            f"search: the task {task} asks with one modality: give an image with "
            "--image, or a text with --text."
        )


def _query(experiment, image, words):
    """What was asked with: its pixels, grey for words, and its embedding [F]."""
    size = experiment.image_size
    pixels = np.full((size, size, 3), 128, np.uint8)
    if image is not None:
        pixels = read_query_image(image, size)
    known, unknown = experiment.text.split(words)
    if unknown:
        print(f"Not in the vocabulary, so not searched for: {', '.join(unknown)}")
    if image is None and not known:
        raise ValueError("search: none of these words is known to the model.")
    batch = {"image": pixels[None], "text": experiment.text.encode([known])}
    both = np.asarray(output_of(experiment)(batch))
    images, texts = both.reshape(2, -1)  # an image and its one sentence
    return pixels, images if image is not None else texts


def _index(experiment, workdir, which, target):
    """The index of all pictures or of all sentences, made on first use."""
    pairs = experiment.collection
    captions = pairs.captions[:]
    sizes = [len(sentences_of(caption)) for caption in captions]
    names = {
        "image": [f"{name}#" for name in pairs.ids.tolist()],
        "text": [
            f"{name}#{i}"
            for name, size in zip(pairs.ids.tolist(), sizes, strict=True)
            for i in range(size)
        ],
    }
    files = {
        "image": workdir / f"collection-{which}.images",
        "text": workdir / f"collection-{which}.sentences",
    }
    facts = index_facts(weights_digest(experiment.model), pairs)
    there = all(path.exists() for path in files.values())
    if there and read_facts(files["image"]) not in (None, facts):
        _load(files[target], names[target])  # other pairs are refused
        print(
            f"{files['image']} is of other weights or of pairs as they were: it is "
            "made again, with that of the sentences."
        )
        there = False
    if not there:
        positions = np.arange(len(pairs))
        encoder = Encoder(experiment, lower_maps(experiment))
        outputs = encoder.outputs(
            variables_of(experiment.model), positions, label="embed"
        )
        images, texts, _ = experiment.task.embeddings(experiment, positions, outputs)
        for path in files.values():
            path.unlink(missing_ok=True)
        keep_facts(files["image"], facts)
        for kind, rows in (("image", images), ("text", texts)):
            index = EmbeddingIndex(rows.shape[1])
            index.add(rows, names[kind])
            index.save(files[kind])
    index = _load(files[target], names[target])
    keep_facts(files["image"], facts)
    return index


def _load(path, names):
    index = EmbeddingIndex.load(path)
    if index.ids.tolist() != names:
        raise ValueError(
            f"search: {path} is the index of another collection. Delete it, or use the "
            "data the run was trained with."
        )
    return index
