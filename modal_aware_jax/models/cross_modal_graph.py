"""The cross-modal feature graph as a network: embeddings apart, pairs together.

Source: Mounika and Yadav, attention-guided multimodal graph (CMFG). The paper says
neither how a node set becomes one embedding nor how a pair is scored; both are choices
here, named below.

The trap of such a graph: where a gallery's images see the nodes of their own sentences,
every image finds its sentence and recall means nothing. So `embed_image` and
`embed_text` take one side only, whose nodes are then the whole graph: the other side is
absent, not zero. Pairs go through the joint graph in `embed_pair` and `score_pairs`,
for training with pairs and for re-ranking the first k of a search.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.dropout import drop
from modal_aware_jax.backbones.token_dense import token_dense
from modal_aware_jax.blocks.cross_modal_graph import CrossModalGraph
from modal_aware_jax.blocks.pooling import masked_mean
from modal_aware_jax.blocks.token_attention import read_tokens
from modal_aware_jax.models.temperature import Temperature


class CrossModalGraphNetwork(nnx.Module):
    """Tokens to one width, a graph over them, pooling, a projection for each side.

        embed_image   W_I pool(graph(images, nothing))             [B, F]
        embed_text    W_T pool(graph(nothing, texts))              [B, F]
        embed_pair    W_P [p_I; p_T; p_I ∘ p_T],  p of the joint graph   [B, F]
        score_pairs   w · ReLU(embed_pair) + b                     [B]

    `encode_image` and `encode_text` give the nodes of one side before the graph; where
    an image stands in several pairs, `score_encoded` takes them, made once.

    The graph has no order of its own: positions and word order must be in the tokens,
    as they are in those of a transformer.

    Args:
      image_features, text_features: of the tokens that come in.
      features: F of the embeddings.
      graph_features: D of the nodes.
      num_layers: of the graph.
      graph: constructor `(features, num_layers, *, rngs)`: `CrossModalGraph`, the
        literal form, or `recommended_graph`; others by `functools.partial`.
      pool: a function of tokens [B, n, D] and their mask to [B, D]: `masked_mean`, or
        `first_token` where both encoders have a class token.
      dropout_rate: of the tokens that come in.
      head: constructor `(in_features, features, *, dtype, rngs)` of W_I, W_T and W_P;
        with `HashHead` the embeddings are F relaxed bits.
      scale, bias: of `Temperature` at the start.
      dtype: of the projections; the graph's comes with its constructor.
      rngs: source of the initial weights.

    Attributes:
      temperature: a `Temperature` for the loss.

    Example:
      >>> network = CrossModalGraphNetwork(8, 8, 8, graph_features=8, rngs=nnx.Rngs(0))
      >>> network.embed_image(jnp.ones((2, 9, 8))).shape
      (2, 8)
    """

    def __init__(
        self,
        image_features: int,
        text_features: int,
        features: int,
        *,
        graph_features: int = 256,
        num_layers: int = 2,
        graph=CrossModalGraph,
        pool=masked_mean,
        dropout_rate: float = 0.0,
        head=nnx.Linear,
        scale: float = 1 / 0.07,
        bias: float = 0.0,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def project(in_features):
            return token_dense(in_features, graph_features, dtype=dtype, rngs=rngs)

        self.graph_features = graph_features
        self.dropout_rate = dropout_rate
        self.pool = pool
        self.image_tokens = project(image_features)
        self.text_tokens = project(text_features)
        self.graph = graph(graph_features, num_layers, rngs=rngs)
        self.image_head = head(graph_features, features, dtype=dtype, rngs=rngs)
        self.text_head = head(graph_features, features, dtype=dtype, rngs=rngs)
        self.pair_head = head(3 * graph_features, features, dtype=dtype, rngs=rngs)
        self.score = nnx.Linear(features, 1, dtype=dtype, rngs=rngs)
        self.temperature = Temperature(scale, bias)

    def _project(self, layer, name, tokens, mask, train, rngs):
        caller = "CrossModalGraphNetwork"
        tokens = read_tokens(caller, name, tokens, layer.in_features, mask)
        rate = self.dropout_rate if train else 0.0
        return layer(drop(rngs, tokens, rate, caller=caller))

    def _nothing(self, tokens):
        return jnp.zeros((tokens.shape[0], 0, self.graph_features), tokens.dtype)

    def encode_image(
        self, image, *, image_mask=None, train: bool = False, rngs=None
    ) -> jax.Array:
        """Maps image tokens [B, M, Di] to nodes [B, M, D] that have met no others."""
        layer = self.image_tokens
        return self._project(layer, "image", image, image_mask, train, rngs)

    def encode_text(
        self, text, *, text_mask=None, train: bool = False, rngs=None
    ) -> jax.Array:
        """Maps text tokens [B, S, Dt] to nodes [B, S, D] that have met no others."""
        return self._project(self.text_tokens, "text", text, text_mask, train, rngs)

    def embed_image(
        self,
        image: jax.Array,
        *,
        image_mask: jax.Array | None = None,
        train: bool = False,
        rngs=None,
    ) -> jax.Array:
        """Maps image tokens [B, M, Di] to embeddings [B, F]; no text is there.

        Args:
          image_mask: [B, M], 0 for padding.
          train: whether dropout drops.
          rngs: with a `dropout` stream; needed in training with dropout.
        """
        image = self.encode_image(image, image_mask=image_mask, train=train, rngs=rngs)
        nodes, _ = self.graph(
            image, self._nothing(image), image_mask=image_mask, train=train, rngs=rngs
        )
        return self.image_head(self.pool(nodes, image_mask))

    def embed_text(
        self,
        text: jax.Array,
        *,
        text_mask: jax.Array | None = None,
        train: bool = False,
        rngs=None,
    ) -> jax.Array:
        """Maps text tokens [B, S, Dt] to embeddings [B, F]; no image is there.

        Args:
          text_mask: [B, S], 0 for padding. The others are `embed_image`'s.
        """
        text = self.encode_text(text, text_mask=text_mask, train=train, rngs=rngs)
        _, nodes = self.graph(
            self._nothing(text), text, text_mask=text_mask, train=train, rngs=rngs
        )
        return self.text_head(self.pool(nodes, text_mask))

    def embed_pair(
        self,
        image: jax.Array,
        text: jax.Array,
        *,
        image_mask: jax.Array | None = None,
        text_mask: jax.Array | None = None,
        train: bool = False,
        rngs=None,
    ) -> jax.Array:
        """Maps pairs of tokens [B, M, Di] and [B, S, Dt] to one embedding each, [B, F].

        Never a gallery entry of image-text retrieval: it has seen both sides.
        """
        way = {"train": train, "rngs": rngs}
        image = self.encode_image(image, image_mask=image_mask, **way)
        text = self.encode_text(text, text_mask=text_mask, **way)
        return self._joint(image, text, image_mask, text_mask, **way)

    def _joint(self, image, text, image_mask, text_mask, *, train, rngs):
        image, text = self.graph(
            image,
            text,
            image_mask=image_mask,
            text_mask=text_mask,
            train=train,
            rngs=rngs,
        )
        image, text = self.pool(image, image_mask), self.pool(text, text_mask)
        return self.pair_head(jnp.concatenate([image, text, image * text], axis=-1))

    def score_pairs(self, image: jax.Array, text: jax.Array, **arguments) -> jax.Array:
        """How well each image [B, M, Di] and text [B, S, Dt] fit: logits [B].

        Args:
          arguments: those of `embed_pair`.
        """
        return self._score(self.embed_pair(image, text, **arguments))

    def score_encoded(
        self, image, text, *, image_mask=None, text_mask=None, train=False, rngs=None
    ) -> jax.Array:
        """`score_pairs` of nodes [B, M, D] and [B, S, D]: logits [B]."""
        return self._score(
            self._joint(image, text, image_mask, text_mask, train=train, rngs=rngs)
        )

    def _score(self, pair):
        return self.score(nnx.relu(pair))[:, 0]

    def edge_weights(
        self,
        image: jax.Array,
        text: jax.Array,
        *,
        image_mask: jax.Array | None = None,
        text_mask: jax.Array | None = None,
    ) -> list[jax.Array]:
        """Who reads whom in the joint graph, for every layer [B, M + S, M + S]."""
        return self.graph.edge_weights(
            self.encode_image(image, image_mask=image_mask),
            self.encode_text(text, text_mask=text_mask),
            image_mask=image_mask,
            text_mask=text_mask,
        )

    def __call__(
        self,
        image: jax.Array,
        text: jax.Array,
        *,
        image_mask: jax.Array | None = None,
        text_mask: jax.Array | None = None,
        train: bool = False,
        rngs=None,
    ) -> tuple[jax.Array, jax.Array]:
        """`embed_image` and `embed_text`, [B, F] each: the two do not meet."""
        return (
            self.embed_image(image, image_mask=image_mask, train=train, rngs=rngs),
            self.embed_text(text, text_mask=text_mask, train=train, rngs=rngs),
        )
