"""The Linen bridge: a block in somebody's model, and every public module once."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import modal_aware_jax
from modal_aware_jax import linen


class Tagger(nn.Module):
    """Somebody's small model, with one line of ours: the modal-aware block."""

    num_labels: int

    @nn.compact
    def __call__(self, images, words):
        maps = nn.relu(nn.Conv(8, (3, 3), strides=2)(images))  # [B, H, W, 8]
        words = nn.relu(nn.Dense(6)(words))  # [B, 6]
        maps, words = linen.ModalAwareBlock(image_features=8, text_features=6)(
            maps, words
        )
        joint = jnp.concatenate([maps.mean(axis=(1, 2)), words], axis=-1)
        return nn.Dense(self.num_labels)(joint)


@pytest.fixture
def batch(key):
    image_key, text_key, label_key = jax.random.split(key, 3)
    return {
        "image": jax.random.normal(image_key, (4, 8, 8, 3)),
        "text": jax.random.normal(text_key, (4, 5)),
        "labels": jax.random.bernoulli(label_key, 0.5, (4, 3)).astype(jnp.float32),
    }


def test_a_linen_model_with_the_block_trains_every_parameter(key, batch):
    model, tx = Tagger(num_labels=3), optax.adam(1e-2)
    params = model.init(key, batch["image"], batch["text"])["params"]
    assert params["ModalAwareBlock_0"]["kernel_network"]["text_query"]["kernel"].shape

    @jax.jit
    def update(params, opt_state, batch):
        def loss(params):
            logits = model.apply({"params": params}, batch["image"], batch["text"])
            return optax.sigmoid_binary_cross_entropy(logits, batch["labels"]).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    trained, opt_state, first = update(params, tx.init(params), batch)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), params, trained)
    assert all(jax.tree.leaves(moved)), moved
    chex.assert_tree_all_finite(trained)
    for _ in range(20):
        trained, opt_state, last = update(trained, opt_state, batch)
    assert last < first


def test_the_block_computes_in_linen_what_it_computes_in_nnx(key):
    block = modal_aware_jax.ModalAwareBlock(4, 5, rngs=nnx.Rngs(1))
    image = jax.random.normal(key, (2, 3, 3, 4))
    text = jax.random.normal(jax.random.fold_in(key, 1), (2, 5))
    params = nnx.to_pure_dict(nnx.state(block, nnx.Param))
    ours = linen.ModalAwareBlock(image_features=4, text_features=5)
    chex.assert_trees_all_close(
        ours.apply({"params": params}, image, text), block(image, text), rtol=1e-6
    )


def test_two_blocks_of_one_model_have_their_own_parameters(key):
    class Two(nn.Module):
        @nn.compact
        def __call__(self, image, text):
            block = {"image_features": 4, "text_features": 5}
            image, text = linen.ModalAwareBlock(**block)(image, text)
            return linen.ModalAwareBlock(**block, name="second")(image, text)

    params = Two().init(key, jnp.ones((1, 2, 2, 4)), jnp.ones((1, 5)))["params"]
    assert set(params) == {"ModalAwareBlock_0", "second"}
    first, second = (
        params[name]["kernel_network"]["image_key"]["kernel"] for name in params
    )
    assert not np.array_equal(first, second)


def test_arguments_by_position_are_refused_with_the_cure():
    with pytest.raises(TypeError, match="ModalAwareBlock takes keyword arguments only"):
        linen.ModalAwareBlock(256, 512)


IMAGE, TEXT = (2, 3, 3, 4), (2, 5)
PAIR = {"image_features": 4, "text_features": 5}
TWO = {"a_features": 4, "b_features": 5, "features": 8}
BACKBONES = ("MobileNetV2",)

# Constructor, shapes of the inputs, shapes of the outputs, collections.
MODULES = {
    "ChannelAttention": (PAIR, (IMAGE, TEXT), (IMAGE, TEXT), {"params"}),
    "HashHead": ({"in_features": 4, "num_bits": 6}, ((2, 4),), (2, 6), {"params"}),
    "KernelNetwork": (PAIR, (IMAGE, TEXT), (IMAGE, TEXT), {"params"}),
    "ModalAwareBlock": (PAIR, (IMAGE, TEXT), (IMAGE, TEXT), {"params"}),
}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_public_module_passes_through_the_bridge(name, key):
    arguments, inputs, outputs, collections = MODULES[name]
    module = getattr(linen, name)(**arguments)
    arrays = [jnp.ones(shape) for shape in inputs]
    made, variables = jax.jit(module.init_with_output)(key, *arrays)
    assert set(variables) == collections
    assert jax.tree.map(jnp.shape, made) == outputs
    chex.assert_trees_all_close(module.apply(variables, *arrays), made, rtol=1e-6)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_keeps_its_averages_in_batch_stats(name, key):
    module = getattr(linen, name)()
    images = jax.random.normal(key, (2, 32, 32, 3))
    init = functools.partial(module.init, train=False)
    shapes = jax.eval_shape(init, key, images)
    assert set(shapes) == {"params", "batch_stats"}
    # Compiling the initialisation takes longer than all the rest: use constants.
    variables = jax.tree.map(lambda x: jnp.full(x.shape, 0.1, x.dtype), shapes)

    @jax.jit
    def train_step(variables, images):
        return module.apply(variables, images, train=True, mutable=["batch_stats"])

    maps, updated = train_step(variables, images)
    assert all(m.ndim == 4 for m in maps.values())
    moved = jax.tree.map(
        lambda a, b: bool(jnp.any(a != b)),
        variables["batch_stats"],
        updated["batch_stats"],
    )
    assert all(jax.tree.leaves(moved)), moved


def test_every_public_module_has_its_linen_form():
    modules = {
        name
        for name in modal_aware_jax.__all__
        if inspect.isclass(getattr(modal_aware_jax, name))
    }
    for name in modules:
        assert issubclass(getattr(linen, name), nn.Module), name
        assert getattr(linen, name).__name__ == name
