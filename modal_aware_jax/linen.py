"""The public modules as Flax Linen modules.

The names are those of the NNX modules; their constructors take the same arguments by
keyword, without `rngs`. The result is a real Linen module: `init`, `apply`, nesting in
`@nn.compact`, gradients and variable collections all work.

    class Model(nn.Module):
        @nn.compact
        def __call__(self, images, words):
            maps = nn.Conv(32, (3, 3))(images)  # [B, H, W, 32]
            block = ModalAwareBlock(image_features=32, text_features=words.shape[-1])
            maps, words = block(maps, words)
            ...

Two habits of Linen to keep in mind. Modules with batch norm (`ResNet18`,
`MobileNetV2`, `MultimodalHashing`) update their averages only where `apply` is given
`mutable=["batch_stats"]`; without it, training mode drops the update silently. The
fixed tables of `CompactBilinear` are the collection `hash_tables`: keep it beside
`params`, and give only `params` to the optimiser.
"""

from flax import nnx
from flax.core import FrozenDict

import modal_aware_jax


def _bridge(name: str, nnx_class):
    """The Linen module class of an NNX module class."""

    def init(self, *args, **arguments):
        if args:
            raise TypeError(
                f"linen.{name} takes keyword arguments only, got {args!r}. Name them "
                f"as the constructor of modal_aware_jax.{name} does."
            )
        if "nnx_class" not in arguments:  # else Linen is copying a module
            linen = {k: arguments.pop(k) for k in ("name", "parent") if k in arguments}
            linen["kwargs"] = FrozenDict(arguments)
            arguments = {"nnx_class": nnx_class, **linen}
        nnx.bridge.ToLinen.__init__(self, **arguments)

    doc = f"Linen form of `modal_aware_jax.{name}`: the same keywords, without `rngs`."
    members = {"__init__": init, "__doc__": doc, "__module__": __name__}
    return type(name, (nnx.bridge.ToLinen,), members)


ChannelAttention = _bridge("ChannelAttention", modal_aware_jax.ChannelAttention)
HashHead = _bridge("HashHead", modal_aware_jax.HashHead)
KernelNetwork = _bridge("KernelNetwork", modal_aware_jax.KernelNetwork)
MobileNetV2 = _bridge("MobileNetV2", modal_aware_jax.MobileNetV2)
ModalAwareBlock = _bridge("ModalAwareBlock", modal_aware_jax.ModalAwareBlock)
