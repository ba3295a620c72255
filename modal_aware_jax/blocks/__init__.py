"""Blocks that make image maps and text features aware of each other."""

from modal_aware_jax.blocks.channel_attention import (
    ChannelAttention,
    SqueezedChannelAttention,
)
from modal_aware_jax.blocks.cross_modal_graph import CrossModalGraph
from modal_aware_jax.blocks.kernel_network import KernelNetwork
from modal_aware_jax.blocks.modal_aware import ModalAwareBlock, PassThrough
from modal_aware_jax.blocks.position_kernel import PositionKernel
from modal_aware_jax.blocks.similarity_interaction import SimilarityInteraction

__all__ = [
    "ChannelAttention",
    "CrossModalGraph",
    "KernelNetwork",
    "ModalAwareBlock",
    "PassThrough",
    "PositionKernel",
    "SimilarityInteraction",
    "SqueezedChannelAttention",
]
