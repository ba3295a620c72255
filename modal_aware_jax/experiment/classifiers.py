"""The methods of classification: each a network, its loss, and what it adds to it.

Where the text is one vector a post, the networks are those of hashing with logits for
bits (`experiment/methods.py`); where it is tokens, all methods are `TokenClassifier`s
on the same tokens, and a row says how these interact and how they are fused.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.piece_reader import PieceReader, pretrained_reader
from modal_aware_jax.blocks.guided_feed_forward import ImageWiseFeedForward
from modal_aware_jax.blocks.similarity_interaction import (
    AskedByOther,
    SimilarityInteraction,
    mean_one_similarity,
    sigmoid_similarity,
)
from modal_aware_jax.data.token_table import TokenTable
from modal_aware_jax.data.word_ids import WordIds
from modal_aware_jax.data.word_sequences import WordSequences
from modal_aware_jax.experiment.backbones import backbone
from modal_aware_jax.experiment.methods import BLOCKS, METHODS, model
from modal_aware_jax.experiment.precision import compute_in
from modal_aware_jax.fusion import (
    AsymmetricCoAttention,
    CoAttention,
    CompactBilinear,
    CrossLayerBridges,
    FeatureLevelFusion,
    GatedMultimodalUnit,
    ImageAlone,
    MergeAttention,
    PooledFusion,
    SimilarityFusion,
    TextAlone,
)
from modal_aware_jax.fusion.modal_aware_tokens import ModalAwareFusion
from modal_aware_jax.losses.loss_balance import loss_balanced
from modal_aware_jax.losses.unimodal_contrastive import unimodal_contrastive
from modal_aware_jax.models.classifier import (
    DenseLayers,
    NoInteraction,
    TokenClassifier,
)
from modal_aware_jax.models.token_network import OneVectorNetwork, TokenNetwork


class Tokens(NamedTuple):
    """How a method makes one vector of two sets of tokens.

    Attributes:
      fusion: constructor of `TokenClassifier`'s fusion.
      interaction: of its interaction; where it has weights, it takes `dropout_rate`.
      network: `TokenNetwork`, or another one on its tokens.
      added: `added(outputs, of_head, batch)` -> a further term of the loss, of both
        modalities' own predictions; None for none.
    """

    fusion: Callable
    interaction: Callable = NoInteraction
    network: Callable = TokenNetwork
    added: Callable | None = None


class Classifier(NamedTuple):
    """A row of the table.

    Attributes:
      title: what tables and figures call it.
      network: of vectors, as `Method.network`; None where it needs tokens.
      tokens: of tokens; None where it needs vectors.
      loss: a name of the task's losses; a config's `loss.name` may be another one.
    """

    title: str
    network: Callable | None = None
    tokens: Tokens | None = None
    loss: str = "softmax"


def unis_mmc(outputs, of_head, batch, *, weight=0.1):
    """UniS-MMC's: both modalities' own losses and a tenth of its contrastive term."""
    right = [
        _is_right(outputs[name], batch["labels"])
        for name in ("text_logits", "image_logits")
    ]
    both = outputs["has_text"] & outputs["has_image"]
    term = unimodal_contrastive(outputs["text"], outputs["image"], *right, mask=both)
    return (
        of_head(outputs["text_logits"])
        + of_head(outputs["image_logits"])
        + (weight * term)
    )


def balanced(outputs, of_head, batch):
    """Both modalities' own losses, the larger one weighing more."""
    del batch
    names = ("text_logits", "image_logits")
    return loss_balanced(jnp.stack([of_head(outputs[name]) for name in names]))


def _is_right(logits, labels):
    """Whether the likeliest class is the post's; of several labels, one of them."""
    best = logits.argmax(axis=1)
    return jnp.take_along_axis(labels, best[:, None], axis=1)[:, 0] > 0


def _pooled(fusion, **options):
    return functools.partial(PooledFusion, fusion=functools.partial(fusion, **options))


def _interaction(**options):
    return functools.partial(SimilarityInteraction, **options)


CONCAT = PooledFusion
MODAL_AWARE = functools.partial(ModalAwareFusion, block=BLOCKS["modal_aware"])

TOKENS = {
    "sgmft": ("SG-MFT", Tokens(SimilarityFusion, SimilarityInteraction)),
    "sgmft_no_interaction": ("SG-MFT w/o SIM", Tokens(SimilarityFusion)),
    "sgmft_no_fusion": ("SG-MFT w/o SFM", Tokens(CONCAT, SimilarityInteraction)),
    "sgmft_image_wise": (
        "SG-MFT, image-wise",
        Tokens(SimilarityFusion, _interaction(feed_forward=ImageWiseFeedForward)),
    ),
    "sgmft_mean_one": (
        "SG-MFT, mean-one shares",
        Tokens(SimilarityFusion, _interaction(share=mean_one_similarity)),
    ),
    "sgmft_sigmoid": (
        "SG-MFT, sigmoid shares",
        Tokens(SimilarityFusion, _interaction(share=sigmoid_similarity)),
    ),
    "sgmft_one_vector": (
        "SG-MFT, one vector each (eq. 9 as printed)",
        Tokens(SimilarityFusion, _interaction(cross=AskedByOther), OneVectorNetwork),
    ),
    "concat": ("Concat", Tokens(CONCAT)),
    "image": ("image alone", Tokens(ImageAlone)),
    "text": ("text alone", Tokens(TextAlone)),
    "feature_level": ("TextCNN and CNN features", Tokens(FeatureLevelFusion)),
    "gmu": ("GMU", Tokens(_pooled(GatedMultimodalUnit, features=512))),
    "mcb": ("MCB", Tokens(_pooled(CompactBilinear, features=2048))),
    "modal_aware": ("modal-aware", Tokens(MODAL_AWARE)),
    "merge_attention": ("merge attention", Tokens(MergeAttention)),
    "co_attention": ("co-attention", Tokens(CoAttention)),
    "asymmetric_co_attention": (
        "asymmetric co-attention",
        Tokens(AsymmetricCoAttention),
    ),
    "bridges": ("cross-layer bridges", Tokens(CrossLayerBridges)),
    "unis_mmc": ("UniS-MMC's term", Tokens(CONCAT, added=unis_mmc)),
    "loss_balanced": ("losses balanced", Tokens(CONCAT, added=balanced)),
}

FOR_CODES = "it is the network of 'image' with a loss for codes."
REFUSED = dict.fromkeys(("dth", "dpsh", "dsh", "hashnet", "csq"), FOR_CODES) | {
    "contrastive": FOR_CODES,
    "text_hash": "it is the network of 'text' with a loss for codes.",
    "divide_and_encode": "its head cuts the features into a slice for each bit.",
}
CLASSIFIERS = {
    name: Classifier(row.title, network=row.network)
    for name, row in METHODS.items()
    if name not in REFUSED
}
for _name, (_title, _tokens) in TOKENS.items():
    _row = CLASSIFIERS.get(_name, Classifier(_title))
    CLASSIFIERS[_name] = _row._replace(tokens=_tokens)


def network(config, pairs, text, *, method: Classifier, num_outputs: int) -> nnx.Module:
    """The network of `config.model`, of tokens where the text is tokens."""
    name, kind = config.model.method, config.data.get("text", "bag")
    if isinstance(text, WordSequences):
        raise ValueError(
            f"The method {name!r} reads one vector a post, or tokens: config.data.text="
            f"{kind} gives the numbers of words. Take --config.data.text=word_tokens, "
            "word_pieces or sentence."
        )
    reader = _reader(config, text)
    if reader is None and not isinstance(pairs.text, TokenTable):
        if method.network is None:
            raise ValueError(
                f"The method {name!r} reads tokens: config.data.text={kind} gives one "
                "vector a post. Take --config.data.text=word_pieces, which needs a "
                "sentence model, or word_tokens."
            )
        vectors = getattr(text, "vectors_of_words", None)
        return model(config, pairs, vectors, method=method, num_outputs=num_outputs)
    if method.tokens is None:
        raise ValueError(
            f"The method {name!r} reads one vector a post: config.data.text={kind} "
            "gives tokens. Take --config.data.text=sentence or bag, or one of "
            f"{', '.join(TOKENS)}."
        )
    if config.loss.get("label_weight", 0.0):
        raise ValueError(
            f"config.loss.label_weight={config.loss.label_weight}: networks of tokens "
            "have no label head beside their logits. Set --config.loss.label_weight=0."
        )
    rngs = nnx.Rngs(config.seed)
    trunk = backbone(config.backbone, config.data.get("dir", ""), rngs)
    width = pairs.num_text_features if reader is None else reader.features
    made = token_network(
        config.model, trunk, width, num_outputs, method.tokens, rngs, reader=reader
    )
    return compute_in(made, config.model.get("dtype", "float32"))


# Of the section `model`, where a config that was made for vectors lacks them.
OF_TOKENS = {
    "features": 128,
    "num_heads": 8,
    "image_side": 0,
    "token_dropout": 0.5,
    "head_dropout": 0.5,
    "block_dropout": 0.1,
    "modality_dropout": 0.0,
    "head_layers": 2,
}


def _reader(config, text) -> PieceReader | None:
    """The text encoder that is trained with the rest; None where texts are read."""
    if not isinstance(text, WordIds):
        return None
    rate = config.model.get("encoder_dropout", 0.0)
    return pretrained_reader(text.model.folder, text.longest, dropout_rate=rate)


def token_network(
    options, trunk, text_features, num_outputs, row: Tokens, rngs, reader=None
):
    """The network of a row on a backbone's positions and on the text's tokens.

    Args:
      options: the config's section `model`.
      trunk: the backbone, with `upper_features`.
      text_features: D of the text's tokens.
      num_outputs: of the head.
      row: of the method.
      rngs: source of the initial weights.
      reader: from what a batch has of texts to tokens; None where it has tokens.
    """
    given = OF_TOKENS | {name: options[name] for name in OF_TOKENS if name in options}
    interaction = row.interaction
    if interaction is not NoInteraction:
        rate = given["block_dropout"]
        interaction = functools.partial(interaction, dropout_rate=rate)
    classifier = TokenClassifier(
        text_features,
        trunk.upper_features,
        num_outputs,
        features=given["features"],
        num_heads=given["num_heads"],
        interaction=interaction,
        fusion=row.fusion,
        head=functools.partial(
            DenseLayers,
            features=given["features"],
            num_layers=given["head_layers"],
            dropout_rate=given["head_dropout"],
        ),
        unimodal=row.added is not None,
        dropout_rate=given["token_dropout"],
        modality_dropout=given["modality_dropout"],
        rngs=rngs,
    )
    return row.network(trunk, classifier, side=given["image_side"], reader=reader)


def added_term(config, trained: nnx.Module) -> Callable | None:
    """What the method of a config adds to the loss of its network, or None."""
    if not isinstance(trained, TokenNetwork):
        return None
    return CLASSIFIERS[config.model.method].tokens.added
