"""The modal-aware operation on tokens: the image's as a map, the text's mean."""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.blocks.modal_aware import ModalAwareBlock
from modal_aware_jax.blocks.token_attention import check_tokens, has_tokens, masked_mean


class ModalAwareFusion(nnx.Module):
    """A block on image tokens and the text's mean, then both side by side: [B, 2 D].

    The image's M tokens are a map of one column. Where a row lacks a modality the other
    stands beside zeros as it came: without its partner a block has nothing to say.

    Args:
      features: D of both modalities.
      num_heads: not used; accepted so that all fusions of tokens are built alike.
      block: constructor `(image_features, text_features, *, rngs)`.
      dtype: not used.
      rngs: source of the initial weights.

    Attributes:
      features: width of the result, 2 D.

    Example:
      >>> fuse = ModalAwareFusion(8, 1, rngs=nnx.Rngs(0))
      >>> fuse(jnp.ones((1, 3, 8)), jnp.ones((1, 5, 8))).shape
      (1, 16)
    """

    def __init__(
        self,
        features: int,
        num_heads=1,
        *,
        block=ModalAwareBlock,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        del num_heads, dtype
        self.width = features
        self.features = 2 * features
        self.block = block(features, features, rngs=rngs)

    def __call__(self, text, image, *, text_mask=None, image_mask=None) -> jax.Array:
        """Fuses text [B, S, D] with image [B, M, D] into [B, 2 D].

        An image lacks all of its tokens or none.
        """
        check_tokens("ModalAwareFusion", self.width, text, image, text_mask, image_mask)
        of_text = masked_mean(text, text_mask)
        of_image = masked_mean(image, image_mask)
        there = has_tokens(text, text_mask) & has_tokens(image, image_mask)
        both = there[:, None]
        tokens = jnp.where(both[..., None], image, 0)
        maps, aware = self.block(
            tokens[:, :, None], jnp.where(both, of_text, 0)
        )  # [B, M, 1, D], [B, D]
        aware_image = jnp.where(both, maps.mean(axis=(1, 2)), of_image)
        return jnp.concatenate([aware_image, jnp.where(both, aware, of_text)], axis=-1)
