"""CLIP: an image encoder and a text encoder with one space for both.

A. Radford et al.: Learning transferable visual models from natural language
supervision, ICML 2021 (arXiv:2103.00020). Chinese-CLIP (A. Yang et al.,
arXiv:2211.01335) reads the text with a BERT; SigLIP's encoders are in `siglip.py`.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.bert import BERT, check_text
from modal_aware_jax.backbones.transformer import PreNormBlock, layer_norm, quick_gelu
from modal_aware_jax.backbones.vit import PatchEmbedding


class CLIPImage(nnx.Module):
    """The ViT of CLIP: a norm before the blocks, the class token projected.

    The defaults are those of ViT-B/32. The arguments are those of `ViT`, and

    Args:
      projected_features: F, of the space shared with the text.
    """

    def __init__(
        self,
        image_size=224,
        patch_size=32,
        features: int = 768,
        projected_features: int = 512,
        *,
        num_layers: int = 12,
        num_heads: int = 12,
        hidden_features: int | None = None,
        activation=quick_gelu,
        epsilon: float = 1e-5,
        dropout_rate: float = 0.0,
        implementation: str | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.features, self.projected_features = features, projected_features
        typed = {"dtype": dtype, "rngs": rngs}
        self.embedding = PatchEmbedding(
            image_size, patch_size, features, use_bias=False, **typed
        )
        self.first_norm = layer_norm(features, epsilon=epsilon, **typed)
        self.blocks = nnx.List(
            PreNormBlock(
                features,
                num_heads,
                hidden_features or 4 * features,
                activation=activation,
                epsilon=epsilon,
                dropout_rate=dropout_rate,
                implementation=implementation,
                **typed,
            )
            for _ in range(num_layers)
        )
        self.norm = layer_norm(features, epsilon=epsilon, **typed)
        self.projection = nnx.Linear(
            features, projected_features, use_bias=False, **typed
        )

    def tokens(self, images, train: bool = False, *, rngs=None) -> jax.Array:
        """Tokens [B, 1 + M, D] of images [B, H, W, 3], before the last norm."""
        tokens = self.first_norm(self.embedding(images))
        for block in self.blocks:
            tokens = block(tokens, train=train, rngs=rngs)
        return tokens

    def project(self, tokens: jax.Array) -> jax.Array:
        """The class token of tokens [B, 1 + M, D] in the shared space: [B, F]."""
        return self.projection(self.norm(tokens[:, 0]))

    def __call__(self, images, train: bool = False, *, rngs=None) -> jax.Array:
        """Images [B, H, W, 3] in the shared space: [B, F]."""
        return self.project(self.tokens(images, train, rngs=rngs))


class CLIPText(nnx.Module):
    """The causal text transformer of CLIP: the token of the text's end projected.

    Args:
      vocabulary_size: word pieces.
      features: D.
      projected_features: F, of the space shared with the images.
      max_length: the longest text, in word pieces.
      end_id: the word piece that ends a text. None takes the largest one in a text, as
        OpenAI's code does, whose end has the largest number of all.
      num_layers: blocks; the other arguments are those of `PreNormBlock`.
    """

    def __init__(
        self,
        vocabulary_size: int = 49408,
        features: int = 512,
        projected_features: int = 512,
        *,
        max_length: int = 77,
        end_id: int | None = None,
        num_layers: int = 12,
        num_heads: int = 8,
        hidden_features: int | None = None,
        activation=quick_gelu,
        epsilon: float = 1e-5,
        dropout_rate: float = 0.0,
        implementation: str | None = None,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.features, self.projected_features = features, projected_features
        self.max_length, self.end_id = max_length, end_id
        typed = {"dtype": dtype, "rngs": rngs}
        self.embedding = TokenEmbedding(vocabulary_size, features, max_length, **typed)
        self.blocks = nnx.List(
            PreNormBlock(
                features,
                num_heads,
                hidden_features or 4 * features,
                activation=activation,
                epsilon=epsilon,
                dropout_rate=dropout_rate,
                implementation=implementation,
                **typed,
            )
            for _ in range(num_layers)
        )
        self.norm = layer_norm(features, epsilon=epsilon, **typed)
        self.projection = nnx.Linear(
            features, projected_features, use_bias=False, **typed
        )

    def tokens(self, ids, mask=None, train: bool = False, *, rngs=None) -> jax.Array:
        """Tokens [B, S, D] of word pieces [B, S]; each has read those up to it."""
        tokens = self.embedding(ids, mask)
        for block in self.blocks:
            tokens = block(tokens, mask, is_causal=True, train=train, rngs=rngs)
        return self.norm(tokens)

    def project(self, tokens: jax.Array, ids: jax.Array) -> jax.Array:
        """The token of the text's end in the shared space: [B, F].

        Where a text has no `end_id`, because it was cut, its first token is taken, as
        in the transformers library: let the tokenizer cut, it keeps the end.
        """
        ids = jnp.asarray(ids)
        ends = ids if self.end_id is None else ids == self.end_id
        end = ends.argmax(axis=1)[:, None, None]  # the first of equals
        return self.projection(jnp.take_along_axis(tokens, end, axis=1)[:, 0])

    def __call__(self, ids, mask=None, train: bool = False, *, rngs=None) -> jax.Array:
        """Word pieces [B, S] in the shared space: [B, F]."""
        return self.project(self.tokens(ids, mask, train, rngs=rngs), ids)


class TokenEmbedding(nnx.Module):
    """Word pieces [B, S] with their positions, [B, S, D]."""

    def __init__(self, vocabulary_size, features, max_length, *, dtype=None, rngs):
        init = nnx.initializers.truncated_normal(0.02)
        typed = {"embedding_init": init, "dtype": dtype, "rngs": rngs}
        self.max_length = max_length
        self.words = nnx.Embed(vocabulary_size, features, **typed)
        self.positions = nnx.Embed(max_length, features, **typed)

    def __call__(self, ids: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """The sum of both embeddings; refuses texts that are too long."""
        check_text(ids, mask, self.max_length, type(self).__name__)
        return self.words(ids) + self.positions(jnp.arange(ids.shape[1]))[None]


class BERTText(nnx.Module):
    """The text encoder of Chinese-CLIP: a BERT, its first token projected.

    Args:
      bert: a `BERT`.
      projected_features: F, of the space shared with the images.
      dtype: of the computation.
      rngs: source of the initial weights.
    """

    def __init__(
        self, bert: BERT, projected_features: int = 512, *, dtype=None, rngs: nnx.Rngs
    ):
        self.features, self.projected_features = bert.features, projected_features
        self.max_length = bert.max_length
        self.bert = bert
        self.projection = nnx.Linear(
            bert.features, projected_features, use_bias=False, dtype=dtype, rngs=rngs
        )

    def tokens(self, ids, mask=None, train: bool = False, *, rngs=None) -> jax.Array:
        """Tokens [B, S, D] of word pieces [B, S]."""
        mask = jnp.ones(ids.shape, bool) if mask is None else mask
        return self.bert(ids, mask, train, rngs=rngs)

    def project(self, tokens: jax.Array, ids: jax.Array) -> jax.Array:
        """The first token of each text in the shared space: [B, F]."""
        del ids
        return self.projection(tokens[:, 0])

    def __call__(self, ids, mask=None, train: bool = False, *, rngs=None) -> jax.Array:
        """Word pieces [B, S] in the shared space: [B, F]."""
        return self.project(self.tokens(ids, mask, train, rngs=rngs), ids)


class CLIP(nnx.Module):
    """An image encoder and a text encoder whose vectors are compared by their angle.

    Args:
      image: a `CLIPImage` or a `SigLIPImage`.
      text: a `CLIPText`, `BERTText` or `SigLIPText` with the same projected width.
      scale: what cosines are multiplied by to give logits; trained by its logarithm.
      bias: what is added then (SigLIP), trained; None adds nothing.
      rngs: not used; all weights are those of the encoders.

    Example:
      >>> def logits():
      ...     rngs, sizes = nnx.Rngs(0), {"num_layers": 1, "num_heads": 2}
      ...     image = CLIPImage(16, 8, 8, 4, **sizes, rngs=rngs)
      ...     clip = CLIP(image, CLIPText(50, 8, 4, **sizes, rngs=rngs))
      ...     return clip(jnp.ones((2, 16, 16, 3)), jnp.array([[48, 7, 49]]))
      >>> jax.eval_shape(logits).shape
      (2, 1)
    """

    def __init__(
        self,
        image: nnx.Module,
        text: nnx.Module,
        *,
        scale: float = 1 / 0.07,
        bias: float | None = None,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs
        if image.projected_features != text.projected_features:
            raise ValueError(
                f"CLIP: the image encoder projects to {image.projected_features} "
                f"features, the text encoder to {text.projected_features}. Build both "
                "with the same projected_features."
            )
        self.features = image.projected_features
        self.image, self.text = image, text
        self.log_scale = nnx.Param(jnp.array(math.log(scale), jnp.float32))
        self.logit_bias = nnx.data(None)
        if bias is not None:
            self.logit_bias = nnx.Param(jnp.array(bias, jnp.float32))

    @property
    def scale(self) -> jax.Array:
        """What cosines are multiplied by, the exponential of the trained logarithm."""
        return jnp.exp(self.log_scale[...])

    @property
    def bias(self) -> jax.Array | float:
        """What is added to the scaled cosines; 0 where there is none."""
        return 0.0 if self.logit_bias is None else self.logit_bias[...]

    def image_tokens(
        self, images: jax.Array, train: bool = False, *, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """The last hidden states of images [B, H, W, 3]: [B, 1 + M, D].

        Of CLIP and Chinese-CLIP they are not normed yet and the class token comes
        first; of SigLIP they are normed, [B, M, D], and there is no class token.
        """
        return self.image.tokens(images, train, rngs=rngs)

    def text_tokens(
        self,
        ids: jax.Array,
        mask: jax.Array | None = None,
        train: bool = False,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """The last hidden states of word pieces [B, S]: [B, S, D], normed.

        Args:
          ids: int [B, S].
          mask: [B, S], true on word pieces, false on padding, which nobody reads. None
            reads all, as SigLIP was trained: its texts are padded to `max_length`.
          train: whether dropout drops.
          rngs: with a `dropout` stream; needed in training with dropout.
        """
        return self.text.tokens(ids, mask, train, rngs=rngs)

    def encode_image(
        self, images: jax.Array, train: bool = False, *, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Images [B, H, W, 3] in the shared space, [B, F], not of unit length."""
        return self.image(images, train, rngs=rngs)

    def encode_text(
        self,
        ids: jax.Array,
        mask: jax.Array | None = None,
        train: bool = False,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Word pieces [B, S] in the shared space, [B, F]; see `text_tokens`."""
        return self.text(ids, mask, train, rngs=rngs)

    def __call__(
        self,
        images: jax.Array,
        ids: jax.Array,
        mask: jax.Array | None = None,
        train: bool = False,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Logits [B, B'] of images [B, H, W, 3] and texts [B', S], in float32."""
        image = unit(self.encode_image(images, train, rngs=rngs))
        text = unit(self.encode_text(ids, mask, train, rngs=rngs))
        return self.scale * (image @ text.T) + self.bias


def unit(vectors: jax.Array) -> jax.Array:
    """Vectors [B, F] of unit length, in float32; zeros stay zeros."""
    vectors = vectors.astype(jnp.float32)
    squared = (vectors * vectors).sum(axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))
