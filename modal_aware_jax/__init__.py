"""Modal-aware multimodal hashing in JAX: building blocks, experiments and search.

The names below are Flax NNX modules; `modal_aware_jax.linen` has them for Linen. The
other parts are imported by folder: `modal_aware_jax.losses`,
`modal_aware_jax.hashing.codes`, `modal_aware_jax.retrieval`, ...
"""

from modal_aware_jax.backbones.mobilenet import MobileNetV2
from modal_aware_jax.blocks.channel_attention import ChannelAttention
from modal_aware_jax.blocks.kernel_network import KernelNetwork
from modal_aware_jax.blocks.modal_aware import ModalAwareBlock
from modal_aware_jax.hashing.head import HashHead

__version__ = "0.1.0"

__all__ = [
    "ChannelAttention",
    "HashHead",
    "KernelNetwork",
    "MobileNetV2",
    "ModalAwareBlock",
]
