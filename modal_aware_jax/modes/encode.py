"""A whole collection to packed codes and ids, in one `.npz` file."""

import dataclasses
import os
import pathlib

import numpy as np

from modal_aware_jax.build import TASKS, Experiment, choose
from modal_aware_jax.data import pipeline, text
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.hashing.encode import encode
from modal_aware_jax.modes.encoder import Encoder, lower_maps, variables_of
from modal_aware_jax.modes.evaluate import load_run
from modal_aware_jax.modes.every_item import in_label_names
from modal_aware_jax.modes.model_files import EncoderModel
from modal_aware_jax.training.processes import is_first
from modal_aware_jax.training.progress import ProgressBar


def encode_collection(
    experiment: Experiment,
    workdir: pathlib.Path,
    *,
    step="latest",
    output: pathlib.Path | None = None,
) -> pathlib.Path:
    """Encodes every pair of the experiment's collection with a run's checkpoint.

    The file holds `codes` uint32 [N, Wd], `ids` [N], `labels` [N, L], `label_names`
    [L], `num_bits`; it appears complete or not at all.

    Args:
      experiment: built from the config the run was trained with.
      workdir: the run's directory.
      step: 'latest', 'best' or a step.
      output: the file to write; `encoded.npz` in the workdir by default, with the
        experiment's suffix.

    Returns:
      The path of the file.
    """
    need_codes(experiment)
    load_run(experiment, workdir, step)
    pairs = experiment.collection
    encoder = Encoder(experiment, lower_maps(experiment))
    variables = variables_of(experiment.model)
    codes = encoder(variables, np.arange(len(pairs)), label="encode")
    output = output or workdir / f"encoded{experiment.suffix}.npz"
    return _write(output, codes, pairs, experiment.num_bits)


def need_codes(experiment: Experiment) -> None:
    """Refuses a run whose outputs are not the relaxed bits of one code a pair."""
    task = experiment.task
    if not task.code_of_pair:
        raise ValueError(
            f"The task {task.name} has no codes of pairs to encode, to search by or to "
            "export. Train with --config.task=hashing for them; what this run says of "
            f"its test pairs is in {task.arrays_file} after --mode=evaluate."
        )


def need_codes_of(model: EncoderModel) -> None:
    """`need_codes` of an exported model; one without facts is taken as it is."""
    if not model.task or choose("task of --model", TASKS, model.task).code_of_pair:
        return
    raise ValueError(
        f"--model: it was trained for the task {model.task}, which has no codes of "
        "pairs to encode or to search by. Give the export of a run with "
        "--config.task=hashing; a classifier predicts with --mode=predict."
    )


def encode_with_model(
    model: EncoderModel,
    pairs: Collection,
    workdir: pathlib.Path,
    *,
    batch_size: int,
    workers: int = 0,
    output: pathlib.Path | None = None,
) -> pathlib.Path:
    """`encode_collection` by an exported model; the text is read in its vocabulary.

    Args:
      model: of `load_model_file`.
      pairs: any collection.
      workdir: where the file goes unless `output` says otherwise.
      batch_size: pairs at a time.
      workers: reading processes.
      output: the file to write.

    Returns:
      The path of the file.
    """
    need_codes_of(model)
    pairs = in_label_names(in_vocabulary(pairs, model), model.label_names)
    batches = pipeline.eval_batches(
        pairs,
        np.arange(len(pairs)),
        batch_size=batch_size,
        image_size=model.image_size,
        workers=workers,
    )
    with ProgressBar(len(pairs), label="encode") as bar:
        codes, _ = encode(model.relaxed, batches, progress=bar.advance)
    return _write(output or workdir / "encoded.npz", codes, pairs, model.num_bits)


def in_vocabulary(pairs: Collection, model: EncoderModel) -> Collection:
    """The same pairs with their bags of words in a model's vocabulary.

    Words that the model does not know are dropped. Where one of the two has no
    vocabulary, only the width of the text can be compared.
    """
    if pairs.vocabulary and model.vocabulary:
        if pairs.vocabulary == model.vocabulary:
            _tell_wordless(pairs)
            return pairs
        position = {word: i for i, word in enumerate(pairs.vocabulary)}
        known = [word for word in model.vocabulary if word in position]
        if not known:
            raise ValueError(
                f"--model: none of its {len(model.vocabulary)} words is among the "
                f"{len(pairs.vocabulary)} of {pairs.name}. Expected text in the "
                "language and form the model was trained on."
            )
        left_out = len(pairs.vocabulary) - len(known)
        print(
            f"{len(known)} of the model's {len(model.vocabulary)} words occur in "
            f"{pairs.name}; its other {left_out} are left out."
        )
        bags = np.zeros((len(pairs), len(model.vocabulary)), np.uint8)
        columns = text.word_indices(
            known, {word: i for i, word in enumerate(model.vocabulary)}
        )
        words = [position[model.vocabulary[i]] for i in columns]
        bags[:, columns] = pairs.text[:, words]
        return dataclasses.replace(pairs, text=bags, vocabulary=model.vocabulary)
    if pairs.num_text_features != model.num_text_features:
        raise ValueError(
            f"--model: it reads text of {model.num_text_features} features, "
            f"{pairs.name} has {pairs.num_text_features}, and without the model's "
            "vocabulary they cannot be matched. Keep config.json beside the model."
        )
    return pairs


def _tell_wordless(pairs):
    wordless = int((~pairs.text.any(axis=1)).sum())
    if wordless:
        print(
            f"{wordless:,} of {len(pairs):,} pairs of {pairs.name} have none of the "
            "model's words: they are encoded with an empty text."
        )


def _write(output, codes, pairs, num_bits):
    if not is_first():
        return output
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial.npz")
    try:
        np.savez_compressed(
            partial,
            codes=codes,
            ids=pairs.ids,
            labels=pairs.labels,
            label_names=np.array(pairs.label_names, dtype=str),
            num_bits=num_bits,
        )
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return output
