"""What the blocks of a network look at: weights of positions, gates of channels."""

from typing import NamedTuple

import jax

from modal_aware_jax.models.multimodal_hashing import MultimodalHashing


class BlockAttention(NamedTuple):
    """What one block does to a batch; None for a half that the block has not.

    Attributes:
      positions: weights that the kernel network gives the positions, [B, H, W].
      gates: of the image channels by the channel attention, [B, C].
      gated: mean over the channels of the size of the gated maps, [B, H, W]: where
        what the gates let through comes from.
    """

    positions: jax.Array | None
    gates: jax.Array | None
    gated: jax.Array | None


def block_attention(block, maps: jax.Array, text: jax.Array) -> BlockAttention:
    """What a block does to maps [B, H, W, C] and text [B, T].

    Args:
      block: a `ModalAwareBlock` or one of its halves.
      maps, text: what the block is given.

    Example:
      >>> from flax import nnx
      >>> from modal_aware_jax.blocks import KernelNetwork
      >>> block = KernelNetwork(4, 3, rngs=nnx.Rngs(0))
      >>> found = block_attention(
      ...     block, jax.numpy.ones((2, 5, 5, 4)), jax.numpy.ones((2, 3)))
      >>> found.positions.shape, found.gates
      ((2, 5, 5), None)
    """
    kernel = getattr(block, "kernel_network", block)
    attention = getattr(block, "channel_attention", block)
    positions = gates = gated = None
    if hasattr(kernel, "weights"):
        positions, weight = kernel.weights(maps, text)
        maps, text = positions[..., None] * maps, weight[:, None] * text
    if hasattr(attention, "gates"):
        gates, _ = attention.gates(maps, text)
        gated = abs(maps * gates[:, None, None, :]).mean(axis=-1)
    return BlockAttention(positions, gates, gated)


def network_attention(
    model: MultimodalHashing, images: jax.Array, text: jax.Array
) -> tuple[BlockAttention, BlockAttention]:
    """What both blocks of a network do to images [B, H, W, 3] and text [B, T].

    In evaluation mode, along the path of `MultimodalHashing.joint`.
    """
    maps = model.backbone.lower(images, train=False)
    text = model.text.wide(text)
    first = block_attention(model.block1, maps, text)
    maps, text = model.block1(maps, text)
    maps = model.backbone.upper(maps, train=False)
    return first, block_attention(model.block2, maps, model.text.narrow(text))
