"""Weights shared out among positions, against loops and at the start of training."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modal_aware_jax import PositionKernel, SqueezedChannelAttention
from modal_aware_jax.blocks.channel_attention import double_sigmoid

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(3, 2, 4, 5)).astype("f")
TEXT = RNG.normal(size=(3, 7)).astype("f")


def trained():
    """A kernel with random weights and biases in every place."""
    kernel = PositionKernel(5, 7, rank=3, rngs=nnx.Rngs(0))
    for layer in (kernel.image_key, kernel.text_query):
        layer.kernel[...] = RNG.normal(size=layer.kernel.shape)
        layer.bias[...] = RNG.normal(size=layer.bias.shape)
    return kernel


def affine(layer, x):
    kernel, bias = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
    return [
        sum(float(x[i]) * float(kernel[i, o]) for i in range(len(x))) + float(bias[o])
        for o in range(len(bias))
    ]


def test_weights_against_loops_over_samples_and_positions():
    kernel = trained()
    maps, text = kernel(IMAGE, TEXT)
    np.testing.assert_array_equal(text, TEXT)
    for b in range(3):
        query = affine(kernel.text_query, TEXT[b])
        places = [(y, x) for y in range(2) for x in range(4)]
        scores = []
        for y, x in places:
            key = affine(kernel.image_key, IMAGE[b, y, x])
            score = sum(k * q for k, q in zip(key, query, strict=True))
            scores.append(math.exp(score / math.sqrt(3)))
        for (y, x), score in zip(places, scores, strict=True):
            weight = 8 * score / sum(scores)
            np.testing.assert_allclose(
                maps[b, y, x], weight * IMAGE[b, y, x], rtol=1e-4
            )


def test_the_weights_of_an_image_average_one():
    positions, text = trained().weights(IMAGE, TEXT)
    np.testing.assert_allclose(positions.mean(axis=(1, 2)), 1.0, rtol=1e-6)
    assert positions.std() > 0.1
    np.testing.assert_array_equal(text, np.ones(3))


def test_both_halves_start_as_nothing_and_can_leave_it():
    kernel = PositionKernel(5, 7, rngs=nnx.Rngs(0))
    attention = SqueezedChannelAttention(
        5,
        7,
        gate=double_sigmoid,
        logit_init=nnx.initializers.zeros,
        rngs=nnx.Rngs(0),
    )
    for half in (kernel, attention):
        maps, text = half(IMAGE, TEXT)
        np.testing.assert_allclose(maps, IMAGE, rtol=1e-6)
        np.testing.assert_allclose(text, TEXT, rtol=1e-6)

        def loss(half):
            maps, text = half(jnp.asarray(IMAGE), jnp.asarray(TEXT))
            return jnp.sum(maps[:, 0]) + jnp.sum(text[:, 0] ** 2)

        gradients = jax.tree.leaves(nnx.grad(loss)(half))
        assert any(np.any(gradient) for gradient in gradients)


def test_doubled_sigmoids_by_hand():
    gates = double_sigmoid(jnp.asarray([0.0, math.log(3.0), -math.log(3.0)]))
    np.testing.assert_allclose(gates, [1.0, 1.5, 0.5], rtol=1e-6)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"PositionKernel expects image maps \[B, H"):
        trained()(IMAGE, TEXT[:, :3])
