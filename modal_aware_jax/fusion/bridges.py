"""Bridges from the layers of each modality to the layers that join them.

The idea of BridgeTower (Xu et al., arXiv:2206.08657, eq. 6): a cross-modal layer reads
not only the one before it but, through a bridge, LayerNorm(x + W y), a layer of the
modality's own encoder as well. Small: the encoders are layers on tokens that came
encoded already.
"""

import jax
from flax import nnx

from modal_aware_jax.blocks.token_attention import check_tokens, masked, masked_mean
from modal_aware_jax.fusion.co_attention import ReadingLayer, SelfLayer


class Bridge(nnx.Module):
    """LayerNorm(joined + W own): a modality's own layer enters the joint stream.

    Args:
      features: D.
      dtype: of the computation.
      rngs: source of the initial weights.
    """

    def __init__(self, features: int, *, dtype=None, rngs: nnx.Rngs):
        self.dense = nnx.Linear(features, features, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)

    def __call__(self, joined: jax.Array, own: jax.Array) -> jax.Array:
        """Maps joined and own tokens [B, S, D] to [B, S, D]."""
        return self.norm(joined + self.dense(own))


class CrossLayerBridges(nnx.Module):
    """Own layers of each modality, bridged into cross-modal ones: vectors [B, D].

    Layer l: each modality's own stream goes one self-attention further; the joint
    streams take it in by a bridge and read each other, as in `CoAttention`. The first
    bridge joins the tokens as they came with their first own layer.

    The result is the mean of the text's joint tokens plus the mean of the image's.
    Padding has no say; a row without a modality is the other's streams alone.

    Args:
      features: D of both modalities.
      num_heads: must divide D.
      num_layers: of every stream.
      dtype: of the computation.
      rngs: source of the initial weights.

    Attributes:
      features: width of the result, D.

    Example:
      >>> import jax.numpy as jnp
      >>> fuse = CrossLayerBridges(8, 2, num_layers=1, rngs=nnx.Rngs(0))
      >>> fuse(jnp.ones((1, 3, 8)), jnp.ones((1, 5, 8))).shape
      (1, 8)
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        *,
        num_layers: int = 2,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def own():
            return nnx.List(
                SelfLayer(features, num_heads, dtype=dtype, rngs=rngs)
                for _ in range(num_layers)
            )

        def bridges():
            return nnx.List(
                Bridge(features, dtype=dtype, rngs=rngs) for _ in range(num_layers)
            )

        def joint():
            return nnx.List(
                ReadingLayer(features, num_heads, dtype=dtype, rngs=rngs)
                for _ in range(num_layers)
            )

        self.features = features
        self.text_own, self.image_own = own(), own()
        self.text_bridges, self.image_bridges = bridges(), bridges()
        self.text_joint, self.image_joint = joint(), joint()

    def __call__(
        self,
        text: jax.Array,
        image: jax.Array,
        *,
        text_mask: jax.Array | None = None,
        image_mask: jax.Array | None = None,
    ) -> jax.Array:
        """Fuses text [B, S, D] with image [B, M, D] into [B, D].

        Args:
          text_mask: [B, S], 0 for padding.
          image_mask: [B, M], 0 for padding.
        """
        check_tokens(
            "CrossLayerBridges", self.features, text, image, text_mask, image_mask
        )
        text, image = masked(text, text_mask), masked(image, image_mask)
        own_text, own_image = text, image
        for layer in range(len(self.text_own)):
            own_text = self.text_own[layer](own_text, text_mask)
            own_image = self.image_own[layer](own_image, image_mask)
            text = self.text_bridges[layer](text, own_text)
            image = self.image_bridges[layer](image, own_image)
            text, image = (
                self.text_joint[layer](text, image, text_mask, image_mask),
                self.image_joint[layer](image, text, image_mask, text_mask),
            )
        return masked_mean(text, text_mask) + masked_mean(image, image_mask)
