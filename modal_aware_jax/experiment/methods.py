"""The methods of the papers' tables: each a network and the loss it is trained with.

All share backbone, text branch, hidden layer, data, schedule and evaluation; a row says
what is its own. The options of the losses are in `experiment/losses.py`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from flax import nnx

from modal_aware_jax.backbones.image_vector import DenseVector, MeanVector
from modal_aware_jax.backbones.stand_in import NoStandIn, StandIn
from modal_aware_jax.backbones.text_mlp import TextMLP
from modal_aware_jax.backbones.text_vector import PlainText, StandardText
from modal_aware_jax.backbones.word_vectors import WordVectorMLP
from modal_aware_jax.blocks.channel_attention import (
    ChannelAttention,
    SqueezedChannelAttention,
    double_sigmoid,
)
from modal_aware_jax.blocks.kernel_network import KernelNetwork
from modal_aware_jax.blocks.modal_aware import ModalAwareBlock, PassThrough
from modal_aware_jax.blocks.position_kernel import PositionKernel
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.experiment.backbones import backbone
from modal_aware_jax.experiment.lookup import choose
from modal_aware_jax.experiment.losses import has_taught_head
from modal_aware_jax.experiment.precision import compute_in
from modal_aware_jax.fusion import (
    CompactBilinear,
    Concat,
    ElementwiseProduct,
    ElementwiseSum,
    FactorizedBilinear,
    GatedMultimodalUnit,
    LowRankBilinear,
)
from modal_aware_jax.hashing.divide_and_encode import DivideAndEncodeHead
from modal_aware_jax.hashing.head import TaughtHashHead
from modal_aware_jax.hashing.hidden import HiddenLayer, NoHiddenLayer
from modal_aware_jax.models.multimodal_hashing import MultimodalHashing
from modal_aware_jax.models.unimodal import ImageHashing, TextHashing


class Method(NamedTuple):
    """A row of the table.

    Attributes:
      title: what tables and figures call it.
      network: constructor `(make_backbone, text_features, num_bits, *, text_widths,
        text_branch, image_vector, text_vector, hidden, stand_in, num_labels, rngs)`;
        `make_backbone(rngs)` gives the image backbone.
      loss: a name of `LOSSES`; a config's `loss.name` may be another one.
    """

    title: str
    network: Callable
    loss: str = "expected_ap"


def _low_rank_kernel(image_features, text_features, **options):
    """The same functions as the literal kernel network's, with fewer weights."""
    rank = min(image_features + 1, text_features)
    return KernelNetwork(image_features, text_features, rank=rank, **options)


# Gates of one and even weights at the start: training begins with Concat.
_neutral_attention = functools.partial(
    SqueezedChannelAttention,
    gate=double_sigmoid,
    logit_init=nnx.initializers.zeros,
)


def _block(kernel_network, channel_attention):
    return functools.partial(
        ModalAwareBlock,
        kernel_network=kernel_network,
        channel_attention=channel_attention,
    )


# The blocks of MultimodalHashing by method: the recommended form, the paper's literal
# form, the same with the exactly equivalent low-rank kernel, the recommended form
# without one half, and no blocks at all.
BLOCKS = {
    "modal_aware": _block(PositionKernel, _neutral_attention),
    "modal_aware_paper": _block(KernelNetwork, ChannelAttention),
    "modal_aware_low_rank": _block(_low_rank_kernel, ChannelAttention),
    "modal_aware_squeezed": _block(_low_rank_kernel, SqueezedChannelAttention),
    "no_kernel": _neutral_attention,
    "no_attention": PositionKernel,
    "concat": PassThrough,
}


def _joint(block, fusion=Concat, last_block=None):
    def network(make_backbone, text_features, num_bits, *, rngs, **options):
        trunk = make_backbone(rngs)
        return MultimodalHashing(
            trunk,
            text_features,
            num_bits,
            block=block,
            last_block=last_block,
            fusion=fusion,
            rngs=rngs,
            **options,
        )

    return network


def _fused(fusion, features):
    """No blocks; what joins the two vectors is all the method adds."""
    return _joint(PassThrough, functools.partial(fusion, features=features))


def _image(head=None):
    def network(
        make_backbone,
        text_features,
        num_bits,
        *,
        text_widths,
        text_branch,
        text_vector,
        stand_in,
        rngs,
        **heads,
    ):
        del text_features, text_widths, text_branch, text_vector, stand_in
        if head is not None:  # the method's own
            heads["head"] = head
        return ImageHashing(make_backbone(rngs), num_bits, rngs=rngs, **heads)

    return network


def _text(make_backbone, text_features, num_bits, *, image_vector, stand_in, **options):
    del make_backbone, image_vector, stand_in
    return TextHashing(text_features, num_bits, **options)


METHODS = {
    "modal_aware": Method("modal-aware", _joint(BLOCKS["modal_aware"])),
    "modal_aware_paper": Method(
        "modal-aware, literal", _joint(BLOCKS["modal_aware_paper"])
    ),
    "modal_aware_low_rank": Method(
        "modal-aware, literal with low-rank kernel",
        _joint(BLOCKS["modal_aware_low_rank"]),
    ),
    "modal_aware_squeezed": Method(
        "modal-aware, low-rank kernel, squeezed attention",
        _joint(BLOCKS["modal_aware_squeezed"]),
    ),
    "first_block": Method(
        "modal-aware, block 1 alone",
        _joint(BLOCKS["modal_aware"], last_block=PassThrough),
    ),
    "last_block": Method(
        "modal-aware, block 2 alone",
        _joint(PassThrough, last_block=BLOCKS["modal_aware"]),
    ),
    "no_kernel": Method("w/o kernel network", _joint(BLOCKS["no_kernel"])),
    "no_attention": Method("w/o attention", _joint(BLOCKS["no_attention"])),
    "concat": Method("Concat", _joint(PassThrough)),
    "sum": Method("sum", _fused(ElementwiseSum, 512)),
    "product": Method("product", _fused(ElementwiseProduct, 512)),
    "gmu": Method("GMU", _fused(GatedMultimodalUnit, 512)),
    "mcb": Method("MCB", _fused(CompactBilinear, 8000)),
    "mlb": Method("MLB", _fused(LowRankBilinear, 512)),
    "mfb": Method("MFB", _fused(FactorizedBilinear, 512)),
    "text": Method("text alone", _text),
    "image": Method("image alone", _image()),
    "text_hash": Method("TextHash", _text, "triplet_ranking"),
    "dth": Method("DTH", _image(), "triplet_ranking"),
    "dpsh": Method("DPSH", _image(), "dpsh_bank"),
    "dsh": Method("DSH", _image(), "dsh"),
    "hashnet": Method("HashNet", _image(), "hashnet"),
    "csq": Method("CSQ", _image(), "csq"),
    "contrastive": Method("contrastive", _image(), "contrastive"),
    "divide_and_encode": Method(
        "divide and encode", _image(DivideAndEncodeHead), "ninh"
    ),
}


def needs_stand_ins(config) -> bool:
    """Whether the network learns what stands in for a missing image or text.

    It does where training takes modalities away (`config.model.image_missing`,
    `text_missing`) and where the data was asked to keep rows that lack one.
    """
    rates = missing_rates(config.model)
    options = config.data.get("options", {})
    kept = (options.get(name) for name in ("keep_without_image", "keep_without_text"))
    return any(rates.values()) or any(kept)


def missing_rates(config) -> dict[str, float]:
    """`image_rate` and `text_rate` of `config.model`, 0 where it has none.

    Raises:
      ValueError: they are no shares of the rows, or more than all of them together.
    """
    rates = {name: config.get(f"{name}_missing", 0.0) for name in ("image", "text")}
    if min(rates.values()) < 0 or sum(rates.values()) > 1:
        raise ValueError(
            "config.model.image_missing and text_missing are the shares of the rows "
            "that lose their image, or their text, in training: 0 or more, and 1 at "
            f"most together, got {rates['image']} and {rates['text']}."
        )
    return {f"{name}_rate": rate for name, rate in rates.items()}


def model(
    config,
    pairs: Collection,
    word_vectors=None,
    *,
    method: Method | None = None,
    num_outputs: int | None = None,
) -> nnx.Module:
    """The network of `config.model`, for the text of a collection.

    Args:
      config: of one run.
      pairs: the collection, or its `num_text_features` and `num_labels`.
      word_vectors: [T, D] where the network reads words as vectors.
      method: its row; of `METHODS`, by `config.model.method`, where None.
      num_outputs: of the head; `config.model.num_bits` where None.

    Raises:
      ValueError: `config.model.text_widths` are not two widths.
    """
    widths = tuple(config.model.text_widths)
    if len(widths) != 2 or min(widths) < 1:
        raise ValueError(
            "config.model.text_widths are the text's two layers, 1 or more each, such "
            f"as (1024, 512), got {widths}."
        )
    image_vector, text_branch = MeanVector, TextMLP
    if config.model.image_features:
        image_vector = functools.partial(
            DenseVector,
            features=config.model.image_features,
            dropout_rate=config.model.get("image_dropout", 0.3),
        )
    if word_vectors is not None:
        text_branch = functools.partial(WordVectorMLP, vectors=word_vectors)
    hidden = NoHiddenLayer
    if config.model.hidden_features:
        hidden = functools.partial(HiddenLayer, features=config.model.hidden_features)
    heads = {}
    if has_taught_head(config) and pairs.num_labels:
        heads["head"] = functools.partial(
            TaughtHashHead,
            num_labels=pairs.num_labels,
            features=config.model.head_features,
        )
    method = method or choose("method", METHODS, config.model.method)
    network = method.network(
        functools.partial(backbone, config.backbone, config.data.get("dir", "")),
        pairs.num_text_features,
        num_outputs or config.model.num_bits,
        text_widths=widths,
        text_branch=text_branch,
        image_vector=image_vector,
        text_vector=StandardText if config.model.standard_text else PlainText,
        hidden=hidden,
        stand_in=StandIn if needs_stand_ins(config) else NoStandIn,
        num_labels=pairs.num_labels if config.loss.label_weight else None,
        rngs=nnx.Rngs(config.seed),
        **heads,
    )
    return compute_in(network, config.model.get("dtype", "float32"))
