"""Networks on a frozen backbone's last maps, or on their means where they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_end_to_end import tiny_config

from modal_aware_jax import build
from modal_aware_jax.data import pipeline
from modal_aware_jax.modes.encoder import lower_maps
from modal_aware_jax.training.frozen_means import frozen_means

SIZE = 64


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("maps")


def experiment_of(method, cache, *, mirrored=False, **training):
    """48 pairs, a frozen MobileNetV2, block 1 before its last convolution."""
    config = tiny_config(method)
    with config.unlocked():
        config.data.options.num_pairs = 48
        config.data.image_size, config.data.mirrored = SIZE, mirrored
        config.data.num_queries, config.data.num_train = 8, 24
        config.data.num_validation = 4
        config.backbone.name, config.backbone.frozen_blocks = "mobilenet_v2", 19
        config.backbone.options = {"freeze_norm": True, "num_lower_blocks": 18}
        config.model.image_features = 16
        config.training.batch_size = 8
        config.training.cached_maps = config.training.cached_means = True
        config.training.cache_dir = str(cache)
        for name, value in training.items():
            config.training[name] = value
    return build.experiment(config)


def batch_of(experiment, index):
    maps = np.asarray(lower_maps(experiment))
    pairs = experiment.collection
    return {
        "image": maps[index, 0],
        "text": pairs.text[index].astype(np.float32),
        "labels": pairs.labels[index],
        "index": index,
    }


def awake(experiment):
    """Gates and weights of positions that are not the even ones of the start."""
    for name, block in nnx.iter_children(experiment.model):
        if name in ("block1", "block2"):
            state = nnx.state(block)
            state = jax.tree.map(
                lambda x: x + 0.05 * jnp.cos(jnp.arange(x.size).reshape(x.shape)), state
            )
            nnx.update(block, state)
    return experiment


@pytest.mark.parametrize(
    ("method", "shape"),
    [("concat", (1, 1)), ("image", (1, 1)), ("last_block", (2, 2))],
)
def test_what_was_computed_once_gives_the_loss_and_the_codes_of_the_images(
    method, shape, cache
):
    plain = awake(experiment_of(method, cache, cached_maps=False, word_dropout=0.0))
    means = awake(experiment_of(method, cache, word_dropout=0.0))
    assert means.cached_means == (shape == (1, 1))
    assert means.cached_last == (shape == (2, 2))
    assert lower_maps(means).shape == (48, 2, *shape, 1280)
    index = np.arange(8)
    batch = batch_of(means, index)
    images = np.stack(
        [
            pipeline.resize(pipeline.decode(plain.collection.images[i]), SIZE)
            for i in index
        ]
    )
    key = jax.random.key(3)
    for function in ("output", "loss"):
        arguments = (key,) if function == "loss" else ()
        ours = getattr(means, function)(means.model, batch, *arguments)
        of_images = {**batch, "image": images}
        theirs = getattr(plain, function)(plain.model, of_images, *arguments)
        scale = float(jnp.abs(theirs).max())
        # What is left is the float16 of the maps that the means are of.
        np.testing.assert_allclose(ours, theirs, atol=5e-3 * scale)


@pytest.mark.parametrize(
    ("method", "training"),
    [
        ("modal_aware", {}),
        ("first_block", {}),
        ("concat", {"cached_means": False}),
        ("last_block", {"cached_means": False}),
    ],
)
def test_what_reads_more_keeps_its_maps(method, training, cache):
    experiment = experiment_of(method, cache, **training)
    assert not experiment.cached_means and not experiment.cached_last
    assert lower_maps(experiment).shape == (48, 2, 2, 2, 320)


def test_a_backbone_whose_norms_see_the_batch_has_no_fixed_means():
    config = tiny_config("concat")
    with config.unlocked():
        config.backbone.frozen_blocks = 9
        config.training.cached_maps = config.training.cached_means = True
    assert not build.experiment(config).cached_means  # ResNet-18


def test_means_by_hand_and_from_the_file_the_second_time(tmp_path):
    experiment = build.experiment(tiny_config("concat"))
    maps = np.random.default_rng(0).normal(size=(260, 2, 3, 3, 4)).astype(np.float16)
    calls = []

    def mean_fn(rows):
        calls.append(len(rows))
        return jnp.asarray(rows, jnp.float32).mean((1, 2), keepdims=True) * 2

    options = {
        "collection": experiment.collection,
        "path": tmp_path,
        "image_size": 32,
        "batch_size": 128,
    }
    found = frozen_means(maps, mean_fn, {"w": np.ones(3)}, **options)
    by_hand = [
        [2 * image.reshape(9, 4).astype(float).mean(0) for image in pair]
        for pair in maps
    ]
    np.testing.assert_allclose(found[:, :, 0, 0], by_hand, atol=1e-5)
    assert found.dtype == np.float32 and set(calls) == {128}

    again = frozen_means(maps, mean_fn, {"w": np.ones(3)}, **options)
    np.testing.assert_array_equal(again, found)
    assert len(calls) == 5
    frozen_means(maps, mean_fn, {"w": np.zeros(3)}, **options)  # of other weights
    assert len(calls) == 10
