"""Cross-modal feature graph: image patches and words as nodes, attention as edges.

Source: Mounika and Yadav, attention-guided multimodal graph (CMFG). Nodes u are the
tokens of both modalities at one width D, M(u) the nodes that u reads:

    e_uv = softmax over v in M(u) of  Q_u · K_v / √d_k,    Q = W_Q h,  K = W_K h
    h_u <- ReLU(Σ_{v ∈ M(u)} e_uv W^k h_v)

The literal form reads all v ≠ u, without self edges and residuals; repeated, it makes
the nodes alike. The recommended form adds self edges, residuals and layer norm. The
paper gives W an index of its layer, W_Q and W_K none: here every layer has its own
three, and its edges are those of its own input.

A node that has no neighbour (the other modality is absent or padding, and only cross
edges are wanted) reads itself alone, so every row of the edge weights sums to 1 and
nothing is NaN. So do padded nodes, which nobody else reads.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.dropout import drop
from modal_aware_jax.backbones.token_dense import token_dense
from modal_aware_jax.blocks.token_attention import masked, masked_softmax

EDGES = ("all", "own", "cross")


def allowed_edges(
    image_mask: jax.Array, text_mask: jax.Array, edges: str, self_loops: bool
) -> jax.Array:
    """Which nodes each node reads: bool [B, I + S, I + S], image nodes first.

    Args:
      image_mask, text_mask: [B, I] and [B, S], 0 for padding.
      edges: 'all', 'own' modality, or 'cross' to the other one.
      self_loops: whether a node reads itself; one without a neighbour does anyhow.

    Example:
      >>> one, two = jnp.ones((1, 1)), jnp.ones((1, 2))
      >>> allowed_edges(one, two, "own", False)[0].astype(int).tolist()
      [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    """
    there = jnp.concatenate([image_mask != 0, text_mask != 0], axis=1)  # [B, I + S]
    is_text = jnp.arange(there.shape[1]) >= image_mask.shape[1]
    same = is_text[:, None] == is_text[None, :]
    wanted = {"all": jnp.ones_like(same), "own": same, "cross": ~same}[edges]
    itself = jnp.eye(len(same), dtype=bool)
    wanted = wanted | itself if self_loops else wanted & ~itself
    both = there[:, :, None] & there[:, None, :]
    allowed = wanted[None] & both  # [B, I + S, I + S]
    lonely = ~allowed.any(axis=2, keepdims=True)
    return allowed | (lonely & itself[None])


class GraphLayer(nnx.Module):
    """One layer: new nodes from the nodes each node reads, [B, n, D] to [B, n, D].

    Args:
      features: D.
      key_features: d_k.
      residual: h + ReLU(...) in place of ReLU(...).
      layer_norm: of the result.
      dropout_rate: of the ReLU's outputs.
      dtype: of the computation; softmax is in float32 at least.
      rngs: source of the initial weights.
    """

    def __init__(
        self,
        features: int,
        key_features: int,
        *,
        residual: bool = False,
        layer_norm: bool = False,
        dropout_rate: float = 0.0,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def dense(outputs):
            return token_dense(
                features, outputs, use_bias=False, dtype=dtype, rngs=rngs
            )

        self.residual = residual
        self.dropout_rate = dropout_rate
        self.query, self.key = dense(key_features), dense(key_features)
        self.value = dense(features)
        self.norm = nnx.data(None)
        if layer_norm:
            self.norm = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)

    def weights(self, nodes: jax.Array, allowed: jax.Array) -> jax.Array:
        """e of nodes [B, n, D] and allowed edges [B, n, n]: float32 [B, n, n]."""
        query, key = self.query(nodes), self.key(nodes)
        kind = jnp.promote_types(query.dtype, jnp.float32)
        scores = jnp.einsum("bud,bvd->buv", query, key, preferred_element_type=kind)
        return masked_softmax(scores / query.shape[-1] ** 0.5, allowed)

    def __call__(self, nodes, allowed, *, train: bool = False, rngs=None) -> jax.Array:
        """Maps nodes [B, n, D] to [B, n, D] along allowed edges [B, n, n]."""
        values = self.value(nodes)
        weights = self.weights(nodes, allowed).astype(values.dtype)
        read = nnx.relu(jnp.einsum("buv,bvd->bud", weights, values))
        rate = self.dropout_rate if train else 0.0
        read = drop(rngs, read, rate, caller="CrossModalGraph")
        if self.residual:
            read = nodes.astype(read.dtype) + read
        return read if self.norm is None else self.norm(read)


class CrossModalGraph(nnx.Module):
    """Layers of one graph over image and text tokens; the shapes stay.

    With defaults it is the literal form of the paper; `recommended_graph` is the one
    with self edges, residuals and layer norm. Either side may be absent, I = 0 or
    S = 0: its own nodes are then the whole graph, which is how an image or a sentence
    is embedded alone.

    Args:
      features: D.
      num_layers: of the graph.
      key_features: d_k; None: D.
      residual: h + ReLU(...) in place of ReLU(...).
      self_loops: whether a node reads itself.
      edges: 'all', 'own' modality only, or 'cross' to the other one only.
      layer_norm: after every layer.
      dropout_rate: of the ReLU's outputs.
      dtype: of the computation.
      rngs: source of the initial weights.

    Raises:
      ValueError: edges, num_layers, or later an input's shape is none of these.

    Example:
      >>> graph = CrossModalGraph(8, 2, rngs=nnx.Rngs(0))
      >>> image, text = graph(jnp.ones((1, 4, 8)), jnp.ones((1, 3, 8)))
      >>> image.shape, text.shape
      ((1, 4, 8), (1, 3, 8))
    """

    def __init__(
        self,
        features: int,
        num_layers: int,
        *,
        key_features: int | None = None,
        residual: bool = False,
        self_loops: bool = False,
        edges: str = "all",
        layer_norm: bool = False,
        dropout_rate: float = 0.0,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        if edges not in EDGES:
            raise ValueError(
                f"CrossModalGraph expects edges to be one of {', '.join(EDGES)}, got "
                f"{edges!r}."
            )
        if num_layers < 1:
            raise ValueError(
                f"CrossModalGraph expects num_layers >= 1, got {num_layers}."
            )
        self.features = features
        self.edges, self.self_loops = edges, self_loops
        self.layers = nnx.List(
            GraphLayer(
                features,
                features if key_features is None else key_features,
                residual=residual,
                layer_norm=layer_norm,
                dropout_rate=dropout_rate,
                dtype=dtype,
                rngs=rngs,
            )
            for _ in range(num_layers)
        )

    def _nodes(self, image, text, image_mask, text_mask):
        """Nodes [B, I + S, D], their mask, and the allowed edges."""
        _check_nodes(self.features, image, text, image_mask, text_mask)
        if image_mask is None:
            image_mask = jnp.ones(image.shape[:2], bool)
        if text_mask is None:
            text_mask = jnp.ones(text.shape[:2], bool)
        mask = jnp.concatenate([image_mask != 0, text_mask != 0], axis=1)
        nodes = jnp.concatenate([image, text], axis=1)
        allowed = allowed_edges(image_mask, text_mask, self.edges, self.self_loops)
        # Before any layer: a NaN in the padding would come back by the gradient.
        return masked(nodes, mask), mask, allowed

    def edge_weights(
        self,
        image: jax.Array,
        text: jax.Array,
        *,
        image_mask: jax.Array | None = None,
        text_mask: jax.Array | None = None,
    ) -> list[jax.Array]:
        """The weights of every layer, [B, I + S, I + S], image nodes first.

        Row u says how much node u reads of each node; it sums to 1. A padded node reads
        itself alone, and no other node reads it.
        """
        nodes, mask, allowed = self._nodes(image, text, image_mask, text_mask)
        weights = []
        for layer in self.layers:
            weights.append(layer.weights(nodes, allowed))
            nodes = masked(layer(nodes, allowed), mask)
        return weights

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
        """Maps image [B, I, D] and text [B, S, D] to arrays of the same shapes.

        Args:
          image_mask, text_mask: [B, I] and [B, S], 0 for padding, whose results are
            zeros.
          train: whether dropout drops.
          rngs: with a `dropout` stream; needed in training with dropout.
        """
        nodes, mask, allowed = self._nodes(image, text, image_mask, text_mask)
        for layer in self.layers:
            nodes = masked(layer(nodes, allowed, train=train, rngs=rngs), mask)
        return nodes[:, : image.shape[1]], nodes[:, image.shape[1] :]


def recommended_graph(features: int, num_layers: int, *, rngs: nnx.Rngs, **arguments):
    """`CrossModalGraph` with self edges, residuals and layer norm.

    Args:
      arguments: further ones of `CrossModalGraph`, which may also undo a part.

    Example:
      >>> recommended_graph(8, 2, rngs=nnx.Rngs(0)).self_loops
      True
    """
    form = {"self_loops": True, "residual": True, "layer_norm": True}
    return CrossModalGraph(features, num_layers, **{**form, **arguments}, rngs=rngs)


def _check_nodes(features, image, text, image_mask, text_mask):
    shapes = jnp.shape(image), jnp.shape(text)
    if (
        any(len(shape) != 3 or shape[2] != features for shape in shapes)
        or shapes[0][0] != shapes[1][0]
        or shapes[0][1] + shapes[1][1] == 0
    ):
        raise ValueError(
            f"CrossModalGraph expects image tokens [B, I, {features}] and text tokens "
            f"[B, S, {features}], got {shapes[0]} and {shapes[1]}. Project both to one "
            f"width first; one side may be absent, I = 0 or S = 0, not both."
        )
    for name, shape, mask in (
        ("image_mask [B, I]", shapes[0], image_mask),
        ("text_mask [B, S]", shapes[1], text_mask),
    ):
        if mask is not None and jnp.shape(mask) != shape[:2]:
            raise ValueError(
                f"CrossModalGraph expects {name} = {shape[:2]}, got {jnp.shape(mask)}: "
                f"one number a token, 0 for padding."
            )
