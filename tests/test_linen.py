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
    params = jax.jit(model.init)(key, batch["image"], batch["text"])["params"]
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
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), *jax.device_get((params, trained))
    )
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
        jax.jit(ours.apply)({"params": params}, image, text),
        jax.jit(lambda image, text: block(image, text))(image, text),
        atol=1e-6,
    )


def test_two_blocks_of_one_model_have_their_own_parameters(key):
    class Two(nn.Module):
        @nn.compact
        def __call__(self, image, text):
            block = {"image_features": 4, "text_features": 5}
            image, text = linen.ModalAwareBlock(**block)(image, text)
            return linen.ModalAwareBlock(**block, name="second")(image, text)

    params = jax.jit(Two().init)(key, jnp.ones((1, 2, 2, 4)), jnp.ones((1, 5)))[
        "params"
    ]
    assert set(params) == {"ModalAwareBlock_0", "second"}
    first, second = (
        params[name]["kernel_network"]["image_key"]["kernel"] for name in params
    )
    assert not np.array_equal(first, second)


def test_arguments_by_position_are_refused_with_the_cure():
    with pytest.raises(TypeError, match="ModalAwareBlock takes keyword arguments only"):
        linen.ModalAwareBlock(256, 512)


IMAGE, TEXT, JOINT = (2, 3, 3, 4), (2, 5), (2, 8)
PAIR = {"image_features": 4, "text_features": 5}
TWO = {"a_features": 4, "b_features": 5, "features": 8}
TOKENS = ((2, 3, 8), (2, 5, 8))
FUSE = {"features": 8, "num_heads": 2, "num_layers": 1}
BACKBONES = ("MobileNetV2", "ResNet18")
TRANSFORMERS = ("BERT", "CLIP", "ViT")  # tests/test_transformers.py

# Constructor, shapes of the inputs, shapes of the outputs.
MODULES = {
    "AsymmetricCoAttention": (FUSE, TOKENS, JOINT),
    "ChannelAttention": (PAIR, (IMAGE, TEXT), (IMAGE, TEXT)),
    "CoAttention": (FUSE, TOKENS, JOINT),
    "CompactBilinear": (TWO, ((2, 4), TEXT), JOINT),
    "Concat": ({"a_features": 4, "b_features": 5}, ((2, 4), TEXT), (2, 9)),
    "CrossModalGraph": (
        {"features": 4, "num_layers": 1},
        ((2, 3, 4), (2, 5, 4)),
        ((2, 3, 4), (2, 5, 4)),
    ),
    "CrossModalGraphNetwork": (
        {"image_features": 4, "text_features": 5, "features": 8, "graph_features": 4},
        ((2, 3, 4), (2, 6, 5)),
        (JOINT, JOINT),
    ),
    "DivideAndEncodeHead": ({"in_features": 12, "num_bits": 6}, ((2, 12),), (2, 6)),
    "ElementwiseProduct": (TWO, ((2, 4), TEXT), JOINT),
    "ElementwiseSum": (TWO, ((2, 4), TEXT), JOINT),
    "FactorizedBilinear": (TWO, ((2, 4), TEXT), JOINT),
    "GatedMultimodalUnit": (TWO, ((2, 4), TEXT), JOINT),
    "HashHead": ({"in_features": 4, "num_bits": 6}, ((2, 4),), (2, 6)),
    "KernelNetwork": (PAIR, (IMAGE, TEXT), (IMAGE, TEXT)),
    "LowRankBilinear": (TWO, ((2, 4), TEXT), JOINT),
    "MergeAttention": (FUSE, TOKENS, JOINT),
    "ModalAwareBlock": (PAIR, (IMAGE, TEXT), (IMAGE, TEXT)),
    "MultiGatedUnit": (
        {"in_features": (4, 5, 3), "features": 8},
        ((2, 4), TEXT, (2, 3)),
        JOINT,
    ),
    "PooledCompactBilinear": (TWO, (IMAGE, TEXT), JOINT),
    "PositionKernel": (PAIR, (IMAGE, TEXT), (IMAGE, TEXT)),
    "SimilarityFusion": (FUSE, TOKENS, JOINT),
    "SimilarityInteraction": (
        {"features": 8, "num_heads": 2, "hidden_features": 6},
        TOKENS,
        TOKENS,
    ),
    "SqueezedChannelAttention": (PAIR, (IMAGE, TEXT), (IMAGE, TEXT)),
    "TwoTower": (
        {**PAIR, "features": 8, "hidden_features": 6},
        ((2, 4), (2, 3, 5)),
        (JOINT, JOINT),
    ),
}
COLLECTIONS = {
    "CompactBilinear": {"hash_tables"},
    "Concat": set(),
    "PooledCompactBilinear": {"hash_tables"},
}


@pytest.mark.parametrize("name", sorted(set(MODULES) & set(modal_aware_jax.__all__)))
def test_a_public_module_passes_through_the_bridge(name, key):
    arguments, inputs, outputs = MODULES[name]
    module = getattr(linen, name)(**arguments)
    arrays = [jnp.ones(shape) for shape in inputs]

    @jax.jit
    def init_and_apply(key, arrays):
        made, variables = module.init_with_output(key, *arrays)
        return made, module.apply(variables, *arrays), variables

    made, again, variables = init_and_apply(key, arrays)
    assert set(variables) == COLLECTIONS.get(name, {"params"})
    assert jax.tree.map(jnp.shape, made) == outputs
    chex.assert_trees_all_close(again, made, atol=1e-6)


def test_a_backbone_keeps_its_averages_only_where_they_are_mutable(key):
    module = linen.ResNet18(width=4)
    images = jax.random.normal(key, (2, 32, 32, 3))
    # Compiling the initialisation takes longer than all the rest: use constants.
    shapes = jax.eval_shape(functools.partial(module.init, train=False), key, images)
    variables = jax.tree.map(lambda x: np.full(x.shape, 0.1, x.dtype), shapes)

    @jax.jit
    def train_step(variables, images):
        return module.apply(variables, images, train=True, mutable=["batch_stats"])

    maps, updated = train_step(variables, images)
    chex.assert_tree_all_finite(maps)
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)),
        variables["batch_stats"],
        jax.device_get(updated["batch_stats"]),
    )
    assert all(jax.tree.leaves(moved)), moved
    unmoved = jax.eval_shape(
        functools.partial(module.apply, train=True), variables, images
    )
    assert set(unmoved) == set(maps)  # the maps alone: the update is dropped


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_has_params_and_batch_stats(name, key):
    module = getattr(linen, name)()
    init = functools.partial(module.init_with_output, train=False)
    maps, variables = jax.eval_shape(init, key, jnp.ones((2, 64, 64, 3)))
    assert set(variables) == {"params", "batch_stats"}
    assert [m.shape[:3] for m in maps.values()] == [(2, 4, 4), (2, 2, 2)]


class TinyBackbone(nnx.Module):
    """A backbone of two convolutions and a batch norm."""

    lower_features, upper_features = 4, 6

    def __init__(self, *, width=4, rngs):
        self.stem = nnx.Conv(3, width, (3, 3), strides=4, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.top = nnx.Conv(width, 6, (1, 1), rngs=rngs)

    def lower(self, images, *, train):
        return self.norm(self.stem(images), use_running_average=not train)

    def upper(self, maps, *, train):
        return self.top(maps)


def test_the_whole_network_trains_in_linen(key):
    backbone = TinyBackbone(rngs=nnx.Rngs(3))
    stem = np.asarray(backbone.stem.kernel[...])
    module = linen.MultimodalHashing(
        backbone=backbone, text_features=5, num_bits=8, text_widths=(7, 3)
    )
    images = jax.random.normal(key, (2, 8, 8, 3))
    text = jax.random.normal(jax.random.fold_in(key, 1), (2, 5))

    @jax.jit
    def step(key, images, text):
        variables = module.init(key, images, text, train=False)

        def loss(params):
            codes, updated = module.apply(
                {**variables, "params": params},
                images,
                text,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.sum(jnp.tanh(codes)), (codes, updated)

        grads, (codes, updated) = jax.grad(loss, has_aux=True)(variables["params"])
        return variables, grads, codes, updated

    variables, grads, codes, updated = step(key, images, text)
    assert codes.shape == (2, 8)
    start = variables["params"]["backbone"]["stem"]["kernel"]
    np.testing.assert_array_equal(start, stem)  # its weights are the initial ones
    np.testing.assert_array_equal(backbone.stem.kernel[...], stem)  # and stay its own
    assert np.any(np.asarray(grads["backbone"]["stem"]["kernel"]) != 0)
    assert np.all(np.asarray(updated["batch_stats"]["backbone"]["norm"]["mean"]) != 0)


def test_the_whole_network_takes_a_backbone_in_linen_form(key):
    module = linen.MultimodalHashing(
        backbone=linen.ResNet18(width=4),
        text_features=5,
        num_bits=8,
        text_widths=(7, 3),
    )
    inputs = jnp.ones((2, 32, 32, 3)), jnp.ones((2, 5))
    init = functools.partial(module.init_with_output, train=False)
    codes, variables = jax.eval_shape(init, key, *inputs)
    assert codes.shape == (2, 8)
    assert set(variables) == {"params", "batch_stats"}
    apply = functools.partial(module.apply, train=False, nnx_method="joint")
    assert jax.eval_shape(apply, variables, *inputs).shape == (2, 8 * 4 + 3)


def test_every_public_module_has_its_linen_form():
    modules = {
        name
        for name in modal_aware_jax.__all__
        if inspect.isclass(getattr(modal_aware_jax, name))
    }
    assert modules == {*MODULES, *BACKBONES, *TRANSFORMERS, "MultimodalHashing"}
    for name in modules:
        assert issubclass(getattr(linen, name), nn.Module), name
        assert getattr(linen, name).__name__ == name


def test_dropout_has_its_randomness_from_apply(key):
    module = linen.CrossModalGraph(features=16, num_layers=1, dropout_rate=0.5)
    image, text = jax.random.normal(key, (2, 1, 4, 16))
    variables = jax.jit(module.init)(key, image, text)

    @jax.jit
    def nodes(key):
        rngs = {"dropout": key}
        return module.apply(variables, image, text, train=True, rngs=rngs)[0]

    one, again, other = (nodes(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    with pytest.raises(ValueError, match=r"in Linen apply it with rngs={'dropout'"):
        module.apply(variables, image, text, train=True)


@pytest.mark.parametrize("transform", [nn.remat, nn.jit, lambda c: type("S", (c,), {})])
def test_transforms_and_subclasses_are_the_module(transform, key):
    arguments = {"in_features": 2, "num_bits": 3}
    plain, other = (
        head(**arguments) for head in (linen.HashHead, transform(linen.HashHead))
    )
    x = jax.random.normal(key, (4, 2))
    variables = plain.init(key, x)
    expected = plain.apply(variables, x)
    np.testing.assert_array_equal(other.apply(variables, x), expected)
    mean = jax.grad(lambda v: jnp.mean(other.apply(v, x)))(variables)
    assert jax.tree.all(jax.tree.map(lambda g: bool(jnp.any(g != 0)), mean))
