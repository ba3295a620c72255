"""ViT: an image's patches as the tokens of a transformer.

A. Dosovitskiy et al.: An image is worth 16x16 words, ICLR 2021 (arXiv:2010.11929).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.dropout import drop
from modal_aware_jax.backbones.positions import resize_positions
from modal_aware_jax.backbones.token_dense import token_dense
from modal_aware_jax.backbones.transformer import PreNormBlock, gelu, layer_norm


def as_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size that may be one number for both."""
    return (size, size) if isinstance(size, int) else tuple(size)


def cut_patches(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Images [B, H, W, C] as patches [B, h, w, P * Q * C] of P x Q pixels.

    What is left below and to the right of the last whole patch is not read.

    >>> cut_patches(jnp.ones((1, 5, 6, 3)), (2, 3)).shape
    (1, 2, 2, 18)
    """
    batch, height, width, channels = images.shape
    rows, columns = height // size[0], width // size[1]
    images = images[:, : rows * size[0], : columns * size[1]]
    patches = images.reshape(batch, rows, size[0], columns, size[1], channels)
    return patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)


class PatchEmbedding(nnx.Module):
    """Images [B, H, W, 3] to tokens with their positions, [B, 1 + M, D] or [B, M, D].

    Args:
      image_size: pixels, a number or (height, width), of which `positions` are; those
        of other sizes are interpolated.
      patch_size: pixels, likewise.
      features: D.
      class_token: whether a learned token comes first.
      use_bias: of the dense layer that reads a patch.
      dtype: of the computation.
      rngs: source of the initial weights.
    """

    def __init__(
        self,
        image_size,
        patch_size,
        features: int,
        *,
        class_token: bool = True,
        use_bias: bool = True,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        image_size, self.patch_size = as_pair(image_size), as_pair(patch_size)
        self.dtype = dtype
        self.grid = tuple(
            side // patch
            for side, patch in zip(image_size, self.patch_size, strict=True)
        )
        count = self.grid[0] * self.grid[1]
        if count == 0:
            raise ValueError(
                f"PatchEmbedding: images of {image_size} pixels hold no patch of "
                f"{self.patch_size}. Take larger images or smaller patches."
            )
        pixels = self.patch_size[0] * self.patch_size[1] * 3
        init = nnx.initializers.truncated_normal(0.02)
        self.dense = token_dense(
            pixels, features, use_bias=use_bias, dtype=dtype, rngs=rngs
        )
        self.class_token = nnx.data(None)
        if class_token:
            self.class_token = nnx.Param(init(rngs.params(), (features,)))
        self.positions = nnx.Param(
            init(rngs.params(), (count + bool(class_token), features))
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """Tokens of images of any size that holds a patch, the class token first."""
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(
                f"PatchEmbedding: images are [B, H, W, 3], got {images.shape}."
            )
        new = (
            images.shape[1] // self.patch_size[0],
            images.shape[2] // self.patch_size[1],
        )
        if 0 in new:
            raise ValueError(
                f"PatchEmbedding: images of {images.shape[1:3]} pixels hold no patch "
                f"of {self.patch_size}. Scale the images up."
            )
        patches = self.dense(cut_patches(images, self.patch_size))  # [B, h, w, D]
        tokens = patches.reshape(patches.shape[0], -1, patches.shape[-1])
        positions = self.positions[...]
        first = positions.shape[0] - self.grid[0] * self.grid[1]  # 1: a class token's
        moved = resize_positions(positions[first:], self.grid, new)
        tokens = tokens + moved.astype(tokens.dtype)[None]
        if self.class_token is None:
            return tokens
        token = (self.class_token[...] + positions[0]).astype(tokens.dtype)
        token = jnp.broadcast_to(token, (tokens.shape[0], 1, tokens.shape[-1]))
        return jnp.concatenate([token, tokens], axis=1)


class ViT(nnx.Module):
    """A vision transformer without its classifier.

    The defaults are ViT-B/16's. Its weights usually want RGB in 0..1, less 0.5 and
    divided by 0.5; the folder they come from says so (`preprocessor_config.json`).

    Args:
      image_size: pixels, a number or (height, width), of the stored positions.
      patch_size: pixels, likewise.
      features: D.
      num_layers: blocks.
      num_heads: of the attention.
      hidden_features: of the feed-forward layers; None takes 4 D.
      activation: of the feed-forward layers.
      epsilon: of the layer norms.
      dropout_rate: of the embedding and of each addition, in training.
      implementation: of the attention, see `transformer.attend`.
      dtype: of the computation; the weights stay float32.
      rngs: source of the initial weights.

    Example:
      >>> def tokens(images):
      ...     vit = ViT(32, 16, 8, num_layers=1, num_heads=2, rngs=nnx.Rngs(0))
      ...     return vit(images)  # a class token and 2 x 3 patches
      >>> jax.eval_shape(tokens, jnp.ones((1, 32, 48, 3))).shape
      (1, 7, 8)
    """

    def __init__(
        self,
        image_size=224,
        patch_size=16,
        features: int = 768,
        *,
        num_layers: int = 12,
        num_heads: int = 12,
        hidden_features: int | None = None,
        activation=gelu,
        epsilon: float = 1e-12,
        dropout_rate: float = 0.0,
        implementation: str | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.features = features
        self.dropout_rate = dropout_rate
        self.embedding = PatchEmbedding(
            image_size, patch_size, features, dtype=dtype, rngs=rngs
        )
        self.blocks = nnx.List(
            PreNormBlock(
                features,
                num_heads,
                hidden_features or 4 * features,
                activation=activation,
                epsilon=epsilon,
                dropout_rate=dropout_rate,
                implementation=implementation,
                dtype=dtype,
                rngs=rngs,
            )
            for _ in range(num_layers)
        )
        self.norm = layer_norm(features, epsilon=epsilon, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Tokens [B, 1 + M, D] of images [B, H, W, 3], the class token first.

        Args:
          images: normalised as the weights want it, of any size: positions are
            interpolated, and what does not fill a patch is not read.
          train: whether dropout drops.
          rngs: with a `dropout` stream; needed in training with dropout.
        """
        rate = self.dropout_rate if train else 0.0
        tokens = drop(rngs, self.embedding(images), rate, caller=type(self).__name__)
        for block in self.blocks:
            tokens = block(tokens, train=train, rngs=rngs)
        return self.norm(tokens)
