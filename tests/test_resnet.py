"""ResNet18 against maps that torchvision computed (see make_torch_fixtures.py)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import seeded_weights
from flax import nnx

from modal_aware_jax.backbones.pretrained import load_resnet18
from modal_aware_jax.backbones.resnet import ResNet18

STORED = pathlib.Path(__file__).with_name("torch_maps.npz")


@pytest.fixture(scope="module")
def loaded():
    model = nnx.eval_shape(lambda: ResNet18(rngs=nnx.Rngs(0)))
    load_resnet18(model, seeded_weights.resnet18())
    return model


@pytest.fixture
def small():
    model = nnx.eval_shape(lambda: ResNet18(width=4, rngs=nnx.Rngs(0)))
    load_resnet18(model, seeded_weights.resnet18(width=4))
    return model


@pytest.mark.parametrize("size", seeded_weights.IMAGE_SIZES)
def test_reproduces_torchvisions_maps(loaded, size):
    images = seeded_weights.images(*size)
    maps = nnx.jit(lambda m, x: m(x, train=False))(loaded, images)
    assert set(maps) == {"conv4_2", "conv5_2"}
    with np.load(STORED) as stored:
        for name, ours in maps.items():
            key = f"resnet18/{size[1]}x{size[2]}/{name}"
            ours = np.asarray(ours)
            assert ours.shape == tuple(stored[f"{key}/shape"])
            theirs = stored[f"{key}/sampled"]
            sampled = ours.ravel()[seeded_weights.sampled_positions(ours.size)]
            tolerance = 1e-4 * np.abs(theirs).max()
            np.testing.assert_allclose(sampled, theirs, atol=tolerance)
            np.testing.assert_allclose(
                [ours.mean(), ours.std()], stored[f"{key}/mean_std"], rtol=1e-4
            )


def test_upper_of_lower_is_the_call(small):
    images = seeded_weights.images(2, 64, 64)

    @nnx.jit
    def run(model, images):
        lower = model.lower(images, train=False)
        return model(images, train=False), lower, model.upper(lower, train=False)

    maps, lower, upper = run(small, images)
    np.testing.assert_array_equal(lower, maps["conv4_2"])
    np.testing.assert_array_equal(upper, maps["conv5_2"])
    assert lower.shape[-1] == small.lower_features == 16
    assert maps["conv5_2"].shape[-1] == small.upper_features == 32


def test_default_features():
    model = nnx.eval_shape(lambda: ResNet18(rngs=nnx.Rngs(0)))
    assert (model.lower_features, model.upper_features) == (256, 512)
    sizes = [
        v.size for v in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    ]
    assert sum(sizes) == 11_176_512  # torchvision's 11,689,512 less the classifier


def test_a_training_step_changes_every_parameter_and_statistic(small):
    images = seeded_weights.images(2, 64, 64)
    graphdef, params, rest = nnx.split(small, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    weights = np.random.default_rng(0).normal(size=(2, 2, 2, 32)).astype(np.float32)

    @jax.jit
    def step(params):
        def loss(params):
            model = nnx.merge(graphdef, params, rest)
            maps = model(images, train=True)
            after = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
            return (maps["conv5_2"] * weights).sum(), after

        (_, after), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return optax.apply_updates(params, grads), after

    new_params, new_rest = step(params)
    for old, new in ((params, new_params), (rest, new_rest)):
        old, new = jax.tree.leaves(old), jax.tree.leaves(new)
        assert all(jnp.isfinite(b).all() for b in new)
        assert all((a != b).any() for a, b in zip(old, new, strict=True))


def test_bfloat16_computes_in_it_and_keeps_float32_parameters():
    def run(images):
        model = ResNet18(width=4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        return model(images, train=True)["conv5_2"], nnx.to_pure_dict(nnx.state(model))

    half, state = jax.eval_shape(run, jnp.zeros((2, 64, 64, 3)))
    assert half.dtype == jnp.bfloat16
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(state))


@pytest.mark.parametrize(
    "shape, message",
    [
        ((2, 3, 64, 64), r"images \[B, H, W, 3\].*\[2, 3, 64, 64\]"),
        ((64, 64, 3), r"images \[B, H, W, 3\].*\[64, 64, 3\]"),
    ],
)
def test_wrong_images_say_what_is_expected(small, shape, message):
    with pytest.raises(ValueError, match=message):
        small(jnp.zeros(shape), train=False)


def test_wrong_maps_say_what_is_expected(small):
    with pytest.raises(ValueError, match=r"maps \[B, h, w, 16\].*\[2, 4, 4, 3\]"):
        small.upper(jnp.zeros((2, 4, 4, 3)), train=False)
