"""Pretrained encoders from a folder as the transformers library saves it."""

import json
import os
import pathlib

from modal_aware_jax.backbones.bert import BERT
from modal_aware_jax.backbones.clip import CLIP
from modal_aware_jax.backbones.fill import fill
from modal_aware_jax.backbones.transformer_names import plain_names, slots_of
from modal_aware_jax.backbones.transformer_shapes import empty_model, timm_facts
from modal_aware_jax.backbones.vit import ViT

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def from_pretrained(
    folder: str | os.PathLike,
    *,
    dropout_rate: float = 0.0,
    implementation: str | None = None,
    dtype=None,
) -> ViT | BERT | CLIP:
    """The encoder of a folder, with its weights.

    The folder is what the transformers library's `save_pretrained` writes: a
    `config.json` whose model_type is vit, bert, clip (OpenAI's and OpenCLIP's exports),
    chinese_clip or siglip, and `model.safetensors`, alone or in the shards of
    `model.safetensors.index.json`. A ViT of timm is read too. Heads and poolers that
    the encoders lack are left out (`transformer_names.IGNORED`); any other key that is
    missing or left over is an error that lists them all. Outputs are those of the
    library in float32.

    Args:
      folder: a path, or `hf-hub:owner/name` (or `hf-hub:owner/name@revision`), a
        repository of huggingface.co, which needs `pip install 'modal-aware-jax[hub]'`.
      dropout_rate: for training; whatever the config says, none by default.
      implementation: of the attention, see `transformer.attend`.
      dtype: of the computation, such as `jax.numpy.bfloat16`; the weights stay float32.

    Raises:
      ValueError: the folder, a file or an array is not as described; says which one
        and what to do.

    >>> from_pretrained("no_such_folder")
    Traceback (most recent call last):
    ValueError: from_pretrained: there is no folder no_such_folder. Give a folder as ...
    """
    folder = _folder(os.fspath(folder))
    facts = _read_json(folder, "config.json")
    state = _read_weights(folder)
    options = {
        "dropout_rate": dropout_rate,
        "implementation": implementation,
        "dtype": dtype,
    }
    try:
        if "model_type" not in facts and "architecture" in facts:
            shapes = {key: value.shape for key, value in state.items()}
            facts = timm_facts(facts, shapes)
        model = empty_model(facts, options)
    except ValueError as error:
        raise ValueError(
            f"from_pretrained: {folder / 'config.json'}: {error}"
        ) from error
    state = plain_names(state, type(model))
    fill(
        slots_of(model, state),
        state,
        caller="from_pretrained",
        source=f"{folder}",
        whole=f"the {facts['model_type']} of its config.json",
        cure="config.json and the weights are of different models: take both from the "
        "same place and revision.",
    )
    return model


def _folder(name) -> pathlib.Path:
    if name.startswith("hf-hub:"):
        return _download(name.removeprefix("hf-hub:"))
    folder = pathlib.Path(name).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"from_pretrained: there is no folder {name}. Give a folder as the "
            "transformers library's save_pretrained writes it, or 'hf-hub:owner/name'."
        )
    return folder


def _download(name):
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"from_pretrained: 'hf-hub:{name}' needs huggingface_hub, which is not "
            "installed. Run `pip install 'modal-aware-jax[hub]'`, or download the "
            "repository yourself and give its folder."
        ) from error
    repository, _, revision = name.partition("@")
    patterns = ["config.json", INDEX, "model*.safetensors"]
    return pathlib.Path(
        snapshot_download(
            repository, revision=revision or None, allow_patterns=patterns
        )
    )


def _read_json(folder, name):
    path = folder / name
    if not path.is_file():
        raise ValueError(
            f"from_pretrained: {folder} has no {name}. Give a folder as the "
            "transformers library's save_pretrained writes it; a file of weights alone "
            "does not tell the number of heads."
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        facts = error
    if not isinstance(facts, dict):
        raise ValueError(
            f"from_pretrained: {path} is not a JSON object ({facts}). Download it "
            "again."
        )
    return facts


def _read_weights(folder):
    """All arrays of the folder's shards, by key."""
    if (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file():
        places = _read_json(folder, INDEX).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise ValueError(
                f"from_pretrained: {folder / INDEX} has no weight_map. Download it "
                "again."
            )
    elif (folder / WEIGHTS).is_file():
        return _read_shard(folder / WEIGHTS)
    else:
        raise ValueError(
            f"from_pretrained: {folder} has neither {WEIGHTS} nor {INDEX}. Save the "
            "model with the transformers library's save_pretrained, which writes "
            "safetensors; a pytorch_model.bin is not read."
        )
    names = sorted(set(places.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"from_pretrained: {folder} lacks {', '.join(missing)}, of the "
            f"{len(names)} files that {INDEX} names. Download what is missing."
        )
    state = {}
    for name in names:
        state |= _read_shard(folder / name)
    return state


def _read_shard(path):
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise ImportError(
            f"from_pretrained reads {path} through safetensors, which is not "
            "installed. Run `pip install 'modal-aware-jax[train]'`."
        ) from error
    try:
        return load_file(path)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"from_pretrained: {path} ({os.path.getsize(path):,} bytes) is not a whole "
            f".safetensors file: {error}. Download it again."
        ) from error
