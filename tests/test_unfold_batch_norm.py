"""Unfolded batch norms compute what the folded ones did, in training mode too."""

import numpy as np
import pytest
import seeded_weights
from flax import nnx

from modal_aware_jax.backbones.pretrained import load_resnet18
from modal_aware_jax.backbones.resnet import ResNet18
from modal_aware_jax.backbones.unfold_batch_norm import unfold_batch_norm


def fold(state):
    """The same function with every norm (1, bias, 0, 1), as TFLite stores it."""
    state = dict(state)
    for mean_key in [k for k in state if k.endswith("running_mean")]:
        norm = mean_key.removesuffix(".running_mean")
        conv = norm.replace("bn", "conv").replace("downsample.1", "downsample.0")
        factor = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + 1e-5)
        weight = state[f"{conv}.weight"]
        state[f"{conv}.weight"] = weight * factor[:, None, None, None]
        state[f"{norm}.bias"] = state[f"{norm}.bias"] - state[mean_key] * factor
        state[f"{norm}.weight"] = np.ones_like(factor)
        state[mean_key] = np.zeros_like(factor)
        state[f"{norm}.running_var"] = np.full_like(factor, 1 - 1e-5)
    return state


@nnx.jit
def evaluate(model, images):
    return model(images, train=False)["conv5_2"]


@nnx.jit
def train(model, images):
    return model(images, train=True)["conv5_2"]


def test_unfolding_keeps_the_function_and_makes_training_mode_valid():
    model = nnx.eval_shape(lambda: ResNet18(width=4, rngs=nnx.Rngs(0)))
    load_resnet18(model, fold(seeded_weights.resnet18(width=4)))
    images = seeded_weights.images(8, 64, 64)

    before = np.asarray(evaluate(model, images))
    scale = np.abs(before).max()
    folded = train(nnx.clone(model), images)
    assert np.abs(folded - before).max() > 0.1 * scale  # invalid as loaded

    unfold_batch_norm(model, [images])
    np.testing.assert_allclose(evaluate(model, images), before, atol=1e-5 * scale)
    np.testing.assert_allclose(train(model, images), before, atol=1e-4 * scale)


def test_unfolding_joins_batches_of_different_sizes():
    class Net(nnx.Module):
        def __init__(self):
            self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))

        def __call__(self, x, *, train):
            return self.norm(x, use_running_average=not train)

    x = np.random.default_rng(0).normal(100.0, 0.1, (12, 3, 3, 2)).astype(np.float32)
    model = Net()
    unfold_batch_norm(model, [x[:1], x[1:4], x[4:]])
    flat = x.reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(model.norm.mean[...], flat.mean(0), rtol=1e-6)
    np.testing.assert_allclose(model.norm.var[...], flat.var(0), rtol=1e-3)
    np.testing.assert_allclose(model(x, train=False), x / np.sqrt(1 + 1e-5), rtol=1e-5)


def test_unfolding_needs_images():
    with pytest.raises(ValueError, match="unfold_batch_norm: got no batches"):
        unfold_batch_norm(nnx.BatchNorm(2, rngs=nnx.Rngs(0)), [])
