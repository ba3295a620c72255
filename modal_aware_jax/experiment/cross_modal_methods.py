"""The methods of cross-modal codes: one network, and the losses of its table."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.text_vector import PlainText, StandardText
from modal_aware_jax.experiment.backbones import backbone
from modal_aware_jax.experiment.precision import compute_in
from modal_aware_jax.hashing.head import HashHead
from modal_aware_jax.losses.cross_modal_ap import cross_modal_average_precision_loss
from modal_aware_jax.losses.dcmh import dcmh
from modal_aware_jax.losses.info_nce import info_nce, label_info_nce
from modal_aware_jax.models.captioned import CaptionedTowers
from modal_aware_jax.models.two_tower import TwoTower
from modal_aware_jax.models.word_tower import WordTower


class Loss(NamedTuple):
    """A row of the table.

    Attributes:
      function: `function(image, text, labels, temperature, **options)` of relaxed bits
        [B, K] of both sides before tanh, labels [B, L] and the network's `Temperature`.
      options: its keywords, and their values where the config gives no other.
    """

    function: Callable
    options: dict[str, Any]


def _dcmh(image, text, labels, temperature, **options):
    del temperature
    return dcmh(image, text, labels, **options)


def _average_precision(image, text, labels, temperature, *, weight):
    del temperature
    codes = jnp.tanh(image), jnp.tanh(text)
    return weight * cross_modal_average_precision_loss(*codes, labels)


def _pairs(image, text, labels, temperature):
    del labels
    scale = temperature.scale()
    return info_nce(jnp.tanh(image), jnp.tanh(text), scale=scale)


def _labels(image, text, labels, temperature):
    scale = temperature.scale()
    return label_info_nce(jnp.tanh(image), jnp.tanh(text), labels, scale=scale)


LOSSES = {
    "cross_modal_ap": Loss(_average_precision, {"weight": 10.0}),
    "dcmh": Loss(_dcmh, {"quantization_weight": 1.0, "balance_weight": 1.0}),
    "info_nce": Loss(_pairs, {}),
    "label_info_nce": Loss(_labels, {}),
}


class CrossModalMethod(NamedTuple):
    """A row of the table.

    Attributes:
      title: what tables and figures call it.
      loss: a name of `LOSSES`; a config's `loss.name` may be another one.
    """

    title: str
    loss: str


METHODS = {
    "average_precision": CrossModalMethod("average precision", "cross_modal_ap"),
    "dcmh": CrossModalMethod("DCMH's loss", "dcmh"),
    "info_nce": CrossModalMethod("InfoNCE and sign", "info_nce"),
    "label_info_nce": CrossModalMethod("InfoNCE by labels and sign", "label_info_nce"),
}


def network(config, pairs, text, *, method, num_outputs: int) -> nnx.Module:
    """Two towers with hash heads on a backbone's means and on the text's vectors."""
    del method
    rngs, options = nnx.Rngs(config.seed), config.model
    trunk = backbone(config.backbone, config.data.get("dir", ""), rngs)
    vectors = getattr(text, "vectors_of_words", None)
    width = pairs.num_text_features if vectors is None else vectors.shape[1]
    towers = TwoTower(
        trunk.upper_features,
        width,
        num_outputs,
        hidden_features=options.hidden_features,
        image_dropout_rate=options.image_dropout,
        hidden_dropout_rate=options.hidden_dropout,
        image_inputs=StandardText,
        # A word that a batch lacks has no deviation: bags stay as they are.
        text_inputs=PlainText if pairs.vocabulary else StandardText,
        head=HashHead,
        rngs=rngs,
    )
    if vectors is not None:
        towers.text = WordTower(vectors, towers.text)
    return compute_in(CaptionedTowers(trunk, towers), options.get("dtype", "float32"))
