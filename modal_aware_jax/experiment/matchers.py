"""The methods of matching: towers or tokens behind a backbone, and their losses."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx

from modal_aware_jax.backbones.piece_reader import pretrained_reader
from modal_aware_jax.backbones.text_vector import PlainText, StandardText
from modal_aware_jax.backbones.word_reader import WordReader
from modal_aware_jax.blocks.cross_modal_graph import CrossModalGraph, recommended_graph
from modal_aware_jax.data.token_table import TokenTable
from modal_aware_jax.data.word_ids import WordIds
from modal_aware_jax.data.word_sequences import WordSequences
from modal_aware_jax.experiment import token_networks as tokens
from modal_aware_jax.experiment.backbones import backbone
from modal_aware_jax.experiment.precision import compute_in
from modal_aware_jax.losses.info_nce import info_nce, label_info_nce
from modal_aware_jax.losses.sigmoid_pairs import sigmoid_pairs
from modal_aware_jax.losses.similarity_distillation import similarity_distillation
from modal_aware_jax.losses.vse import max_hinge, sum_hinge
from modal_aware_jax.models.captioned import CaptionedTowers
from modal_aware_jax.models.captioned_tokens import CaptionedTokens
from modal_aware_jax.models.linear_towers import LinearTowers
from modal_aware_jax.models.reading_tower import ReadingTower
from modal_aware_jax.models.two_tower import TwoTower


class Loss(NamedTuple):
    """A row of the table.

    Attributes:
      function: `function(image, text, temperature, groups=..., **options)` of two
        embeddings [B, F], the network's `Temperature` and `groups` of a batch.
      options: its keywords, and their values where the config gives no other.
      groups: what a batch tells by which rows belong together: `index`, the images'
        numbers [B], or `labels` [B, L].
      taught: whether it takes the logits `teacher` [B, B] of the CLIP whose folder its
        option of that name is.
    """

    function: Callable
    options: dict[str, Any]
    groups: str = "index"
    taught: bool = False


def _info_nce(image, text, temperature, **options):
    return info_nce(image, text, scale=temperature.scale(), **options)


def _label_info_nce(image, text, temperature, *, groups):
    return label_info_nce(image, text, groups, scale=temperature.scale())


def _sigmoid_pairs(image, text, temperature, **options):
    learned = {"scale": temperature.scale(), "bias": temperature.bias[...]}
    return sigmoid_pairs(image, text, **learned, **options)


def _distilled(image, text, temperature, *, groups, teacher, weight):
    scale = temperature.scale()
    return info_nce(image, text, scale=scale, groups=groups) + (
        weight * similarity_distillation(image, text, teacher, scale=scale)
    )


def _without_temperature(hinge):
    return lambda image, text, temperature, **options: hinge(image, text, **options)


LOSSES = {
    "info_nce": Loss(_info_nce, {}),
    "sigmoid_pairs": Loss(_sigmoid_pairs, {}),
    "max_hinge": Loss(_without_temperature(max_hinge), {"margin": 0.2}),
    "sum_hinge": Loss(_without_temperature(sum_hinge), {"margin": 0.2}),
    "similarity_distillation": Loss(
        _distilled, {"teacher": "", "weight": 1.0}, taught=True
    ),
}
LABEL_LOSSES = {**LOSSES, "label_info_nce": Loss(_label_info_nce, {}, "labels")}


class Matcher(NamedTuple):
    """A row of the table.

    Attributes:
      title: what tables and figures call it.
      towers: constructor `(image_features, text_features, features, *, ...)` of a
        `TwoTower`, on means and sentence vectors.
      loss: a name of `LOSSES`; a config's `loss.name` may be another one.
      solve: `solve(towers, images [N, Di], texts [N, Dt], **config.model.cca)` fills
        them in closed form; None where they are trained.
      tokens: constructor `(image_features, text_features, options, rngs)` of a network
        on tokens, `options` being `config.model`; None for towers.
      pairs: of such a network, the name of its loss of pairs in `PAIR_LOSSES`.
      momentum: whether its contrast is against a slow copy of itself.
    """

    title: str
    towers: Callable | None
    loss: str = "info_nce"
    solve: Callable | None = None
    tokens: Callable | None = None
    pairs: str = "choice"
    momentum: bool = False


def _without_dropout(*widths, **options):
    kept = {key: value for key, value in options.items() if "dropout" not in key}
    return TwoTower(*widths, **kept)


def _linear(*widths, rngs, **options):
    del options  # nothing is trained
    return LinearTowers(*widths, rngs=rngs)


MATCHERS = {
    "towers": Matcher("two towers, InfoNCE", TwoTower),
    "siglip": Matcher(
        "two towers, sigmoid of pairs",
        functools.partial(TwoTower, scale=10.0, bias=-10.0),
        "sigmoid_pairs",
    ),
    "vse": Matcher("VSE++ (max-hinge)", TwoTower, "max_hinge"),
    "vse_sum": Matcher("sum-hinge", TwoTower, "sum_hinge"),
    "distilled": Matcher(
        "two towers, distilled from CLIP", TwoTower, "similarity_distillation"
    ),
    "towers_no_dropout": Matcher("towers w/o dropout", _without_dropout),
    "cca": Matcher("CCA, regularised", _linear, solve=LinearTowers.solve),
    "cmfg": Matcher("CMFG beside the means", None, tokens=tokens.graph_beside_means),
    "cmfg_literal": Matcher(
        "CMFG, literal", None, tokens=tokens.graph(CrossModalGraph, "features")
    ),
    "towers_cmfg": Matcher(
        "towers, re-ranked by CMFG",
        None,
        tokens=tokens.reranked(tokens.graph(recommended_graph, "token_features")),
    ),
    "single_stream": Matcher(
        "towers, re-ranked by a single stream",
        None,
        tokens=tokens.reranked(tokens.single_stream),
    ),
    "modal_aware": Matcher(
        "towers, re-ranked by the modal-aware block",
        None,
        tokens=tokens.reranked(tokens.modal_aware),
    ),
    "align_before_fuse": Matcher(
        "align before fuse",
        None,
        tokens=tokens.align_before_fuse,
        pairs="binary",
        momentum=True,
    ),
}


LABEL_MATCHERS = {
    **MATCHERS,
    "towers_labels": Matcher(
        "two towers, InfoNCE by labels", TwoTower, "label_info_nce"
    ),
}


def text_features(text) -> int:
    """Width of the vectors that an encoder gives of sentences, word pieces or words."""
    vectors = getattr(text, "vectors_of_words", None)
    return text.model.features if vectors is None else vectors.shape[1]


def _reader(options, text, rngs) -> nnx.Module | None:
    """What reads texts that come as numbers; None where they are vectors."""
    if isinstance(text, WordIds):
        rate = options.get("encoder_dropout", 0.0)
        return pretrained_reader(text.model.folder, text.longest, dropout_rate=rate)
    if not isinstance(text, WordSequences):
        return None
    return WordReader(
        text.num_words,
        text.length,
        options.word_features,
        num_layers=options.reader_layers,
        rngs=rngs,
    )


def network(config, pairs, text, *, method: Matcher, num_outputs: int) -> nnx.Module:
    """The network of `config.model`: a backbone, and towers or a network of tokens."""
    rngs, options = nnx.Rngs(config.seed), config.model
    is_read = isinstance(text, WordSequences | WordIds)
    if method.tokens is not None and not (
        is_read or isinstance(pairs.text, TokenTable)
    ):
        raise ValueError(
            f"The method {config.model.method} reads texts word by word: set "
            "--config.data.text=word_pieces_by_line, word_ids_by_line, sequences or "
            f"(of tags) word_tokens, got {config.data.text!r}."
        )
    if method.solve is not None and is_read:
        raise ValueError(
            f"The method {config.model.method} is solved from vectors of texts, and "
            f"config.data.text={config.data.text} gives numbers of words. Set "
            "--config.data.text=sentences."
        )
    trunk = backbone(config.backbone, config.data.get("dir", ""), rngs)
    reader = _reader(options, text, rngs)
    width = text_features(text) if reader is None else reader.features
    widths = trunk.upper_features, width
    if method.tokens is None:
        towers = method.towers(
            *widths, num_outputs, **tokens.tower_options(options, rngs)
        )
        if reader is not None:
            towers.text = ReadingTower(reader, towers.text)
        whole = CaptionedTowers(trunk, towers)
    else:
        read = method.tokens(*widths, options, rngs)
        inputs = StandardText if options.get("standard_inputs") else PlainText
        whole = CaptionedTokens(
            trunk,
            read,
            inputs=inputs(trunk.upper_features, rngs=rngs),
            reader=reader,
            momentum=method.momentum,
        )
    return compute_in(whole, options.get("dtype", "float32"))
