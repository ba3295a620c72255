"""The block: its two halves in order, a step that moves every weight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from modal_aware_jax import ModalAwareBlock
from modal_aware_jax.blocks.channel_attention import (
    ChannelAttention,
    SqueezedChannelAttention,
    mean_one_softmax,
)
from modal_aware_jax.blocks.kernel_network import (
    KernelNetwork,
    bounded_residual,
    dot_product,
)
from modal_aware_jax.blocks.modal_aware import PassThrough

IMAGE = jax.random.normal(jax.random.key(0), (4, 3, 3, 6))
TEXT = jax.random.normal(jax.random.key(1), (4, 10))


def test_is_the_kernel_network_and_then_the_attention():
    block = ModalAwareBlock(6, 10, rngs=nnx.Rngs(0))
    assert type(block.kernel_network) is KernelNetwork
    assert type(block.channel_attention) is ChannelAttention
    assert block.kernel_network.rank == 10
    expected = block.channel_attention(*block.kernel_network(IMAGE, TEXT))
    for ours, theirs in zip(block(IMAGE, TEXT), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert np.abs(ours).max() > 0


@pytest.mark.parametrize(
    "block",
    [
        ModalAwareBlock,
        functools.partial(
            ModalAwareBlock, kernel_network=functools.partial(KernelNetwork, rank=7)
        ),
        functools.partial(
            ModalAwareBlock,
            channel_attention=functools.partial(
                ChannelAttention, gate=mean_one_softmax
            ),
        ),
    ],
)
def test_a_new_block_is_nearly_the_identity(block):
    """Though a softmax's gates are 1 / 6 and 1 / 10; twice in a row, too."""
    block = block(6, 10, rngs=nnx.Rngs(0))
    image_gates, text_gates = block.channel_attention.gates(IMAGE, TEXT)
    assert np.ptp(image_gates) == np.ptp(text_gates) == 0  # even
    twice = block(*block(IMAGE, TEXT))
    for start, end in zip((IMAGE, TEXT), twice, strict=True):
        np.testing.assert_allclose(end, start, rtol=0.35)
        assert np.abs(end - start).mean() < 0.15 * np.abs(start).mean()


@pytest.mark.parametrize(
    ("similarity", "gate", "image_size", "text_size"),
    [
        (bounded_residual, nnx.softmax, 1 / 6, 1 / 10),  # similarities of 1
        (dot_product, jnp.tanh, 0, 0),  # gates of 0
    ],
)
def test_where_a_block_cannot_start_at_the_identity(
    similarity, gate, image_size, text_size
):
    kernel_network = functools.partial(KernelNetwork, similarity=similarity)
    channel_attention = functools.partial(ChannelAttention, gate=gate)
    halves = {"kernel_network": kernel_network, "channel_attention": channel_attention}
    image, text = ModalAwareBlock(6, 10, **halves, rngs=nnx.Rngs(0))(IMAGE, TEXT)
    np.testing.assert_allclose(image, IMAGE * image_size, rtol=0.35)
    np.testing.assert_allclose(text, TEXT * text_size, rtol=0.35)


def test_gates_are_the_equations_of_weights_over_the_sizes_they_are_kept_times():
    """By loops: W_I is the kernel over C = 6 where it meets the image, over T = 10."""
    block, rng = ModalAwareBlock(6, 10, rngs=nnx.Rngs(0)), np.random.default_rng(0)
    image, text = (np.asarray(x, float) for x in block.kernel_network(IMAGE, TEXT))
    for layer in (
        block.channel_attention.image_logits,
        block.channel_attention.text_logits,
    ):
        kernel = rng.normal(size=layer.kernel.shape)
        layer.kernel[...] = jnp.asarray(kernel, jnp.float32)
    found = block.channel_attention.gates(*block.kernel_network(IMAGE, TEXT))
    layers = block.channel_attention.image_logits, block.channel_attention.text_logits
    for layer, gates in zip(layers, found, strict=True):
        kernel = np.asarray(layer.kernel[...], float)
        for b in range(len(text)):
            logits = np.zeros(kernel.shape[1])
            for c in range(6):
                logits += image[b, :, :, c].mean() * kernel[c] / 6
            for t in range(10):
                logits += text[b, t] * kernel[6 + t] / 10
            expected = np.exp(logits) / np.exp(logits).sum()
            np.testing.assert_allclose(gates[b], expected, rtol=1e-4)


def test_one_step_of_adam_leaves_gates_of_wide_features_near_to_even():
    """Unscaled, the first step at the papers' rate shuts some of the channels."""
    block = ModalAwareBlock(400, 1000, rngs=nnx.Rngs(0))
    keys = jax.random.split(jax.random.key(0))
    image = jax.random.uniform(keys[0], (8, 2, 2, 400))
    text = jax.random.uniform(keys[1], (8, 1000))
    target = jnp.arange(1000.0)[None]

    def loss(attention, pair):
        return jnp.mean((attention(*pair)[1] - target) ** 2)

    def smallest_gate(attention):
        pair = block.kernel_network(image, text)
        graphdef, state = nnx.split(attention)
        state = nnx.to_pure_dict(state)
        tx = optax.adam(1e-4)
        gradient = jax.grad(lambda s: loss(nnx.merge(graphdef, s), pair))(state)
        step, _ = tx.update(gradient, tx.init(state))
        moved = nnx.merge(graphdef, optax.apply_updates(state, step))
        return float(moved.gates(*pair)[1].min())

    assert smallest_gate(block.channel_attention) > 0.5 / 1000
    block.channel_attention.sizes = (1.0, 1.0)
    assert smallest_gate(block.channel_attention) < 1e-9


def test_parameter_tree():
    block = ModalAwareBlock(6, 10, rngs=nnx.Rngs(0))
    shapes = jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(block)))

    def dense(inputs, outputs):
        return {"kernel": (inputs, outputs), "bias": (outputs,)}

    assert shapes == {
        "kernel_network": {
            "image_key": dense(6, 6),
            "image_query": dense(10, 6),
            "text_key": dense(6, 10),
            "text_query": dense(10, 10),
        },
        "channel_attention": {
            "image_logits": dense(16, 6),
            "text_logits": dense(16, 10),
        },
    }


@pytest.mark.parametrize(
    "block",
    [
        ModalAwareBlock,
        functools.partial(
            ModalAwareBlock,
            kernel_network=functools.partial(KernelNetwork, rank=7),
            channel_attention=functools.partial(
                SqueezedChannelAttention, squeeze_features=4
            ),
        ),
    ],
)
def test_a_training_step_changes_every_parameter(block):
    graphdef, state = nnx.split(block(6, 10, rngs=nnx.Rngs(0)))
    state = nnx.to_pure_dict(state)

    def loss(state):
        image, text = nnx.merge(graphdef, state)(IMAGE, TEXT)
        return jnp.sum(image**2 * jnp.arange(6.0).reshape(1, 1, 1, 6)) + jnp.sum(
            text**2 * jnp.arange(10.0).reshape(1, 10)
        )

    @jax.jit
    def step(state):
        tx = optax.adam(1e-2)
        return tx.update(jax.grad(loss)(state), tx.init(state))[0]

    for leaf in jax.tree.leaves(jax.device_get(step(state))):
        assert np.isfinite(leaf).all() and np.any(leaf)


def test_pass_through_is_the_identity_without_parameters():
    block = PassThrough(6, 10, rngs=nnx.Rngs(0))
    image, text = block(IMAGE, TEXT)
    assert image is IMAGE and text is TEXT
    assert not jax.tree.leaves(nnx.state(block))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"text \[B, 10\], got"):
        ModalAwareBlock(6, 10, rngs=nnx.Rngs(0))(IMAGE, TEXT[:, :9])
