"""MobileNetV2 against maps that torchvision computed (see make_torch_fixtures.py)."""

import functools
import os
import pathlib

import numpy as np
import pytest
import seeded_weights
from flax import nnx

from modal_aware_jax.backbones.mobilenet import MobileNetV2
from modal_aware_jax.backbones.pretrained import load_mobilenet_v2

STORED = pathlib.Path(__file__).with_name("torch_maps.npz")
# Real weights of the origin that the stored features have: not part of the package.
WEIGHTS = os.environ.get("MOBILENET_V2_WEIGHTS")


@nnx.jit
def evaluate(model, images):
    return model(images, train=False)


@functools.cache
def loaded(padding):
    model = nnx.eval_shape(lambda: MobileNetV2(padding=padding, rngs=nnx.Rngs(0)))
    load_mobilenet_v2(model, seeded_weights.mobilenet_v2())
    return model


SMALL, ODD, LARGE = seeded_weights.IMAGE_SIZES


@pytest.mark.parametrize(
    "padding, size",
    [
        ("SAME", SMALL),
        ("SAME", ODD),
        (1, ODD),
        pytest.param("SAME", LARGE, marks=pytest.mark.slow),
        pytest.param(1, LARGE, marks=pytest.mark.slow),
    ],
)
def test_reproduces_torchvisions_maps(padding, size):
    maps = evaluate(loaded(padding), seeded_weights.images(*size))
    assert set(maps) == {"conv4", "conv5"}
    with np.load(STORED) as stored:
        for name, ours in maps.items():
            key = f"mobilenet_v2_{padding}/{size[1]}x{size[2]}/{name}"
            ours = np.asarray(ours)
            assert ours.shape == tuple(stored[f"{key}/shape"])
            theirs = stored[f"{key}/sampled"]
            sampled = ours.ravel()[seeded_weights.sampled_positions(ours.size)]
            tolerance = 1e-4 * np.abs(theirs).max()
            np.testing.assert_allclose(sampled, theirs, atol=tolerance)
            np.testing.assert_allclose(
                [ours.mean(), ours.std()], stored[f"{key}/mean_std"], rtol=1e-4
            )


@pytest.mark.skipif(not WEIGHTS, reason="MOBILENET_V2_WEIGHTS names no .safetensors")
def test_real_weights_compute_their_stored_features():
    model = nnx.eval_shape(lambda: MobileNetV2(rngs=nnx.Rngs(0)))
    load_mobilenet_v2(model, WEIGHTS)
    maps = evaluate(model, seeded_weights.images(*ODD))
    features = np.asarray(maps["conv5"]).mean((1, 2))
    with np.load(STORED) as stored:
        theirs = stored["mobilenet_v2_file/pooled"]
    np.testing.assert_allclose(features, theirs, atol=1e-4 * np.abs(theirs).max())
