"""Modal-aware multimodal hashing in JAX: building blocks, experiments and search.

The names below are Flax NNX modules; `modal_aware_jax.linen` has them for Linen. The
other parts are imported by folder: `modal_aware_jax.losses`,
`modal_aware_jax.hashing.codes`, `modal_aware_jax.retrieval`, ...
"""

from modal_aware_jax.backbones.bert import BERT
from modal_aware_jax.backbones.clip import CLIP
from modal_aware_jax.backbones.mobilenet import MobileNetV2
from modal_aware_jax.backbones.resnet import ResNet18
from modal_aware_jax.backbones.vit import ViT
from modal_aware_jax.blocks.channel_attention import (
    ChannelAttention,
    SqueezedChannelAttention,
)
from modal_aware_jax.blocks.cross_modal_graph import CrossModalGraph
from modal_aware_jax.blocks.kernel_network import KernelNetwork
from modal_aware_jax.blocks.modal_aware import ModalAwareBlock
from modal_aware_jax.blocks.position_kernel import PositionKernel
from modal_aware_jax.blocks.similarity_interaction import SimilarityInteraction
from modal_aware_jax.fusion.co_attention import (
    AsymmetricCoAttention,
    CoAttention,
    MergeAttention,
)
from modal_aware_jax.fusion.compact_bilinear import (
    CompactBilinear,
    PooledCompactBilinear,
)
from modal_aware_jax.fusion.concat import Concat
from modal_aware_jax.fusion.elementwise import ElementwiseProduct, ElementwiseSum
from modal_aware_jax.fusion.gmu import GatedMultimodalUnit, MultiGatedUnit
from modal_aware_jax.fusion.low_rank_bilinear import FactorizedBilinear, LowRankBilinear
from modal_aware_jax.fusion.similarity_fusion import SimilarityFusion
from modal_aware_jax.hashing.divide_and_encode import DivideAndEncodeHead
from modal_aware_jax.hashing.head import HashHead
from modal_aware_jax.models.cross_modal_graph import CrossModalGraphNetwork
from modal_aware_jax.models.multimodal_hashing import MultimodalHashing
from modal_aware_jax.models.two_tower import TwoTower

__version__ = "0.1.0"

__all__ = [
    "BERT",
    "CLIP",
    "AsymmetricCoAttention",
    "ChannelAttention",
    "CoAttention",
    "CompactBilinear",
    "Concat",
    "CrossModalGraph",
    "CrossModalGraphNetwork",
    "DivideAndEncodeHead",
    "ElementwiseProduct",
    "ElementwiseSum",
    "FactorizedBilinear",
    "GatedMultimodalUnit",
    "HashHead",
    "KernelNetwork",
    "LowRankBilinear",
    "MergeAttention",
    "MobileNetV2",
    "ModalAwareBlock",
    "MultiGatedUnit",
    "MultimodalHashing",
    "PooledCompactBilinear",
    "PositionKernel",
    "ResNet18",
    "SimilarityFusion",
    "SimilarityInteraction",
    "SqueezedChannelAttention",
    "TwoTower",
    "ViT",
]
