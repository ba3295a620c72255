"""Channel attention against hand values and loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modal_aware_jax.backbones.image_vector import mean_over_positions
from modal_aware_jax.blocks.channel_attention import (
    ChannelAttention,
    SqueezedChannelAttention,
    mean_one_softmax,
)
from modal_aware_jax.blocks.kernel_network import KernelNetwork
from modal_aware_jax.blocks.modal_aware import ModalAwareBlock


def test_gates_by_hand():
    attention = ChannelAttention(2, 1, rngs=nnx.Rngs(0))
    # Pooled pair F = [2, 4, 5]; only the image logits depend on it: W_I F = [ln 3, 0].
    kernel = jnp.zeros((3, 2)).at[0, 0].set(math.log(3.0) / 2)
    attention.image_logits.kernel[...] = kernel
    attention.text_logits.kernel[...] = jnp.zeros((3, 1))
    image = jnp.array([[[[1.0, 4.0], [3.0, 4.0]]]])  # [1, 1, 2, 2]
    maps, words = attention(image, jnp.array([[5.0]]))
    np.testing.assert_allclose(maps, [[[[0.75, 1.0], [2.25, 1.0]]]], rtol=1e-6)
    np.testing.assert_allclose(words, [[5.0]])  # softmax over one channel is 1


def test_equals_the_equations_by_loops():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    text = rng.normal(size=(2, 5)).astype(np.float32)
    attention = ChannelAttention(4, 5, rngs=nnx.Rngs(1))
    for layer in (attention.image_logits, attention.text_logits):
        layer.bias[...] = jnp.float32(rng.normal(size=layer.bias.shape))
    maps, words = attention(image, text)
    for b in range(2):
        pooled = [image[b, :, :, c].mean() for c in range(4)] + list(text[b])
        for layer, given, ours, axes in (
            (attention.image_logits, image[b], maps[b], 2),
            (attention.text_logits, text[b], words[b], 0),
        ):
            kernel, bias = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
            logits = [
                float(bias[o])
                + sum(p * float(kernel[i, o]) for i, p in enumerate(pooled))
                for o in range(len(bias))
            ]
            total = sum(math.exp(value) for value in logits)
            for o, value in enumerate(logits):
                expected = math.exp(value) / total * np.take(given, o, axis=axes)
                np.testing.assert_allclose(
                    np.take(np.asarray(ours), o, axis=axes),
                    expected,
                    rtol=1e-4,
                    atol=1e-6,
                )


@pytest.mark.parametrize("attention", [ChannelAttention, SqueezedChannelAttention])
def test_literal_gates_sum_to_one_and_mean_one_gates_average_one(attention):
    image = jax.random.normal(jax.random.key(0), (3, 2, 2, 6))
    text = jax.random.normal(jax.random.key(1), (3, 9))
    for gates in attention(6, 9, rngs=nnx.Rngs(0)).gates(image, text):
        np.testing.assert_allclose(gates.sum(axis=-1), np.ones(3), rtol=1e-6)
    scaled = attention(6, 9, gate=mean_one_softmax, rngs=nnx.Rngs(0))
    for gates in scaled.gates(image, text):
        np.testing.assert_allclose(gates.mean(axis=-1), np.ones(3), rtol=1e-6)


@pytest.mark.parametrize("attention", [ChannelAttention, SqueezedChannelAttention])
def test_huge_inputs_stay_finite_and_zeros_stay_zero(attention):
    module = attention(6, 9, rngs=nnx.Rngs(0))
    huge = module(jnp.full((1, 2, 2, 6), 1e15), jnp.full((1, 9), -1e15))
    assert all(np.isfinite(x).all() for x in huge)
    zero = module(jnp.zeros((1, 2, 2, 6)), jnp.zeros((1, 9)))
    assert not any(np.any(x) for x in zero)


def test_squeezed_attention_has_fewer_weights():
    def count(module):
        return sum(x.size for x in jax.tree.leaves(nnx.state(module, nnx.Param)))

    literal = ChannelAttention(16, 1024, rngs=nnx.Rngs(0))
    squeezed = SqueezedChannelAttention(16, 1024, squeeze_features=32, rngs=nnx.Rngs(0))
    assert count(literal) == (16 + 1024 + 1) * (16 + 1024)
    assert count(squeezed) == (16 + 1024 + 1) * 32 + 33 * (16 + 1024)


def test_wrong_shapes_name_the_module():
    with pytest.raises(ValueError, match="SqueezedChannelAttention expects image maps"):
        SqueezedChannelAttention(2, 3, rngs=nnx.Rngs(0))(
            jnp.ones((1, 2)), jnp.ones((1, 3))
        )


@pytest.mark.parametrize("block", [KernelNetwork, ChannelAttention, ModalAwareBlock])
def test_maps_without_positions_are_refused(block):
    module = block(3, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="have no positions: give larger images"):
        module(jnp.ones((2, 0, 5, 3)), jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="at least one position, got .2, 5, 0, 3"):
        mean_over_positions(jnp.ones((2, 5, 0, 3)))
