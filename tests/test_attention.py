"""What blocks are said to look at is what they do to their input."""

import jax
import numpy as np
import pytest
from flax import nnx

from modal_aware_jax.blocks import (
    ChannelAttention,
    KernelNetwork,
    ModalAwareBlock,
    PassThrough,
    SqueezedChannelAttention,
)
from modal_aware_jax.models.attention import block_attention, network_attention


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(0))
    return jax.random.normal(keys[0], (2, 3, 4, 5)), jax.random.normal(keys[1], (2, 6))


@pytest.mark.parametrize(
    "kind",
    [
        ModalAwareBlock,
        KernelNetwork,
        ChannelAttention,
        SqueezedChannelAttention,
        PassThrough,
    ],
)
def test_weights_and_gates_are_the_ratio_of_output_to_input(kind, inputs):
    block = kind(5, 6, rngs=nnx.Rngs(0))

    @jax.jit
    def run(maps, text):
        return block_attention(block, maps, text), block(maps, text)[0]

    found, made = jax.device_get(run(*inputs))
    ratio = made / np.asarray(inputs[0])  # [B, H, W, C]
    ours = np.ones_like(ratio)
    if kind in (ModalAwareBlock, KernelNetwork):
        assert found.positions.shape == (2, 3, 4)
        ours = ours * found.positions[..., None]
    else:
        assert found.positions is None
    if "Attention" in kind.__name__ or kind is ModalAwareBlock:
        ours = ours * found.gates[:, None, None, :]
        np.testing.assert_allclose(found.gated, np.abs(made).mean(-1), rtol=1e-5)
    else:
        assert found.gates is None and found.gated is None
    np.testing.assert_allclose(ours, ratio, rtol=1e-3)


class Backbone(nnx.Module):
    """Upper halves the maps and turns their five channels round."""

    def lower(self, images, *, train):
        assert not train
        return images

    def upper(self, maps, *, train):
        assert not train
        return maps[:, ::2, ::2, ::-1]


class Text(nnx.Module):
    def wide(self, text):
        return 2 * text

    def narrow(self, wide):
        return wide[:, :3]


class Network(nnx.Module):
    def __init__(self, rngs):
        self.backbone, self.text = Backbone(), Text()
        self.block1 = ModalAwareBlock(5, 6, rngs=rngs)
        self.block2 = ModalAwareBlock(5, 3, rngs=rngs)


def test_a_networks_second_block_sees_what_the_first_leaves(inputs):
    model = Network(nnx.Rngs(0))

    @jax.jit
    def both(maps, text):
        found = network_attention(model, maps, text)
        first = block_attention(model.block1, maps, 2 * text)
        maps, text = model.block1(maps, 2 * text)
        return found, first, model.block2(maps[:, ::2, ::2, ::-1], text[:, :3])[0]

    (first, second), expected, after = jax.device_get(both(*inputs))
    np.testing.assert_allclose(first.positions, expected.positions)
    assert second.positions.shape == (2, 2, 2)
    np.testing.assert_allclose(second.gated, np.abs(after).mean(-1), rtol=1e-5)
