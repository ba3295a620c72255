"""The kernel network against loops over samples and positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modal_aware_jax.blocks.kernel_network import (
    KernelNetwork,
    bounded_residual,
    dot_product,
    low_rank,
    position_scores,
    scaled_dot_product,
)


def pair(seed=0, batch=3, height=2, width=4, channels=5, text=7):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(batch, height, width, channels)).astype(np.float32)
    return image, rng.normal(size=(batch, text)).astype(np.float32)


def randomise(module, seed=0):
    """Random weights and biases, so that no term is zero by initialisation."""
    rng = np.random.default_rng(seed)
    state = nnx.state(module, nnx.Param)
    state = jax.tree.map(lambda x: jnp.float32(rng.normal(size=x.shape)), state)
    nnx.update(module, state)
    return module


def loops(network, image, text):
    """The equations of the paper, one sample and one position at a time."""

    def affine(layer, x):
        kernel, bias = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
        return [
            float(bias[o])
            + sum(float(x[i]) * float(kernel[i, o]) for i in range(len(x)))
            for o in range(len(bias))
        ]

    new_image, new_text = np.zeros_like(image), np.zeros_like(text)
    batch, height, width, channels = image.shape
    for b in range(batch):
        query = affine(network.image_query, text[b])
        mean = [0.0] * channels
        for y in range(height):
            for x in range(width):
                key = affine(network.image_key, image[b, y, x])
                score = sum(k * q for k, q in zip(key, query, strict=True))
                for c in range(channels):
                    new_image[b, y, x, c] = score * image[b, y, x, c]
                    mean[c] += image[b, y, x, c] / (height * width)
        key, query = affine(network.text_key, mean), affine(network.text_query, text[b])
        score = sum(k * q for k, q in zip(key, query, strict=True))
        new_text[b] = score * text[b]
    return new_image, new_text


def test_equals_the_equations_by_loops():
    image, text = pair()
    network = randomise(KernelNetwork(5, 7, rngs=nnx.Rngs(0)))
    assert network.rank == 7  # the literal form
    for ours, expected in zip(
        network(image, text), loops(network, image, text), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-4)


def test_positions_are_scored_by_hand():
    # Keys (1 + 1, 0) and (0 + 1, 2) meet the query (3, 4): 6 and 11.
    key = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    key.kernel[...], key.bias[...] = jnp.eye(2), jnp.array([1.0, 0.0])
    image = jnp.array([[[[1.0, 0.0], [0.0, 2.0]]]])
    scores = position_scores(image, key, jnp.array([[3.0, 4.0]]))
    np.testing.assert_array_equal(scores, [[[6.0, 11.0]]])


def test_low_rank_is_the_same_function_with_far_fewer_weights():
    image, text = pair(text=300)
    literal = randomise(KernelNetwork(5, 300, rngs=nnx.Rngs(0)))
    small = low_rank(literal)
    assert small.rank == 6
    for ours, expected in zip(small(image, text), literal(image, text), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours / scale, expected / scale, atol=2e-6)

    def count(module):
        return sum(x.size for x in jax.tree.leaves(nnx.state(module, nnx.Param)))

    assert count(literal) > 25 * count(small)


def test_low_rank_refuses_a_similarity_that_is_not_bilinear():
    bounded = KernelNetwork(2, 3, similarity=bounded_residual, rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match="similarity=dot_product, got bounded_residual"
    ):
        low_rank(bounded)


def test_similarities_by_hand():
    scores = jnp.array([2.0, 1e20, 0.0])
    np.testing.assert_array_equal(dot_product(scores, 4), scores)
    np.testing.assert_allclose(scaled_dot_product(scores, 4), [1.0, 5e19, 0.0])
    np.testing.assert_allclose(bounded_residual(scores, 4), [1.7615942, 2.0, 1.0])


def test_permuting_the_positions_permutes_the_result():
    image, text = pair(height=3, width=3)
    network = randomise(KernelNetwork(5, 7, rngs=nnx.Rngs(0)))
    order = np.random.default_rng(0).permutation(9)
    shuffled = image.reshape(3, 9, 5)[:, order].reshape(image.shape)
    maps, words = network(image, text)
    maps2, words2 = network(shuffled, text)
    np.testing.assert_allclose(
        np.asarray(maps).reshape(3, 9, 5)[:, order].reshape(image.shape),
        maps2,
        rtol=1e-5,
        atol=1e-5,
    )
    np.testing.assert_allclose(words, words2, rtol=1e-4, atol=1e-4)


def test_jit_gives_the_same_and_zeros_stay_zero():
    image, text = pair()
    network = randomise(KernelNetwork(5, 7, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(network)
    jitted = jax.jit(lambda state, *x: nnx.merge(graphdef, state)(*x))
    for ours, expected in zip(
        jitted(state, image, text), network(image, text), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    maps, words = network(0 * image, 0 * text)
    assert not np.any(maps) and not np.any(words)


@pytest.mark.parametrize(
    ("image", "text", "message"),
    [
        ((2, 5, 3, 3), (2, 7), r"Channels come last"),
        ((2, 3, 3, 4), (2, 7), r"\[B, H, W, 5\].*got \(2, 3, 3, 4\)"),
        ((2, 5), (2, 7), r"got \(2, 5\) and \(2, 7\)"),
        ((2, 3, 3, 5), (2, 6), r"text \[B, 7\]"),
        ((2, 3, 3, 5), (1, 7), r"the same batch size"),
    ],
)
def test_wrong_shapes_say_what_was_expected(image, text, message):
    network = KernelNetwork(5, 7, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message):
        network(jnp.ones(image), jnp.ones(text))


@pytest.mark.parametrize(
    "similarity, weight",
    [(dot_product, 1.0), (scaled_dot_product, 1.0), (bounded_residual, 1.0)],
)
@pytest.mark.parametrize("rank", [None, 4])
def test_a_new_network_weights_all_alike(similarity, weight, rank):
    network = KernelNetwork(5, 8, similarity=similarity, rank=rank, rngs=nnx.Rngs(0))
    image = jax.random.normal(jax.random.key(0), (3, 2, 2, 5))
    text = jax.random.normal(jax.random.key(1), (3, 8))
    for found in network.weights(image, text):
        np.testing.assert_allclose(found, weight, atol=0.35)
    network.start_at(5.0, 8.0)
    if similarity is dot_product:
        positions, weights = network.weights(0 * image, 0 * text)
        np.testing.assert_allclose(positions, 5.0, rtol=1e-6)
        np.testing.assert_allclose(weights, 8.0, rtol=1e-6)
