"""Two towers and the graph network: values by hand, sides kept apart, training."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import token_loops as loops
from flax import nnx

from modal_aware_jax.blocks.cross_modal_graph import CrossModalGraph, recommended_graph
from modal_aware_jax.blocks.pooling import first_token
from modal_aware_jax.hashing.head import HashHead
from modal_aware_jax.losses.dcmh import dcmh
from modal_aware_jax.losses.info_nce import info_nce
from modal_aware_jax.losses.sigmoid_pairs import sigmoid_pairs
from modal_aware_jax.losses.vse import max_hinge
from modal_aware_jax.models.cross_modal_graph import CrossModalGraphNetwork
from modal_aware_jax.models.temperature import Temperature
from modal_aware_jax.models.two_tower import TwoTower

B, M, S, DI, DT, F = 4, 3, 5, 6, 7, 4
IMAGE = np.asarray(jax.random.normal(jax.random.key(1), (B, M, DI)))
TEXT = np.asarray(jax.random.normal(jax.random.key(2), (B, S, DT)))
IMAGE_MASK = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0]])
TEXT_MASK = np.array([[1] * 5, [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
MASKS = {"image_mask": IMAGE_MASK, "text_mask": TEXT_MASK}


# Small programs that run a few times: half the time to compile them.
compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def call(module, method, *arrays, **arguments):
    graphdef, state = nnx.split(module)
    state = nnx.to_pure_dict(state)
    return jax.device_get(_call(graphdef, method, state, arrays, arguments))


@functools.partial(compiled, static_argnums=(0, 1))
def _call(graphdef, method, state, arrays, arguments):
    return getattr(nnx.merge(graphdef, state), method)(*arrays, **arguments)


@functools.cache
def network(graph=recommended_graph, **arguments):
    return loops.randomised(
        lambda: CrossModalGraphNetwork(
            DI, DT, F, graph_features=5, graph=graph, rngs=nnx.Rngs(0), **arguments
        )
    )


@functools.cache
def towers(**arguments):
    return loops.randomised(
        lambda: TwoTower(DI, DT, F, hidden_features=8, rngs=nnx.Rngs(0), **arguments)
    )


def test_a_tower_by_loops():
    module = towers()
    image, text = call(module, "__call__", IMAGE, TEXT, **MASKS)
    for ours, tower, tokens, mask in (
        (image, module.image, IMAGE, IMAGE_MASK),
        (text, module.text, TEXT, TEXT_MASK),
    ):
        for b in range(B):
            mean = loops.mean_of(np.asarray(tokens[b], float), mask[b])
            hidden = [max(0.0, h) for h in loops.dense(mean, tower.hidden)]
            np.testing.assert_allclose(ours[b], loops.dense(hidden, tower.head), 1e-4)


def test_pooled_features_and_first_tokens_come_in_too():
    module = towers(image_pool=first_token, text_pool=first_token)
    by_tokens = call(module, "__call__", IMAGE, TEXT, **MASKS)
    by_vectors = call(module, "__call__", IMAGE[:, 0], TEXT[:, 0])
    for ours, theirs in zip(by_tokens, by_vectors, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_no_embedding_of_one_side_moves_with_the_other():
    other = np.random.default_rng(9).normal(size=TEXT.shape)
    for module in (network(), network(graph=CrossModalGraph), towers()):
        for name in ("embed_image", "embed_text"):
            sides = set(inspect.signature(getattr(module, name)).parameters)
            assert not sides & ({"text", "text_mask"} if "image" in name else {"image"})
        one = call(module, "__call__", IMAGE, TEXT, **MASKS)
        two = call(module, "__call__", IMAGE, other, **MASKS)
        np.testing.assert_array_equal(one[0], two[0])
        assert np.any(one[1] != two[1])
        alone = call(module, "embed_image", IMAGE, image_mask=IMAGE_MASK)
        np.testing.assert_allclose(one[0], alone, rtol=1e-5, atol=1e-6)
        alone = call(module, "embed_text", other, text_mask=TEXT_MASK)
        np.testing.assert_allclose(two[1], alone, rtol=1e-5, atol=1e-6)
        # Nor with the other rows of its batch.
        one_row = call(module, "embed_image", IMAGE[:1], image_mask=IMAGE_MASK[:1])
        np.testing.assert_allclose(one_row, one[0][:1], rtol=1e-5, atol=1e-6)
    # In the joint graph the other side is there.
    pair = call(network(), "embed_pair", IMAGE, TEXT, **MASKS)
    assert np.any(pair != call(network(), "embed_pair", IMAGE, other, **MASKS))


def test_the_networks_parts_by_loops():
    """The graph itself is tested beside its own loops."""
    module = network()
    for b in range(B):
        tokens = np.array([[loops.dense(x, module.image_tokens) for x in IMAGE[b]]])
        nothing = np.zeros((1, 0, 5))
        mask = IMAGE_MASK[b : b + 1]
        nodes, _ = loops.run(module.graph, tokens, nothing, image_mask=mask)
        mean = loops.mean_of(np.asarray(nodes[0], float), mask[0])
        ours = call(module, "embed_image", IMAGE, image_mask=IMAGE_MASK)
        np.testing.assert_allclose(
            ours[b], loops.dense(mean, module.image_head), rtol=1e-4, atol=1e-5
        )
    pair = call(module, "embed_pair", IMAGE, TEXT, **MASKS)
    scores = call(module, "score_pairs", IMAGE, TEXT, **MASKS)
    for row, score in zip(np.asarray(pair, float), scores, strict=True):
        rectified = [max(0.0, x) for x in row]
        (expected,) = loops.dense(rectified, module.score)
        assert score == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", ["embed_pair", "__call__"])
def test_padding_has_no_say_in_the_graph_network(method):
    module = network()
    kept = call(module, method, IMAGE, TEXT, **MASKS)
    image = np.where(IMAGE_MASK[..., None] != 0, IMAGE, np.nan)
    text = np.where(TEXT_MASK[..., None] != 0, TEXT, np.nan)
    again = call(module, method, image, text, **MASKS)
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(kept), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    weights = call(module, "edge_weights", image, text, **MASKS)
    assert [w.shape for w in weights] == [(B, M + S, M + S)] * 2
    np.testing.assert_allclose(weights[1].sum(axis=2), np.ones((B, M + S)), rtol=1e-5)


@pytest.mark.parametrize("kind", ["towers", "graph"])
def test_a_step_trains_every_parameter(kind):
    """InfoNCE, SigLIP and VSE++ on the embeddings, and the pairs' scores, at once."""
    module = towers() if kind == "towers" else network()
    # Below its maximum, and not zero.
    start = {"log_scale": jnp.float32(1.0), "bias": jnp.float32(-1.0)}
    graphdef, state = nnx.split(module)
    state = {**nnx.to_pure_dict(state), "temperature": start}
    tx = optax.adam(1e-2)

    @compiled
    def step(state, opt_state):
        def loss(state):
            model = nnx.merge(graphdef, state)
            image, text = model(IMAGE, TEXT, **MASKS)
            scale, bias = model.temperature.scale(), model.temperature.bias[...]
            total = info_nce(image, text, scale=scale) + max_hinge(image, text)
            total += sigmoid_pairs(image, text, scale=scale, bias=bias)
            if kind == "graph":
                right = model.score_pairs(IMAGE, TEXT, **MASKS)
                wrong = model.score_pairs(IMAGE[::-1], TEXT)
                total += jax.nn.softplus(-right).mean() + jax.nn.softplus(wrong).mean()
            return total

        value, grads = jax.value_and_grad(loss)(state)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(state, updates), opt_state, value

    trained, opt_state, first = step(state, tx.init(state))
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), *jax.device_get((state, trained))
    )
    assert all(jax.tree.leaves(moved)), moved
    for _ in range(30):
        trained, opt_state, last = step(trained, opt_state)
    assert np.isfinite(last) and last < 0.6 * first


def test_hash_heads_give_relaxed_bits_for_both_sides():
    image, text = call(towers(head=HashHead), "__call__", IMAGE, TEXT, **MASKS)
    assert image.shape == text.shape == (B, F)
    assert np.isfinite(dcmh(image, text, np.eye(B)))


def test_dropout_drops_in_training_alone():
    graph = functools.partial(recommended_graph, dropout_rate=0.5)
    for module in (
        towers(image_dropout_rate=0.5, text_dropout_rate=0.5, hidden_dropout_rate=0.3),
        network(graph=graph, dropout_rate=0.5),
    ):
        graphdef, state = nnx.split(module)

        @functools.partial(compiled, static_argnums=1)
        def both(state, train, graphdef=graphdef):
            rngs = nnx.Rngs(dropout=jax.random.key(0))
            return nnx.merge(graphdef, state)(IMAGE, TEXT, train=train, rngs=rngs)

        still, dropped = jax.device_get((both(state, False), both(state, True)))
        assert all(np.any(a != b) for a, b in zip(still, dropped, strict=True))
        with pytest.raises(ValueError, match=r"nnx.Rngs\(dropout=key\)"):
            jax.eval_shape(lambda m=module: m.embed_image(IMAGE, train=True))


def test_the_temperature_stops_at_its_maximum_and_comes_down_again():
    module = Temperature(90.0)
    module.log_scale[...] = jnp.float32(5.0)  # e^5 = 148
    assert float(module.scale()) == pytest.approx(100.0, rel=1e-5)
    graphdef, state = nnx.split(module)
    slope = jax.grad(lambda s: nnx.merge(graphdef, s).scale())(nnx.to_pure_dict(state))
    assert slope["log_scale"] == pytest.approx(100.0, rel=1e-5)
    with pytest.raises(ValueError, match="0 < scale <= max_scale, got 200"):
        Temperature(200.0)


def test_bfloat16_is_near_float32():
    graph = functools.partial(recommended_graph, dtype=jnp.bfloat16)
    for half, whole in (
        (network(graph=graph, dtype=jnp.bfloat16), network()),
        (towers(dtype=jnp.bfloat16), towers()),
    ):
        ours = call(half, "embed_image", IMAGE, image_mask=IMAGE_MASK)
        assert ours.dtype == jnp.bfloat16
        theirs = call(whole, "embed_image", IMAGE, image_mask=IMAGE_MASK)
        np.testing.assert_allclose(ours.astype(float), theirs, atol=0.2)


def test_wrong_shapes_are_named():
    with pytest.raises(
        ValueError, match=r"Tower expects vectors \[B, 6\].*\(4, 3, 5\)"
    ):
        towers()(IMAGE[..., 1:], TEXT)
    with pytest.raises(ValueError, match="hidden_features >= 1 .* got 0"):
        TwoTower(DI, DT, F, hidden_features=0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="a mask with tokens"):
        towers().embed_image(IMAGE[:, 0], image_mask=np.ones(B))
    with pytest.raises(ValueError, match=r"image tokens \[B, n, 6\] with n >= 1"):
        network().embed_image(IMAGE[:, :0])
    with pytest.raises(ValueError, match=r"text tokens \[B, n, 7\].*\(4, 7\)"):
        network().embed_text(TEXT[:, 0])
    with pytest.raises(ValueError, match=r"Network expects text_mask .* got \(4, 3\)"):
        network().embed_text(TEXT, text_mask=IMAGE_MASK)
    with pytest.raises(ValueError, match="first_token expects a token"):
        first_token(IMAGE[:, :0])
