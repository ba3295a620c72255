"""The whole network: an image and its text to one vector of K relaxed bits."""

import jax
from flax import nnx

from modal_aware_jax.backbones.image_vector import MeanVector
from modal_aware_jax.backbones.stand_in import NoStandIn, StandIn
from modal_aware_jax.backbones.text_mlp import TextMLP
from modal_aware_jax.backbones.text_vector import PlainText
from modal_aware_jax.blocks.modal_aware import ModalAwareBlock, PassThrough
from modal_aware_jax.fusion.concat import Concat
from modal_aware_jax.hashing.head import HashHead, label_head_beside
from modal_aware_jax.hashing.hidden import NoHiddenLayer


class MultimodalHashing(nnx.Module):
    """Image and text, made aware of each other twice, as K relaxed bits.

        images ─ lower ─ conv4 ┐        ┌ upper ─ conv5 ┐        ┌ mean ┐
                               ├ block 1┤               ├ block 2┤      ├ fusion ─ head
        text ─ wide ─ ReLU ────┘        └ narrow ───────┘        └──────┘

    Source: Zeng et al., "Modal-aware Features for Multimodal Hashing"
    (arXiv:1911.08479), Fig. 5. Block 1's image output replaces the backbone's map:
    the backbone's upper half reads it. The defaults are the paper's.

    Args:
      backbone: a module with `lower(images, *, train)` and `upper(maps, *, train)` and
        their channels, `lower_features` and `upper_features`.
      text_features: T of the text vectors, for bags of words the vocabulary's size.
      num_bits: K.
      text_widths: features of the text beside conv4 and beside conv5.
      text_branch: constructor `(text_features, widths, *, dtype, rngs)` of the two
        layers of the text, such as `WordVectorMLP` with its vectors.
      block: constructor of the two blocks, `(image_features, text_features, *, rngs)`;
        `PassThrough` gives the Concat baseline, `KernelNetwork` and `ChannelAttention`
        the two ablations.
      last_block: the same for block 2, where it differs from block 1. With a
        `PassThrough` first, no gradient has to pass the backbone's upper half.
      image_vector: constructor `(in_features, *, rngs)` of what makes one vector of
        block 2's maps: `MeanVector`, or `DenseVector` with a layer of its own.
      text_vector: constructor `(features, *, rngs)` of what becomes of block 2's text:
        `PlainText`, or `StandardText`.
      fusion: constructor `(a_features, b_features, *, rngs)` of what joins the
        image's vector with the text; its `features` is the width of the result.
      hidden: constructor `(in_features, *, rngs)` of a layer before the head, such as
        `HiddenLayer`.
      stand_in: constructor `(features, *, rngs)` of what is read in place of a modality
        that a row lacks: `NoStandIn`, or `StandIn` with a learned vector. It replaces
        the wide text and the image's first features, before the blocks; where the
        network `reads_last`, these are the last maps.
      head: constructor `(in_features, num_bits, *, dtype, rngs)` of the last layers,
        `HashHead`, or `TaughtHashHead`, which predicts the labels itself.
      num_labels: L, for a second head that predicts the labels in training; none by
        default.
      dtype: of the computation in the text layers and the heads.
      rngs: source of the initial weights.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        text_features: int,
        num_bits: int,
        *,
        text_widths: tuple[int, int] = (8192, 512),
        text_branch=TextMLP,
        block=ModalAwareBlock,
        last_block=None,
        image_vector=MeanVector,
        text_vector=PlainText,
        fusion=Concat,
        hidden=NoHiddenLayer,
        head=HashHead,
        stand_in=NoStandIn,
        num_labels: int | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        wide, narrow = text_widths
        self.backbone = backbone
        self.text = text_branch(text_features, text_widths, dtype=dtype, rngs=rngs)
        self.block1 = block(backbone.lower_features, wide, rngs=rngs)
        self.block2 = (last_block or block)(backbone.upper_features, narrow, rngs=rngs)
        self.image_vector = image_vector(backbone.upper_features, rngs=rngs)
        self.text_vector = text_vector(narrow, rngs=rngs)
        self.text_stand_in = stand_in(wide, rngs=rngs)
        first = backbone.lower_features
        if self.reads_last:
            first = backbone.upper_features
        self.image_stand_in = stand_in(first, rngs=rngs)
        self.fusion = fusion(self.image_vector.features, narrow, rngs=rngs)
        self.hidden = hidden(self.fusion.features, rngs=rngs)
        features = self.hidden.features
        self.head = head(features, num_bits, dtype=dtype, rngs=rngs)
        self.label_head = label_head_beside(
            self.head, features, num_labels, dtype=dtype, rngs=rngs
        )

    @property
    def has_stand_ins(self) -> bool:
        """Whether it has learned vectors in place of a missing modality."""
        return isinstance(self.text_stand_in, StandIn)

    def joint_from_maps(
        self, maps: jax.Array, text: jax.Array, *, train: bool, rngs=None, present=None
    ) -> jax.Array:
        """Maps conv4 maps [B, h, w, C] and text [B, T] to joint vectors [B, D].

        For a frozen lower half whose maps were computed once.
        """
        wide = self._wide(text, present)
        if not self.reads_last:
            maps = self.image_stand_in(maps, _rows_with("image", present))
        maps, wide = self.block1(maps, wide)
        maps = self.backbone.upper(maps, train=train)
        return self._joint(maps, wide, train, rngs, present)

    @property
    def reads_last(self) -> bool:
        """Whether nothing of it stands before the backbone's last maps."""
        return isinstance(self.block1, PassThrough)

    @property
    def reads_means(self) -> bool:
        """Whether all it reads of the last maps is their mean: it has no blocks."""
        unblocked = self.reads_last and isinstance(self.block2, PassThrough)
        return unblocked and self.image_vector.reads_mean

    def joint_from_last(
        self, maps: jax.Array, text: jax.Array, *, train: bool, rngs=None, present=None
    ) -> jax.Array:
        """Maps the last maps, [B, H, W, C], and text [B, T] to joint vectors [B, D].

        For a network that `reads_last` and whose whole backbone is frozen; where it
        `reads_means`, their means [B, 1, 1, C] will do.
        """
        return self._joint(maps, self._wide(text, present), train, rngs, present)

    joint_from_means = joint_from_last

    def _wide(self, text, present):
        return self.text_stand_in(self.text.wide(text), _rows_with("text", present))

    def _joint(self, maps, wide_text, train, rngs, present):
        if self.reads_last:
            maps = self.image_stand_in(maps, _rows_with("image", present))
        maps, text = self.block2(maps, self.text.narrow(wide_text))
        vector = self.image_vector(maps, train=train, rngs=rngs)
        joint = self.fusion(vector, self.text_vector(text, train=train))
        return self.hidden(joint, train=train, rngs=rngs)

    def joint(
        self,
        images: jax.Array,
        text: jax.Array,
        *,
        train: bool,
        rngs=None,
        present=None,
    ) -> jax.Array:
        """Maps images [B, H, W, 3] and text [B, T] to joint vectors [B, D]."""
        maps = self.backbone.lower(images, train=train)
        return self.joint_from_maps(maps, text, train=train, rngs=rngs, present=present)

    def __call__(
        self,
        images: jax.Array,
        text: jax.Array,
        *,
        train: bool,
        rngs=None,
        present: dict[str, jax.Array | None] | None = None,
    ) -> jax.Array:
        """Maps images [B, H, W, 3] and text [B, T] to relaxed bits [B, K].

        Their tanh is trained; their sign, with 0 counted as +1, is the code.

        Args:
          train: whether batch norms use the batch and dropout drops.
          rngs: randomness for dropout, where the network has any.
          present: which rows have an `image` and which a `text`, bool [B] each; None
            for either, or for both: all rows. Without stand-ins it is not read.
        """
        joint = self.joint(images, text, train=train, rngs=rngs, present=present)
        return self.head(joint)


def _rows_with(modality, present):
    return None if present is None else present.get(modality)
