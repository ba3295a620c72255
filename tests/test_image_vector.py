"""The vector that fusion reads: its standardisation, its layer, its dropout."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx
from sklearn.preprocessing import StandardScaler

from modal_aware_jax.backbones.image_vector import DenseVector, MeanVector
from modal_aware_jax.backbones.mobilenet import MobileNetV2
from modal_aware_jax.models import ImageHashing

# Channels whose scales differ by orders of magnitude, as a backbone's do.
SCALES = np.float32([1e-1, 1.0, 30.0, 1000.0])
MAPS = np.random.default_rng(0).normal(3.0, 1.0, (64, 3, 2, 4)).astype("f") * SCALES


def read_out(vector):
    """Makes the dense layer the identity, so that only ReLU stands in between."""
    vector.dense.kernel[...] = np.eye(4, dtype="f")
    return vector


def test_the_plain_vector_is_the_mean_over_positions():
    vector = MeanVector(4)
    assert vector.features == 4
    expected = [sum(maps.reshape(6, 4)) / 6 for maps in MAPS.astype(np.float64)]
    np.testing.assert_allclose(vector(MAPS, train=False), expected, rtol=1e-5)


def test_a_training_batch_is_standardised_channel_by_channel():
    vector = read_out(DenseVector(4, features=4, dropout_rate=0.0, rngs=nnx.Rngs(0)))
    pooled = MAPS.astype(np.float64).mean(axis=(1, 2))
    expected = np.maximum(StandardScaler().fit_transform(pooled), 0)
    # 1e-5 under the root, of a variance of 2e-3 in the first channel.
    np.testing.assert_allclose(vector(MAPS, train=True), expected, rtol=4e-3, atol=1e-3)


def test_evaluation_uses_what_training_saw_and_one_sample_is_enough():
    vector = read_out(DenseVector(4, features=4, dropout_rate=0.0, rngs=nnx.Rngs(0)))
    for _ in range(100):
        trained = vector(MAPS, train=True)
    alone = [vector(maps[None], train=False)[0] for maps in MAPS]
    np.testing.assert_allclose(alone, trained, rtol=1e-2, atol=1e-2)


def test_channels_are_dropped_in_training_only():
    vector = read_out(DenseVector(4, features=4, dropout_rate=0.5, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="DenseVector: training needs fresh"):
        vector(MAPS, train=True)
    kept = vector(MAPS, train=True, rngs=nnx.Rngs(dropout=1))
    whole = vector(MAPS, train=True, rngs=nnx.Rngs(dropout=2))
    positive = np.maximum(np.asarray(kept), np.asarray(whole)) > 0
    assert 0.6 < np.mean(np.asarray(kept)[positive] > 0) < 0.8
    same = vector(MAPS, train=False)
    np.testing.assert_array_equal(same, vector(MAPS, train=False))


def test_a_network_hands_it_the_randomness_and_fits_its_width():
    backbone = MobileNetV2(num_lower_blocks=18, freeze_norm=True, rngs=nnx.Rngs(0))
    model = ImageHashing(
        backbone,
        12,
        image_vector=functools.partial(DenseVector, features=5),
        rngs=nnx.Rngs(0),
    )
    maps = jax.random.normal(jax.random.key(0), (3, 2, 2, 320))
    rngs = nnx.Rngs(dropout=0)
    assert model.joint_from_maps(maps, train=True, rngs=rngs).shape == (3, 5)


@functools.cache
def whole_network():
    return MobileNetV2(rngs=nnx.Rngs(0))


def whole(images):
    return whole_network()(images, train=False)["conv5"]


@pytest.mark.parametrize(
    ("lower", "shape"), [(14, (1, 2, 2, 96)), (18, (1, 1, 1, 320))]
)
def test_mobilenet_can_be_cut_deeper(lower, shape):
    images = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    cut = MobileNetV2(num_lower_blocks=lower, rngs=nnx.Rngs(0))
    maps = cut.lower(images, train=False)
    assert maps.shape == shape and cut.lower_features == shape[-1]
    np.testing.assert_allclose(cut.upper(maps, train=False), whole(images), rtol=1e-5)


def test_a_cut_outside_the_network_is_refused():
    with pytest.raises(ValueError, match="num_lower_blocks is 1 to 18, got 19"):
        MobileNetV2(num_lower_blocks=19, rngs=nnx.Rngs(0))
