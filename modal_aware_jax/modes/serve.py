"""A page and a JSON interface over a collection, an index and a model."""

import pathlib

import numpy as np

from modal_aware_jax.build import Experiment
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.text_vectors import BagOfWords
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
from modal_aware_jax.retrieval.index import HammingIndex
from modal_aware_jax.serve.encoder import QueryEncoder
from modal_aware_jax.serve.live_index import LiveIndex
from modal_aware_jax.serve.service import Service
from modal_aware_jax.serve.shelf import Shelf


def service_of_run(
    experiment: Experiment,
    workdir: pathlib.Path,
    *,
    step="latest",
    index: pathlib.Path | None = None,
) -> Service:
    """A run's checkpoint and its collection, to be served.

    Args:
      experiment: built from the config the run was trained with; `cached_maps` off.
      workdir: the run's directory.
      step: 'latest', 'best' or a step.
      index: a file of codes of this model, which is searched and changed; None: the
        collection's own, `served-STEP.index` in the workdir, encoded on first use.
    """
    need_codes(experiment)
    record = load_run(experiment, workdir, step)
    encoder = QueryEncoder(
        output_of(experiment),
        experiment.text,
        image_size=experiment.image_size,
        num_bits=experiment.num_bits,
    )
    pairs = experiment.collection
    if index is None:
        index = workdir / f"served-{codes_name(experiment, record)}.index"
        facts = index_facts(weights_digest(experiment.model), pairs)

        def encode():
            return encode_collection(experiment, workdir, step=step)

        _make_index(index, pairs, encode, facts)
    return _service(index, pairs, encoder)


def service_of_model(
    model: EncoderModel,
    pairs: Collection | None,
    workdir: pathlib.Path,
    *,
    index: pathlib.Path | None = None,
    batch_size: int = 100,
    workers: int = 0,
) -> Service:
    """An exported model with a collection, an index, or both, to be served.

    Args:
      model: of `load_model_file`.
      pairs: the collection; None: only ids are shown of the index's items.
      workdir: where the collection's index goes, unless one is given.
      index: as in `service_of_run`.
      batch_size, workers: for encoding the collection on first use.
    """
    need_codes_of(model)
    if pairs is None:
        if index is None:
            raise ValueError(
                "serve: name what is searched, a collection with --config=FILE or an "
                "index with --index=FILE."
            )
        if not model.vocabulary:
            raise ValueError(
                "--model: its vocabulary is not known. Keep config.json beside it."
            )
    else:
        pairs = in_vocabulary(pairs, model)
    encoder = QueryEncoder(
        model.relaxed,
        BagOfWords(_words_of(model) if pairs is None else pairs),
        image_size=model.image_size,
        num_bits=model.num_bits,
    )
    if index is None:
        workdir.mkdir(parents=True, exist_ok=True)
        index = workdir / f"served-{model.digest}.index"

        def encode():
            options = {"batch_size": batch_size, "workers": workers}
            return encode_with_model(model, pairs, workdir, **options)

        _make_index(index, pairs, encode, index_facts(model.digest, pairs))
    return _service(index, pairs, encoder)


def _words_of(model):
    """A collection of nothing in a model's words."""
    text = np.zeros((0, model.num_text_features), np.uint8)
    labels = np.zeros((0, 0), np.uint8)
    return Collection("", [], [], text, [], labels, model.vocabulary, ())


def _make_index(path, pairs, encode, facts):
    """Makes the index of a collection, anew where other pairs or codes are in it.

    What was added and removed while it was served stays in its log. Codes that were
    added are of the weights of then: with others the index is refused.
    """
    if path.exists():
        opened = LiveIndex(path)
        there, added, removed = set(opened.ids.tolist()), opened.added, opened.removed
        opened.close()
        before = read_facts(path) or facts  # of before they were kept: taken as it is
        if before.get("weights") != facts["weights"] and added:
            raise ValueError(
                f"serve: {path} holds {len(added)} items that were added to codes of "
                f"other weights. Move it away, with {path.name}.changes, and a new "
                "index is made; or serve the checkpoint that it was made by."
            )
        same = there == (set(pairs.ids.tolist()) - removed) | added.keys()
        if same and before == facts:
            keep_facts(path, facts)
            return
        print(f"{pairs.name} is not what {path} holds: it is encoded again.")
    with np.load(encode()) as encoded:
        index = HammingIndex(int(encoded["num_bits"]))
        index.add(encoded["codes"], ids=encoded["ids"])
    path.unlink(missing_ok=True)
    keep_facts(path, facts)
    index.save(path)


def _service(index, pairs, encoder):
    try:
        live = LiveIndex(index)
    except FileNotFoundError as error:
        raise ValueError(
            f"--index: there is no file {index}. Write one with HammingIndex.save."
        ) from error
    if live.num_bits != encoder.num_bits:
        live.close()
        raise ValueError(
            f"--index: its codes have {live.num_bits} bits, the model gives "
            f"{encoder.num_bits}. Take the index of this model's codes."
        )
    print("Getting ready: programs for batches of", *encoder.sizes, flush=True)
    encoder.warm_up()
    name = "" if pairs is None else pairs.name
    return Service(live, Shelf(live, pairs), encoder, name=name)
