"""The modal-aware block: kernel network, then channel attention."""

import jax
from flax import nnx

from modal_aware_jax.blocks.channel_attention import ChannelAttention, even_gates
from modal_aware_jax.blocks.kernel_network import SCORE_OF, KernelNetwork


class ModalAwareBlock(nnx.Module):
    """Makes image maps and a text vector aware of each other; the shapes stay.

    Two halves in a row, each usable alone: a kernel network reweights positions and
    text by cross-modal similarity, a channel attention picks channels of both. Without
    further arguments it is the literal form of Zeng et al., "Modal-aware Features for
    Multimodal Hashing" (arXiv:1911.08479).

    It starts at the identity, so that a network with it starts as the same network
    without: the gates start even, at 1 / C and 1 / T for the paper's softmax, and
    where the first half is a `KernelNetwork` its similarities start at C and T; the
    weights of the gates are kept times these `sizes` (see `ChannelAttention`). A
    similarity that cannot start there, such as `bounded_residual`, starts at 1, and a
    gate that starts at 0 stays there: with these, what starts is not the identity.

    Example:
      >>> block = ModalAwareBlock(256, 64, rngs=nnx.Rngs(0))
      >>> image, text = block(jax.numpy.ones((2, 7, 7, 256)), jax.numpy.ones((2, 64)))
      >>> image.shape, text.shape
      ((2, 7, 7, 256), (2, 64))

    Args:
      image_features: channels C of the image maps.
      text_features: features T of the text vector.
      kernel_network: constructor of the first half; `functools.partial(KernelNetwork,
        rank=image_features + 1)` gives the same functions with fewer weights.
      channel_attention: constructor of the second half.
      rngs: source of the initial weights.
    """

    def __init__(
        self,
        image_features: int,
        text_features: int,
        *,
        kernel_network=KernelNetwork,
        channel_attention=ChannelAttention,
        rngs: nnx.Rngs,
    ):
        self.kernel_network = kernel_network(image_features, text_features, rngs=rngs)
        self.channel_attention = channel_attention(
            image_features, text_features, rngs=rngs
        )
        kernel, attention = self.kernel_network, self.channel_attention
        starts_anywhere = getattr(kernel, "similarity", None) in SCORE_OF
        if starts_anywhere and hasattr(attention, "gate"):
            widths = image_features, text_features
            gates = [even_gates(attention.gate, width) for width in widths]
            if all(gates):
                attention.sizes = tuple(1 / gate for gate in gates)
                kernel.start_at(*attention.sizes)

    def __call__(self, image: jax.Array, text: jax.Array):
        """Maps image [B, H, W, C] and text [B, T] to arrays of the same shapes."""
        return self.channel_attention(*self.kernel_network(image, text))


class PassThrough(nnx.Module):
    """A block that leaves both modalities as they are: the Concat baseline."""

    def __init__(self, image_features: int, text_features: int, *, rngs=None):
        del image_features, text_features, rngs

    def __call__(self, image: jax.Array, text: jax.Array):
        """Returns image [B, H, W, C] and text [B, T] unchanged."""
        return image, text
