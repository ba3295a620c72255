"""An image, a text, or both against an encoded collection."""

import io
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from modal_aware_jax.build import Experiment
from modal_aware_jax.data import pipeline
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.regular_file import read_regular
from modal_aware_jax.data.stored_image import ImageProblem, to_stored
from modal_aware_jax.data.text_vectors import BagOfWords
from modal_aware_jax.hashing.encode import encode
from modal_aware_jax.modes.encode import (
    encode_collection,
    encode_with_model,
    in_vocabulary,
    need_codes,
    need_codes_of,
)
from modal_aware_jax.modes.encoder import output_of
from modal_aware_jax.modes.evaluate import load_run
from modal_aware_jax.modes.index_facts import (
    index_facts,
    keep_facts,
    read_facts,
    weights_digest,
)
from modal_aware_jax.modes.model_files import EncoderModel
from modal_aware_jax.modes.reading import codes_name
from modal_aware_jax.modes.unknown_words import reading
from modal_aware_jax.report import result_picture
from modal_aware_jax.report.shown import shown
from modal_aware_jax.retrieval.index import HammingIndex


def search_run(
    experiment: Experiment,
    workdir: pathlib.Path,
    *,
    step="latest",
    image: pathlib.Path | None = None,
    words: str = "",
    k: int = 10,
) -> list[dict]:
    """Encodes a query with a run's checkpoint and ranks the collection by it.

    The collection is encoded and indexed on first use (`collection-STEP.index` in
    the workdir). A picture of the result goes to `search.png` there.

    Args:
      experiment: built from the config the run was trained with; `cached_maps` off.
      workdir: the run's directory.
      step: 'latest', 'best' or a step.
      image: an image file; None: the network's stand-in for a missing image, or a grey
        image where it has learned none.
      words: tags or text; words outside the vocabulary are named in the output, and
        read through a sentence model where the run's word vectors are its own and one
        is installed.
      k: how many results.

    Returns:
      k dicts of rank, id, distance, caption and labels, nearest first.
    """
    need_codes(experiment)
    check_query(image, words)
    record = load_run(experiment, workdir, step)
    which = codes_name(experiment, record)
    pairs = experiment.collection
    index = open_index(
        pairs,
        workdir / f"collection-{which}.index",
        lambda: encode_collection(experiment, workdir, step=step),
        weights_digest(experiment.model),
    )
    return _search(
        output_of(experiment),
        pairs,
        reading(experiment, words, workdir),
        index,
        workdir,
        size=experiment.image_size,
        image=image,
        words=words,
        k=k,
    )


def search_with_model(
    model: EncoderModel,
    pairs: Collection,
    workdir: pathlib.Path,
    *,
    batch_size: int,
    workers: int = 0,
    image: pathlib.Path | None = None,
    words: str = "",
    k: int = 10,
) -> list[dict]:
    """`search_run` by an exported model; the text is read in its vocabulary.

    Args:
      model: of `load_model_file`.
      pairs: the collection to search.
      workdir: where the index and the picture go.
      batch_size, workers: for encoding the collection on first use.
      image, words, k: as in `search_run`.
    """
    need_codes_of(model)
    check_query(image, words)
    pairs = in_vocabulary(pairs, model)
    index = open_index(
        pairs,
        workdir / f"collection-{model.digest}.index",
        lambda: encode_with_model(
            model, pairs, workdir, batch_size=batch_size, workers=workers
        ),
        model.digest,
    )
    return _search(
        model.relaxed,
        pairs,
        BagOfWords(pairs),
        index,
        workdir,
        size=model.image_size,
        image=image,
        words=words,
        k=k,
    )


def check_query(image: pathlib.Path | None, words: str) -> None:
    """Refuses a query of nothing."""
    if image is None and not words.strip():
        raise ValueError(
            "search: give an image with --image, a text with --text, or both."
        )


def _search(relaxed, pairs, text, index, workdir, *, size, image, words, k):
    pixels = np.full((size, size, 3), 128, np.uint8)
    if image:
        pixels = read_query_image(image, size)
    batch = {
        "image": pixels[None],
        "text": _encode_text(text, words),
        "index": np.zeros(1, np.int32),
        "has_image": np.array([image is not None]),
        "has_text": np.array([bool(words.strip())]),
    }
    query, _ = encode(relaxed, [batch])
    distances, ids = index.search(query, k)
    position = {name: i for i, name in enumerate(pairs.ids.tolist())}
    found = [[position[name] for name in row] for row in ids.tolist()]
    results = [
        (*shown(pairs, f), int(d), None)
        for f, d in zip(found[0], distances[0], strict=True)
    ]
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    result_picture((png.getvalue(), words, []), results, workdir / "search.png")
    return [
        {
            "rank": rank,
            "id": str(pairs.ids[f]),
            "distance": int(d),
            "caption": pairs.captions[int(f)],
            "labels": shown(pairs, f)[2],
        }
        for rank, (f, d) in enumerate(zip(found[0], distances[0], strict=True), 1)
    ]


def open_index(
    pairs: Collection, path: pathlib.Path, encode_pairs: Callable, weights: str
) -> HammingIndex:
    """The index of a collection in a file, made on first use and where it is stale.

    Args:
      pairs: the collection.
      path: of the index.
      encode_pairs: encodes the collection and returns the `.npz` file's path.
      weights: tell the model from others; one from before they were kept is taken.
    """
    facts = index_facts(weights, pairs)
    if path.exists():
        index = HammingIndex.load(path)
        if not np.array_equal(np.sort(index.ids), np.sort(pairs.ids)):
            raise ValueError(
                f"search: {path} is the index of another collection. Delete it, or use "
                "the data the run was trained with."
            )
        before = read_facts(path)
        if before in (None, facts):
            keep_facts(path, facts)
            return index
        print(f"{path} is of other weights or of pairs as they were: it is made again.")
    with np.load(encode_pairs()) as encoded:
        index = HammingIndex(int(encoded["num_bits"]))
        index.add(encoded["codes"], ids=encoded["ids"])
    path.unlink(missing_ok=True)
    keep_facts(path, facts)
    index.save(path)
    return index


def read_query_image(path: pathlib.Path, size: int) -> np.ndarray:
    """The pixels of an image file that is searched for, uint8 [S, S, 3]."""
    try:
        stored, _ = to_stored(read_regular(path), None)  # upright, as the collection's
        return pipeline.resize(pipeline.decode(stored), size)
    except (OSError, ImageProblem) as error:
        raise ValueError(
            f"search: {path} cannot be read as an image ({error}). Give a JPEG or PNG "
            "file with --image."
        ) from error


def _encode_text(encoder, words):
    """The vector of a text, [1, T]; names the words that the model never saw."""
    known, unknown = encoder.split(words)
    if unknown:
        print(f"Not in the vocabulary, so not searched for: {', '.join(unknown)}")
    return encoder.encode([known])
