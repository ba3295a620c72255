"""A trained encoder in files of its own: what `--mode=export` writes and reads back.

encoder.stablehlo   the encoder as a program with its weights, for JAX alone
model.safetensors   the weights by name, for this package
config.json         the run's config, vocabulary, label names, sizes and metrics
tokenizer.json      where the program reads word pieces: what makes their numbers
"""

import hashlib
import json
import pathlib
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from modal_aware_jax import build
from modal_aware_jax.data import pipeline
from modal_aware_jax.hashing.exported import load_encoder, num_masks
from modal_aware_jax.modes.program_text import piece_numbers
from modal_aware_jax.training.memory import Memory

PROGRAM, WEIGHTS, FACTS = "encoder.stablehlo", "model.safetensors", "config.json"


class EncoderModel(NamedTuple):
    """A trained encoder, wherever it came from.

    Attributes:
      relaxed: a batch's `image` uint8 [B, S, S, 3] and `text` float32 [B, T], and
        where it has them `has_image` and `has_text`, bool [B] -> relaxed bits [B, K].
      image_size, num_text_features, num_bits: S, T, K.
      vocabulary: the T words; empty where unknown or where text is not a bag.
      digest: 12 hex digits that tell one model from another.
      label_names: the labels it was trained on; empty where unknown.
      task: what it was trained for, and loss: by which loss; '' where unknown.
      pieces: the encoder of texts to numbers of word pieces; None of bags of words.
    """

    relaxed: Callable
    image_size: int
    num_text_features: int
    num_bits: int
    vocabulary: tuple[str, ...]
    digest: str
    label_names: tuple[str, ...] = ()
    task: str = "hashing"
    loss: str = ""
    pieces: Any = None


def load_model_file(path: pathlib.Path) -> EncoderModel:
    """Loads an encoder from an exported folder or one of the files in it.

    Args:
      path: the folder: its program, or its weights where it has no program; a
        `.stablehlo` file; or a `.safetensors` file with its `config.json` beside it.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        found = [path / name for name in (PROGRAM, WEIGHTS) if (path / name).is_file()]
        if not found:
            raise ValueError(
                f"--model: {path} has neither {PROGRAM} nor {WEIGHTS}. Give a folder "
                "that --mode=export wrote, or one of these files."
            )
        path = found[0]
    if not path.is_file():
        raise ValueError(
            f"--model: there is no file or folder {path}. Make one of a run with "
            "--mode=export --workdir=RUN."
        )
    if path.suffix == ".safetensors":
        return _from_weights(path)
    return _from_program(path)


def flat_variables(model: nnx.Module) -> dict[str, np.ndarray]:
    """The variables of a model by dotted names, as `model.safetensors` holds them.

    Without what a loss remembers of its training.
    """
    state = nnx.state(model, nnx.Not(Memory))
    leaves = jax.tree.leaves_with_path(nnx.to_pure_dict(state))
    return {_name(path): np.ascontiguousarray(leaf) for path, leaf in leaves}


def _name(path):
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _digest(path):
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


def _from_program(path):
    exported = load_encoder(path)
    images, text = exported.in_avals[:2]
    facts = _facts(path.with_name(FACTS)) if path.with_name(FACTS).exists() else {}

    def relaxed(batch):
        arrays = batch["image"], batch["text"]
        if num_masks(exported):
            arrays += tuple(_mask(batch, name) for name in pipeline.PRESENCE)
        return exported.call(*arrays)[1]

    return EncoderModel(
        relaxed=relaxed,
        image_size=images.shape[1],
        num_text_features=text.shape[1],
        num_bits=exported.out_avals[1].shape[1],
        vocabulary=tuple(facts.get("vocabulary", ())),
        digest=_digest(path),
        label_names=tuple(facts.get("label_names", ())),
        pieces=piece_numbers(path.parent, facts),
        **_purpose(facts),
    )


def _purpose(facts):
    """Task and loss of the run; facts of before there were tasks are of codes."""
    if not facts:
        return {"task": ""}
    loss = facts.get("config", {}).get("loss", {}).get("name", "")
    return {"task": facts.get("task", "hashing"), "loss": loss}


def _mask(batch, name):
    """Which rows have a modality: all, where a batch does not say."""
    return np.asarray(batch.get(name, np.ones(len(batch["text"]), bool)))


def _from_weights(path):
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    facts = _facts(path.with_name(FACTS))
    config = ConfigDict(facts["config"])
    if config.data.get("text") in ("word_tokens", "word_pieces", "word_ids"):
        raise ValueError(
            f"--model: {path} are weights of a network that reads tokens, which its "
            f"program alone makes. Give the folder, with {PROGRAM} in it."
        )
    config.backbone.weights = ""  # all weights are in the file
    config.training.cached_maps = False
    sizes = types.SimpleNamespace(
        num_text_features=facts["num_text_features"], num_labels=facts["num_labels"]
    )
    try:
        saved = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"--model: {path} is not a whole .safetensors file ({error}). Copy or "
            "export it again."
        ) from error
    vectors = saved.get("text.vectors") if config.data.get("text") == "words" else None
    purpose = _purpose(facts)
    # Of codes the head may be longer than what was exported: they may be nested.
    outputs = None if purpose["task"] == "hashing" else facts["num_bits"]
    model = build.model(config, sizes, vectors, num_outputs=outputs)
    _fill(model, saved, path)
    graphdef, state = nnx.split(model)
    kind = build.choose("backbone", build.BACKBONES, config.backbone.name)
    normalize = build.normalizer(kind.mean, kind.deviation)

    def output(model, batch):
        text, options = batch["text"], {}
        if getattr(model, "has_stand_ins", False):
            options["present"] = build.presence(batch, text)
        return model(normalize(batch["image"]), text, train=False, **options)

    if build.reads_mirrored(config, model):
        output = build.mean_with_mirror(output, cached_maps=False)

    @jax.jit
    def relaxed(state, batch):
        whole = output(nnx.merge(graphdef, state), batch)
        return whole[:, : facts["num_bits"]]  # the first of nested codes

    read = ("image", "text", *pipeline.PRESENCE)
    return EncoderModel(
        relaxed=lambda batch: relaxed(state, {n: batch[n] for n in read if n in batch}),
        image_size=facts["image_size"],
        num_text_features=facts["num_text_features"],
        num_bits=facts["num_bits"],
        vocabulary=tuple(facts["vocabulary"]),
        digest=_digest(path),
        label_names=tuple(facts.get("label_names", ())),
        **purpose,
    )


def _fill(model, saved, path):
    state = nnx.state(model)
    values = nnx.to_pure_dict(state)
    ours = {_name(p): leaf for p, leaf in jax.tree.leaves_with_path(values)}
    wrong = [f"{name} is missing" for name in ours.keys() - saved.keys()]
    wrong += [f"{name} is unknown" for name in saved.keys() - ours.keys()]
    wrong += [
        f"{name} is {list(saved[name].shape)}, expected {list(ours[name].shape)}"
        for name in ours.keys() & saved.keys()
        if saved[name].shape != ours[name].shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 4} more)" if len(wrong) > 4 else ""
        raise ValueError(
            f"--model: {path} does not hold the weights of the network in its "
            f"{FACTS}: {'; '.join(sorted(wrong)[:4])}{more}. Keep the two files of one "
            "export together."
        )
    values = jax.tree.map_with_path(lambda p, _: saved[_name(p)], values)
    nnx.replace_by_pure_dict(state, values)
    nnx.update(model, state)


def _facts(path):
    needed = ("config", "image_size", "num_bits", "num_text_features", "num_labels")
    try:
        facts = json.loads(path.read_text("utf-8"))
        missing = [name for name in (*needed, "vocabulary") if name not in facts]
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"--model: {path} cannot be read ({error}). It belongs beside {WEIGHTS}, "
            "as --mode=export wrote it."
        ) from error
    if missing:
        raise ValueError(
            f"--model: {path} lacks {', '.join(missing)}. Use the file that "
            "--mode=export wrote."
        )
    return facts
