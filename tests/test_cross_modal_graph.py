"""The cross-modal graph against loops over nodes, absent sides, masks and extremes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import token_loops as loops
from flax import nnx

from modal_aware_jax.blocks.cross_modal_graph import (
    CrossModalGraph,
    allowed_edges,
    recommended_graph,
)

B, M, S, D = 2, 3, 4, 5
IMAGE = np.asarray(jax.random.normal(jax.random.key(1), (B, M, D)))
TEXT = np.asarray(jax.random.normal(jax.random.key(2), (B, S, D)))
# The second row has no text at all.
IMAGE_MASK = np.array([[1, 1, 1], [1, 0, 1]])
TEXT_MASK = np.array([[1, 1, 0, 1], [0, 0, 0, 0]])
MASKS = {"image_mask": IMAGE_MASK, "text_mask": TEXT_MASK}
FULL = {"image_mask": np.ones((B, M), int), "text_mask": np.ones((B, S), int)}


@functools.cache
def graph(form=CrossModalGraph, **arguments):
    return loops.randomised(lambda: form(D, 2, **arguments, rngs=nnx.Rngs(0)))


@functools.cache
def layers_of(module):
    return [
        {
            name: np.asarray(getattr(layer, name).kernel[...], float)
            for name in ("query", "key", "value")
        }
        for layer in module.layers
    ]


def neighbours(u, keep, edges, self_loops):
    if not keep[u]:
        return [u]
    found = [
        v
        for v in range(len(keep))
        if keep[v]
        and (self_loops if v == u else True)
        and {
            "all": True,
            "own": (u < M) == (v < M),
            "cross": (u < M) != (v < M) or (v == u and self_loops),
        }[edges]
    ]
    return found or [u]


def by_loops(module, sample, masks, edges="all", self_loops=False, residual=False):
    """Nodes and edge weights of one sample, one number at a time."""
    keep = [*masks["image_mask"][sample], *masks["text_mask"][sample]]
    nodes = [list(map(float, x)) for x in [*IMAGE[sample], *TEXT[sample]]]
    nodes = [x if k else [0.0] * D for x, k in zip(nodes, keep, strict=True)]
    every = []

    def through(kernel, x):
        return [
            sum(x[i] * kernel[i, j] for i in range(D)) for j in range(kernel.shape[1])
        ]

    for number, layer in enumerate(layers_of(module)):
        query = [through(layer["query"], x) for x in nodes]
        key = [through(layer["key"], x) for x in nodes]
        value = [through(layer["value"], x) for x in nodes]
        weights, new = np.zeros((len(nodes), len(nodes))), []
        for u in range(len(nodes)):
            near = neighbours(u, keep, edges, self_loops)
            scores = [
                sum(q * k for q, k in zip(query[u], key[v], strict=True))
                / math.sqrt(len(query[u]))
                for v in near
            ]
            weights[u, near] = loops.softmax(scores)
            read = [
                max(0.0, sum(weights[u, v] * value[v][d] for v in near))
                for d in range(D)
            ]
            if residual:
                read = [a + b for a, b in zip(nodes[u], read, strict=True)]
            new.append(read if keep[u] else [0.0] * D)
        if module.layers[number].norm is not None:
            normed = loops.layer_norm(new, module.layers[number].norm)
            new = [n if k else [0.0] * D for n, k in zip(normed, keep, strict=True)]
        nodes = new
        every.append(weights)
    return np.array(nodes), every


def weights_of(module, image=IMAGE, text=TEXT, **masks):
    graphdef, state = nnx.split(module)
    state = nnx.to_pure_dict(state)
    return jax.device_get(_weights(graphdef, state, image, text, masks))


@functools.partial(jax.jit, static_argnums=0)
def _weights(graphdef, state, image, text, masks):
    return nnx.merge(graphdef, state).edge_weights(image, text, **masks)


@pytest.mark.parametrize("edges", ["all", "own", "cross"])
@pytest.mark.parametrize("self_loops", [False, True])
def test_equals_the_equations_by_loops(edges, self_loops):
    module = graph(edges=edges, self_loops=self_loops, key_features=3)
    for masks in (MASKS, FULL):
        image, text = loops.run(module, IMAGE, TEXT, **masks)
        weights = weights_of(module, **masks)
        for sample in range(B):
            nodes, every = by_loops(module, sample, masks, edges, self_loops)
            np.testing.assert_allclose(image[sample], nodes[:M], atol=2e-5)
            np.testing.assert_allclose(text[sample], nodes[M:], atol=2e-5)
            for ours, expected in zip(weights, every, strict=True):
                np.testing.assert_allclose(ours[sample], expected, atol=1e-5)
                np.testing.assert_allclose(ours[sample].sum(axis=1), 1, atol=1e-5)


def test_the_recommended_form_equals_the_equations_by_loops():
    module = graph(form=recommended_graph)
    image, text = loops.run(module, IMAGE, TEXT, **MASKS)
    for sample in range(B):
        nodes, _ = by_loops(module, sample, MASKS, self_loops=True, residual=True)
        np.testing.assert_allclose(image[sample], nodes[:M], atol=1e-4)
        np.testing.assert_allclose(text[sample], nodes[M:], atol=1e-4)


def test_two_nodes_by_hand():
    # Without self edges each node reads the other alone: h_u = ReLU(W h_v).
    module = loops.randomised(lambda: CrossModalGraph(1, 1, rngs=nnx.Rngs(0)))
    module.layers[0].value.kernel[...] = jnp.array([[2.0]])
    image, text = loops.run(module, np.array([[[3.0]]]), np.array([[[-5.0]]]))
    assert image.tolist() == [[[0.0]]] and text.tolist() == [[[6.0]]]


@pytest.mark.parametrize(
    "form,edges",
    [(CrossModalGraph, "cross"), (CrossModalGraph, "all"), (recommended_graph, "all")],
)
def test_an_absent_side_is_the_same_as_a_fully_masked_one(edges, form):
    module = graph(form=form, edges=edges)
    nothing = np.zeros((B, 0, D))
    alone, none = loops.run(module, IMAGE, nothing)
    beside, zeros = loops.run(
        module, IMAGE, TEXT, **{**FULL, "text_mask": np.zeros((B, S), int)}
    )
    assert none.shape == (B, 0, D) and not np.any(zeros)
    np.testing.assert_allclose(alone, beside, atol=1e-6)
    none, alone = loops.run(module, nothing, TEXT)
    assert none.shape == (B, 0, D) and np.isfinite(alone).all()
    if edges == "cross":  # each node alone: a dense layer per node
        for ours in weights_of(module, nothing, TEXT):
            np.testing.assert_array_equal(ours, np.broadcast_to(np.eye(S), (B, S, S)))


def test_padding_has_no_say_whatever_it_holds():
    module = graph(form=recommended_graph)
    kept = loops.run(module, IMAGE, TEXT, **MASKS)
    image = np.where(IMAGE_MASK[..., None] != 0, IMAGE, np.nan)
    text = np.where(TEXT_MASK[..., None] != 0, TEXT, np.inf)
    again = loops.run(module, image, text, **MASKS)
    for ours, theirs in zip(again, kept, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    by_parameter, by_array = loops.gradients(module, image, text, **MASKS)
    for leaf in jax.tree.leaves((by_parameter, by_array)):
        assert np.isfinite(leaf).all()
    assert not np.any(by_array[0][IMAGE_MASK == 0])


def test_own_edges_keep_the_sides_apart_and_cross_edges_join_them():
    other = np.random.default_rng(9).normal(size=TEXT.shape)
    for edges, moves in (("own", False), ("cross", True), ("all", True)):
        module = graph(edges=edges, self_loops=False, key_features=3)
        first = loops.run(module, IMAGE, TEXT, **FULL)[0]
        second = loops.run(module, IMAGE, other, **FULL)[0]
        assert bool(np.any(first != second)) == moves


def test_nodes_have_no_order():
    module = graph(form=recommended_graph)
    order = np.array([2, 0, 1])
    image, text = loops.run(module, IMAGE, TEXT, **FULL)
    moved, same = loops.run(module, IMAGE[:, order], TEXT, **FULL)
    np.testing.assert_allclose(moved, image[:, order], atol=1e-5)
    np.testing.assert_allclose(same, text, atol=1e-5)


@pytest.mark.parametrize("form", [CrossModalGraph, recommended_graph])
def test_every_parameter_has_a_gradient_and_extremes_are_finite(form):
    module = graph(form=form)
    by_parameter, _ = loops.gradients(module, IMAGE, TEXT, **FULL)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(by_parameter))
    for scale in (0.0, 1e15):
        for made in (
            loops.run(module, scale * IMAGE, scale * TEXT, **FULL),
            loops.gradients(module, scale * IMAGE, scale * TEXT, **FULL),
        ):
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(made))


def test_bfloat16_is_near_float32():
    half = graph(form=recommended_graph, dtype=jnp.bfloat16)
    image, text = loops.run(half, IMAGE, TEXT, **FULL)
    assert image.dtype == text.dtype == jnp.bfloat16
    whole = loops.run(graph(form=recommended_graph), IMAGE, TEXT, **FULL)
    np.testing.assert_allclose(image.astype(float), whole[0], atol=0.1)
    weights = weights_of(half, **FULL)
    assert weights[0].dtype == jnp.float32


def test_dropout_drops_in_training_alone_and_asks_for_randomness():
    module = graph(form=recommended_graph, dropout_rate=0.5)
    graphdef, state = nnx.split(module)

    @functools.partial(jax.jit, static_argnums=1)
    def image_of(state, train, key):
        module = nnx.merge(graphdef, state)
        return module(IMAGE, TEXT, train=train, rngs=nnx.Rngs(dropout=key))[0]

    first, second = jax.random.key(0), jax.random.key(1)
    still = image_of(state, False, first)
    np.testing.assert_array_equal(still, image_of(state, False, second))
    one, two = (np.asarray(image_of(state, True, key)) for key in (first, second))
    assert np.any(one != two) and np.any(one != still)
    with pytest.raises(ValueError, match="CrossModalGraph.*rngs=nnx.Rngs.dropout=key"):
        jax.eval_shape(lambda: module(IMAGE, TEXT, train=True))


def test_allowed_edges_of_cross_with_self_edges():
    one = jnp.ones((1, 1))
    assert allowed_edges(one, one, "cross", True).all()
    assert allowed_edges(one, one, "cross", False).astype(int).tolist() == [
        [[0, 1], [1, 0]]
    ]


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="one of all, own, cross, got 'both'"):
        CrossModalGraph(D, 1, edges="both", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="num_layers >= 1, got 0"):
        CrossModalGraph(D, 0, rngs=nnx.Rngs(0))
    module = graph()
    with pytest.raises(ValueError, match=r"\[B, I, 5\].*got \(2, 3, 4\) and"):
        module(IMAGE[..., :4], TEXT)
    with pytest.raises(ValueError, match="not both"):
        module(IMAGE[:, :0], TEXT[:, :0])
    with pytest.raises(
        ValueError, match=r"text_mask \[B, S\] = \(2, 4\), got \(2, 3\)"
    ):
        module(IMAGE, TEXT, text_mask=IMAGE_MASK)
