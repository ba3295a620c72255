"""The whole network: its composition, its baselines, and a step through all of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from modal_aware_jax.backbones.dropout import drop
from modal_aware_jax.backbones.text_mlp import TextMLP
from modal_aware_jax.blocks.modal_aware import ModalAwareBlock, PassThrough
from modal_aware_jax.hashing.hidden import HiddenLayer
from modal_aware_jax.models import ImageHashing, MultimodalHashing, TextHashing


class TinyBackbone(nnx.Module):
    """Two strided convolutions: the smallest thing with a lower and an upper half."""

    lower_features, upper_features = 4, 6

    def __init__(self, *, rngs):
        self.first = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.second = nnx.Conv(4, 6, (3, 3), strides=2, rngs=rngs)

    def lower(self, images, *, train):
        return nnx.relu(self.first(images))

    def upper(self, maps, *, train):
        return nnx.relu(self.second(maps))


IMAGES = jax.random.normal(jax.random.key(0), (5, 8, 8, 3))
TEXT = jnp.asarray(
    np.asarray(jax.random.uniform(jax.random.key(1), (5, 9))) < 0.4, jnp.float32
)


def network(block=ModalAwareBlock, bits=12):
    rngs = nnx.Rngs(0)
    return MultimodalHashing(
        TinyBackbone(rngs=rngs), 9, bits, text_widths=(16, 7), block=block, rngs=rngs
    )


def test_is_composed_as_the_paper_draws_it():
    model = network()
    wide = jnp.maximum(model.text.dense_wide(TEXT), 0)
    maps, wide = model.block1(model.backbone.lower(IMAGES, train=False), wide)
    # Block 1's maps replace the backbone's: the upper half reads them.
    maps = model.backbone.upper(maps, train=False)
    maps, narrow = model.block2(maps, model.text.dense_narrow(wide))
    joint = np.concatenate([np.mean(maps, axis=(1, 2)), narrow], axis=1)
    np.testing.assert_allclose(model.joint(IMAGES, TEXT, train=False), joint, rtol=1e-6)
    head = model.head.dense
    expected = joint @ head.kernel[...] + head.bias[...][None]
    relaxed = model(IMAGES, TEXT, train=False)
    assert relaxed.shape == (5, 12)
    np.testing.assert_allclose(relaxed, expected, rtol=1e-5, atol=1e-7)


def test_the_image_reaches_the_code_only_through_block_1():
    def blind(image_features, text_features, *, rngs):
        return Blind()

    class Blind(nnx.Module):
        def __call__(self, image, text):
            return 0 * image, text

    model = network(block=blind)
    np.testing.assert_array_equal(
        model(IMAGES, TEXT, train=False), model(2 * IMAGES + 1, TEXT, train=False)
    )


def test_cached_maps_give_the_same_codes():
    model = network()
    maps = model.backbone.lower(IMAGES, train=False)
    np.testing.assert_array_equal(
        model.head(model.joint_from_maps(maps, TEXT, train=False)),
        model(IMAGES, TEXT, train=False),
    )


def test_concat_is_the_pooled_maps_beside_the_text():
    model = network(block=PassThrough)
    maps = model.backbone.upper(model.backbone.lower(IMAGES, train=False), train=False)
    joint = np.concatenate([np.mean(maps, axis=(1, 2)), model.text(TEXT)], axis=1)
    np.testing.assert_allclose(model.joint(IMAGES, TEXT, train=False), joint, rtol=1e-6)


def test_text_weights_start_at_a_hundredth_and_the_text_branch_is_by_hand():
    text = TextMLP(400, (300, 200), rngs=nnx.Rngs(0))
    for layer in (text.dense_wide, text.dense_narrow):
        assert abs(float(layer.kernel[...].std()) - 0.01) < 3e-4
    small = TextMLP(2, (2, 1), rngs=nnx.Rngs(0))
    small.dense_wide.kernel[...] = jnp.array([[1.0, -1.0], [2.0, -1.0]])
    small.dense_narrow.kernel[...] = jnp.array([[-0.5], [100.0]])
    # ReLU after the wide layer (3, -2) -> (3, 0), none after the narrow one.
    np.testing.assert_array_equal(small(jnp.ones((1, 2))), [[-1.5]])


def unimodal(kind):
    rngs = nnx.Rngs(0)
    if kind == "image":
        return ImageHashing(TinyBackbone(rngs=rngs), 12, rngs=rngs)
    return TextHashing(9, 12, text_widths=(16, 7), rngs=rngs)


def test_unimodal_models_read_one_modality():
    image, text = unimodal("image"), unimodal("text")
    codes = image(IMAGES, TEXT, train=False)
    np.testing.assert_array_equal(codes, image(IMAGES, 1 - TEXT, train=False))
    assert np.abs(codes - image(2 * IMAGES, TEXT, train=False)).max() > 0
    codes = text(IMAGES, TEXT, train=False)
    np.testing.assert_array_equal(codes, text(2 * IMAGES, TEXT, train=False))
    assert np.abs(codes - text(IMAGES, 1 - TEXT, train=False)).max() > 0


@pytest.mark.parametrize(
    "make",
    [
        network,
        functools.partial(unimodal, "image"),
        functools.partial(unimodal, "text"),
    ],
)
def test_a_training_step_changes_every_parameter(make):
    graphdef, state = nnx.split(make())
    state = nnx.to_pure_dict(state)

    def loss(state):
        relaxed = nnx.merge(graphdef, state)(IMAGES, TEXT, train=True)
        return jnp.sum(relaxed * jnp.arange(60.0).reshape(5, 12))

    @jax.jit
    def step(state):
        # The literal softmax gates leave little: scale the gradient, not the step.
        gradients = jax.tree.map(lambda g: g * 1e6, jax.grad(loss)(state))
        return optax.adam(1e-2).update(gradients, optax.adam(1e-2).init(state))[0]

    for path, leaf in jax.tree.leaves_with_path(jax.device_get(step(state))):
        assert np.isfinite(leaf).all() and np.any(leaf), path


def test_wrong_text_width_is_refused():
    with pytest.raises(ValueError, match=r"expects text \[B, 9\], got \(5, 8\)"):
        network()(IMAGES, TEXT[:, :8], train=False)


def test_a_hidden_layer_needs_randomness_in_training_and_none_in_evaluation():
    rngs = nnx.Rngs(0)
    hidden = functools.partial(HiddenLayer, features=8)
    model = TextHashing(9, 12, text_widths=(16, 7), hidden=hidden, rngs=rngs)
    joint = model.joint(None, TEXT, train=False)
    assert joint.shape == (5, 8)
    np.testing.assert_array_equal(joint, model.joint(None, TEXT, train=False))
    with pytest.raises(ValueError, match="fresh randomness"):
        model.joint(None, TEXT, train=True)

    def trained(seed):
        return model.joint(None, TEXT, train=True, rngs=nnx.Rngs(dropout=seed))

    np.testing.assert_array_equal(trained(1), trained(1))
    assert np.abs(trained(1) - trained(2)).max() > 0


def test_dropout_keeps_the_mean():
    x = jnp.ones((200, 500))
    dropped = drop(nnx.Rngs(dropout=0), x, 0.4, caller="test")
    assert set(np.unique(dropped).round(4)) == {0.0, np.float32(1 / 0.6).round(4)}
    assert abs(float(dropped.mean()) - 1.0) < 0.01
    assert drop(None, x, 0.0, caller="test") is x


def test_the_label_head_is_there_only_when_asked_for():
    assert unimodal("text").label_head is None
    model = TextHashing(9, 12, text_widths=(16, 7), num_labels=4, rngs=nnx.Rngs(0))
    assert model.label_head(model.joint(None, TEXT, train=False)).shape == (5, 4)
