"""Two towers that search, and a network of pairs that looks at what they found."""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.dropout import drop
from modal_aware_jax.blocks.modal_aware import ModalAwareBlock
from modal_aware_jax.blocks.pooling import masked_mean, unit_mean
from modal_aware_jax.models.two_tower import TwoTower


class Reranked(nnx.Module):
    """Embeddings of `towers`, scores of `pairs`; the two share nothing.

    Args:
      towers: a `TwoTower` on tokens.
      pairs: with `score_pairs(image, text, *, text_mask, train, rngs)` and its halves
        `encode_image`, `encode_text` and `score_encoded`, such as `SingleStream`,
        `CrossModalGraphNetwork` or `ModalAwarePairs`.

    Example:
      >>> towers = TwoTower(3, 4, 2, hidden_features=8, rngs=nnx.Rngs(0))
      >>> pairs = ModalAwarePairs(3, 4, features=8, rngs=nnx.Rngs(1))
      >>> image, text = jnp.ones((5, 9, 3)), jnp.ones((5, 6, 4))
      >>> Reranked(towers, pairs).score_pairs(image, text).shape
      (5,)
    """

    def __init__(self, towers: TwoTower, pairs: nnx.Module):
        self.towers = towers
        self.pairs = pairs

    @property
    def temperature(self) -> nnx.Module:
        """The towers'."""
        return self.towers.temperature

    def embed_image(self, image, *, train: bool = False, rngs=None) -> jax.Array:
        """Maps image tokens [B, M, Di] to [B, F]; no text is there."""
        return self.towers.embed_image(image, train=train, rngs=rngs)

    def embed_text(self, text, *, text_mask=None, train: bool = False, rngs=None):
        """Maps text tokens [B, S, Dt] to [B, F]; no image is there."""
        return self.towers.embed_text(text, text_mask=text_mask, train=train, rngs=rngs)

    def score_pairs(self, image, text, **arguments) -> jax.Array:
        """Logits [B] of pairs of tokens, by `pairs`."""
        return self.pairs.score_pairs(image, text, **arguments)

    def encode_image(self, image, **arguments) -> jax.Array:
        """Image tokens [B, M, Di] as `score_encoded` takes them."""
        return self.pairs.encode_image(image, **arguments)

    def encode_text(self, text, **arguments) -> jax.Array:
        """Text tokens [B, S, Dt] as `score_encoded` takes them."""
        return self.pairs.encode_text(text, **arguments)

    def score_encoded(self, image, text, **arguments) -> jax.Array:
        """Logits [B] of what `encode_image` and `encode_text` gave."""
        return self.pairs.score_encoded(image, text, **arguments)


class ModalAwarePairs(nnx.Module):
    """The modal-aware block as a judge of pairs.

    Image tokens to C features are a map, the text's mean to C features a vector: the
    block (design: `blocks/modal_aware.py`) weights positions and channels of one by
    the other, and a dense layer reads what came out, with the product of both.

    Args:
      image_features, text_features: of the tokens that come in.
      features: C.
      block: constructor `(image_features, text_features, *, rngs)`.
      dropout_rate: of the tokens' mean, of the map and of the hidden layer.
      dtype: of the dense layers.
      rngs: source of the initial weights.

    Example:
      >>> pairs = ModalAwarePairs(3, 4, features=8, rngs=nnx.Rngs(0))
      >>> pairs.score_pairs(jnp.ones((2, 9, 3)), jnp.ones((2, 6, 4))).shape
      (2,)
    """

    def __init__(
        self,
        image_features: int,
        text_features: int,
        *,
        features: int,
        block=ModalAwareBlock,
        dropout_rate: float = 0.0,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def dense(inputs, outputs):
            return nnx.Linear(inputs, outputs, dtype=dtype, rngs=rngs)

        self.dropout_rate = dropout_rate
        self.image, self.text = (
            dense(width, features) for width in (image_features, text_features)
        )
        self.block = block(features, features, rngs=rngs)
        self.hidden = dense(3 * features, features)
        self.score = dense(features, 1)

    def score_pairs(
        self, image, text, *, text_mask=None, train: bool = False, rngs=None
    ) -> jax.Array:
        """Logits [B] of image tokens [B, M, Di] and text tokens [B, S, Dt]."""
        way = {"train": train, "rngs": rngs}
        image = self.encode_image(image, **way)
        text = self.encode_text(text, text_mask=text_mask, **way)
        return self.score_encoded(image, text, **way)

    def encode_image(self, image, *, train: bool = False, rngs=None) -> jax.Array:
        """Maps image tokens [B, M, Di] to a map of positions, [B, M, C]."""
        return nnx.relu(self.image(self._drop(image, train, rngs)))

    def encode_text(
        self, text, *, text_mask=None, train: bool = False, rngs=None
    ) -> jax.Array:
        """Maps text tokens [B, S, Dt] to one vector a text, [B, C]."""
        mean = unit_mean(text, text_mask)
        return nnx.relu(self.text(self._drop(mean, train, rngs)))

    def score_encoded(
        self, image, text, *, text_mask=None, train: bool = False, rngs=None
    ) -> jax.Array:
        """Logits [B] of maps [B, M, C] and vectors [B, C]; the mask says no more."""
        maps, vector = self.block(image[:, :, None], text)
        mean = masked_mean(maps[:, :, 0])
        both = jnp.concatenate([mean, vector, mean * vector], axis=-1)
        hidden = self._drop(nnx.relu(self.hidden(both)), train, rngs)
        return self.score(hidden)[:, 0]

    def _drop(self, x, train, rngs):
        rate = self.dropout_rate if train else 0.0
        return drop(rngs, x, rate, caller="ModalAwarePairs")


class GraphBesideMeans(nnx.Module):
    """The cross-modal graph beside the means that two towers read.

    A graph of narrow nodes sees a part of what the frozen features hold. Here each
    side's tower reads the mean of its tokens and, beside it, the embedding that the
    graph of that side alone gives: the graph adds to the towers and takes nothing.
    Pairs are scored by the joint graph.

    Args:
      graph: a `CrossModalGraphNetwork`; its embeddings have `graph_features`.
      towers: constructor of a `TwoTower` `(image_features, text_features)`, of vectors.
      image_features, text_features: of the tokens that come in.
      graph_features: F of the graph.

    Example:
      >>> import functools
      >>> from modal_aware_jax.models.cross_modal_graph import CrossModalGraphNetwork
      >>> graph = CrossModalGraphNetwork(3, 4, 2, graph_features=8, rngs=nnx.Rngs(0))
      >>> towers = functools.partial(
      ...     TwoTower, features=6, hidden_features=8, rngs=nnx.Rngs(1))
      >>> network = GraphBesideMeans(graph, towers, 3, 4, graph_features=2)
      >>> network.embed_text(jnp.ones((5, 7, 4))).shape
      (5, 6)
    """

    def __init__(
        self, graph, towers, image_features, text_features, *, graph_features: int
    ):
        self.graph = graph
        self.towers = towers(
            image_features + graph_features, text_features + graph_features
        )

    @property
    def temperature(self) -> nnx.Module:
        """The towers'."""
        return self.towers.temperature

    def embed_image(self, image, *, train: bool = False, rngs=None) -> jax.Array:
        """Maps image tokens [B, M, Di] to [B, F]; no text is there."""
        seen = self.graph.embed_image(image, train=train, rngs=rngs)
        both = jnp.concatenate([masked_mean(image), seen], axis=-1)
        return self.towers.embed_image(both, train=train, rngs=rngs)

    def embed_text(self, text, *, text_mask=None, train: bool = False, rngs=None):
        """Maps text tokens [B, S, Dt] to [B, F]; no image is there."""
        read = self.graph.embed_text(text, text_mask=text_mask, train=train, rngs=rngs)
        both = jnp.concatenate([unit_mean(text, text_mask), read], axis=-1)
        return self.towers.embed_text(both, train=train, rngs=rngs)

    def score_pairs(self, image, text, **arguments) -> jax.Array:
        """Logits [B] of pairs of tokens, by the joint graph."""
        return self.graph.score_pairs(image, text, **arguments)

    def encode_image(self, image, **arguments) -> jax.Array:
        """Image tokens [B, M, Di] as `score_encoded` takes them."""
        return self.graph.encode_image(image, **arguments)

    def encode_text(self, text, **arguments) -> jax.Array:
        """Text tokens [B, S, Dt] as `score_encoded` takes them."""
        return self.graph.encode_text(text, **arguments)

    def score_encoded(self, image, text, **arguments) -> jax.Array:
        """Logits [B] of nodes of both, by the joint graph."""
        return self.graph.score_encoded(image, text, **arguments)
