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

`MultimodalHashing` takes its backbone in Linen form, `backbone=ResNet18()`, or as an
NNX module whose weights become the initial ones. `CLIP` takes its two encoders
likewise: `CLIP(image=CLIPImage(), text=CLIPText())`. Other methods than the call are
reached by `module.apply(variables, ..., nnx_method="joint")`.

Run `init` and `apply` under `jax.jit`: the bridge makes the NNX module at each call,
and only a compiled program leaves out the initial weights that nobody reads.

A call that takes `rngs` has them from `apply`, as modules of Linen have:
`module.apply(variables, ..., train=True, rngs={"dropout": key})`.

Two habits of Linen to keep in mind. Modules with batch norm (`ResNet18`,
`MobileNetV2`, `MultimodalHashing`) update their averages only where `apply` is given
`mutable=["batch_stats"]`; without it, training mode drops the update silently. The
fixed tables of `CompactBilinear` are the collection `hash_tables`: keep it beside
`params`, and give only `params` to the optimiser.
"""

import inspect

from flax import nnx
from flax.core import FrozenDict

import modal_aware_jax
from modal_aware_jax.backbones import clip, siglip


def _bridge(nnx_class):
    """The Linen module class of an NNX module class, under the same name."""
    name = nnx_class.__name__.removeprefix("_")

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

    def init_subclass(cls, **arguments):
        # Linen's transforms, such as `nn.remat`, subclass a module, and Linen gives a
        # subclass without a constructor that of a dataclass.
        own = "__init__" in cls.__dict__
        super(made, cls).__init_subclass__(**arguments)
        if not own:
            cls.__init__ = init

    def call(self, *args, nnx_method=None, **arguments):
        method = nnx_method or "__call__"
        if isinstance(method, str):
            method = getattr(nnx_class, method)
        taken = inspect.signature(method).parameters
        if "rngs" in taken and "rngs" not in arguments and self.has_rng("dropout"):
            arguments["rngs"] = nnx.Rngs(dropout=self.make_rng("dropout"))
        return super(made, self).__call__(*args, nnx_method=nnx_method, **arguments)

    doc = f"Linen form of `modal_aware_jax.{name}`: the same keywords, without `rngs`."
    members = {
        "__init__": init,
        "__init_subclass__": classmethod(init_subclass),
        "__call__": call,
        "__doc__": doc,
        "__module__": __name__,
    }
    made = type(name, (nnx.bridge.ToLinen,), members)
    return made


class _MultimodalHashing(modal_aware_jax.MultimodalHashing):
    """`MultimodalHashing` that makes its backbone's variables afresh at every call."""

    def __init__(self, backbone, *args, rngs, **arguments):
        super().__init__(_own(backbone, rngs), *args, rngs=rngs, **arguments)


class _BERTText(clip.BERTText):
    """`BERTText` that makes the variables of its BERT afresh."""

    def __init__(self, bert, *args, rngs, **arguments):
        super().__init__(_own(bert, rngs), *args, rngs=rngs, **arguments)


class _CLIP(modal_aware_jax.CLIP):
    """`CLIP` that makes the variables of its encoders afresh."""

    def __init__(self, image, text, *, rngs, **arguments):
        super().__init__(_own(image, rngs), _own(text, rngs), **arguments)


def _own(module, rngs):
    """The NNX module that a Linen form stands for, or a copy of an NNX module."""
    if isinstance(module, nnx.bridge.ToLinen):
        return module.nnx_class(**module.kwargs, rngs=rngs)
    return nnx.clone(module)


AsymmetricCoAttention = _bridge(modal_aware_jax.AsymmetricCoAttention)
BERT = _bridge(modal_aware_jax.BERT)
BERTText = _bridge(_BERTText)
CLIP = _bridge(_CLIP)
CLIPImage = _bridge(clip.CLIPImage)
CLIPText = _bridge(clip.CLIPText)
ChannelAttention = _bridge(modal_aware_jax.ChannelAttention)
CoAttention = _bridge(modal_aware_jax.CoAttention)
CompactBilinear = _bridge(modal_aware_jax.CompactBilinear)
Concat = _bridge(modal_aware_jax.Concat)
CrossModalGraph = _bridge(modal_aware_jax.CrossModalGraph)
CrossModalGraphNetwork = _bridge(modal_aware_jax.CrossModalGraphNetwork)
DivideAndEncodeHead = _bridge(modal_aware_jax.DivideAndEncodeHead)
ElementwiseProduct = _bridge(modal_aware_jax.ElementwiseProduct)
ElementwiseSum = _bridge(modal_aware_jax.ElementwiseSum)
FactorizedBilinear = _bridge(modal_aware_jax.FactorizedBilinear)
GatedMultimodalUnit = _bridge(modal_aware_jax.GatedMultimodalUnit)
HashHead = _bridge(modal_aware_jax.HashHead)
KernelNetwork = _bridge(modal_aware_jax.KernelNetwork)
LowRankBilinear = _bridge(modal_aware_jax.LowRankBilinear)
MergeAttention = _bridge(modal_aware_jax.MergeAttention)
MobileNetV2 = _bridge(modal_aware_jax.MobileNetV2)
ModalAwareBlock = _bridge(modal_aware_jax.ModalAwareBlock)
MultiGatedUnit = _bridge(modal_aware_jax.MultiGatedUnit)
MultimodalHashing = _bridge(_MultimodalHashing)
PooledCompactBilinear = _bridge(modal_aware_jax.PooledCompactBilinear)
PositionKernel = _bridge(modal_aware_jax.PositionKernel)
ResNet18 = _bridge(modal_aware_jax.ResNet18)
SigLIPImage = _bridge(siglip.SigLIPImage)
SigLIPText = _bridge(siglip.SigLIPText)
SimilarityFusion = _bridge(modal_aware_jax.SimilarityFusion)
SimilarityInteraction = _bridge(modal_aware_jax.SimilarityInteraction)
SqueezedChannelAttention = _bridge(modal_aware_jax.SqueezedChannelAttention)
TwoTower = _bridge(modal_aware_jax.TwoTower)
ViT = _bridge(modal_aware_jax.ViT)
