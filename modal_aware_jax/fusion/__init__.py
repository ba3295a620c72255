"""Fusion of an image with a text, vectors or sets of tokens, into one joint vector.

The functions under `CompactBilinear` are imported from `fusion.compact_bilinear`;
re-exporting the function of that name would hide the file.
"""

from modal_aware_jax.fusion.bridges import CrossLayerBridges as CrossLayerBridges
from modal_aware_jax.fusion.co_attention import (
    AsymmetricCoAttention as AsymmetricCoAttention,
)
from modal_aware_jax.fusion.co_attention import CoAttention as CoAttention
from modal_aware_jax.fusion.co_attention import MergeAttention as MergeAttention
from modal_aware_jax.fusion.compact_bilinear import CompactBilinear as CompactBilinear
from modal_aware_jax.fusion.compact_bilinear import (
    PooledCompactBilinear as PooledCompactBilinear,
)
from modal_aware_jax.fusion.concat import Concat as Concat
from modal_aware_jax.fusion.elementwise import ElementwiseProduct as ElementwiseProduct
from modal_aware_jax.fusion.elementwise import ElementwiseSum as ElementwiseSum
from modal_aware_jax.fusion.gmu import GatedMultimodalUnit as GatedMultimodalUnit
from modal_aware_jax.fusion.gmu import MultiGatedUnit as MultiGatedUnit
from modal_aware_jax.fusion.low_rank_bilinear import (
    FactorizedBilinear as FactorizedBilinear,
)
from modal_aware_jax.fusion.low_rank_bilinear import LowRankBilinear as LowRankBilinear
from modal_aware_jax.fusion.pooled_tokens import (
    FeatureLevelFusion as FeatureLevelFusion,
)
from modal_aware_jax.fusion.pooled_tokens import ImageAlone as ImageAlone
from modal_aware_jax.fusion.pooled_tokens import PooledFusion as PooledFusion
from modal_aware_jax.fusion.pooled_tokens import TextAlone as TextAlone
from modal_aware_jax.fusion.similarity_fusion import (
    SimilarityFusion as SimilarityFusion,
)

__all__ = [
    "AsymmetricCoAttention",
    "CoAttention",
    "CompactBilinear",
    "Concat",
    "CrossLayerBridges",
    "ElementwiseProduct",
    "ElementwiseSum",
    "FactorizedBilinear",
    "FeatureLevelFusion",
    "GatedMultimodalUnit",
    "ImageAlone",
    "LowRankBilinear",
    "MergeAttention",
    "MultiGatedUnit",
    "PooledCompactBilinear",
    "PooledFusion",
    "SimilarityFusion",
    "TextAlone",
]
