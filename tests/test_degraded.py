"""Training pictures that noise, blur or JPEG has spoilt."""

import dataclasses
import io

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from test_end_to_end import tiny_config
from test_frozen_means import SIZE, experiment_of

from modal_aware_jax import build
from modal_aware_jax.data import pipeline
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.degraded import degraded_pictures
from modal_aware_jax.data.perturbations import degrade
from modal_aware_jax.modes.encoder import degraded_maps, lower_maps
from modal_aware_jax.modes.train import fit_run


def photograph(seed=0, size=64):
    """Smooth colours with one edge, as JPEG and blur find them in photographs."""
    y, x = np.mgrid[:size, :size] / size
    waves = np.stack([np.sin(3 * x + seed), np.cos(2 * y), np.sin(x * y * 5)], -1)
    picture = 100 + 60 * waves + 40 * (x > 0.5)[..., None]
    return picture.clip(0, 255).astype(np.uint8)


def test_doses_reach_from_nothing_to_the_strongest_of_the_table():
    """Deviations of 300 draws from a grey picture, which only noise changes."""
    grey = np.full((32, 32, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    deviations = np.array([np.std(degrade(grey, rng) - 128.0) for _ in range(300)])
    noisy = deviations[deviations > 1]
    assert 60 < len(noisy) < 140  # a third
    assert noisy.max() < 42 and noisy.max() > 36 and noisy.min() < 4
    assert abs(noisy.mean() - 20) < 4


def test_photographs_lose_detail_by_each_kind():
    picture = photograph()
    rng = np.random.default_rng(1)
    spoilt = [degrade(picture, rng) for _ in range(60)]
    assert all(x.shape == picture.shape and x.dtype == np.uint8 for x in spoilt)
    errors = [np.abs(x - picture.astype(float)).mean() for x in spoilt]
    assert max(errors) < 40 and np.mean(errors) > 1
    edges = np.abs(np.diff(picture.astype(float), axis=1)).max()
    softest = min(np.abs(np.diff(x.astype(float), axis=1)).max() for x in spoilt)
    assert softest < 0.7 * edges  # blur


def test_each_picture_is_degraded_in_its_own_way_and_always_so():
    encoded = []
    for seed in range(4):
        file = io.BytesIO()
        Image.fromarray(photograph(seed, 40)).save(file, "PNG")
        encoded.append(file.getvalue())
    names = ["a", "b", "c", "d"]
    pairs = Collection(
        "four", names, encoded, np.eye(4), names, np.eye(4), names, names
    )

    def pixels(positions):
        found = degraded_pictures(pairs, np.array(positions), 24)
        assert list(found.ids) == [names[i] for i in positions]
        return [np.asarray(Image.open(io.BytesIO(x))) for x in found.images]

    both = pixels([3, 1])
    assert both[0].shape == (24, 24, 3)
    np.testing.assert_array_equal(both[1], pixels([1])[0])
    assert (both[0] != both[1]).any()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("maps")


def test_maps_of_degraded_pictures_are_what_the_backbone_gives_of_them(cache):
    experiment = experiment_of("concat", cache, degraded=0.5)
    maps = degraded_maps(experiment)
    train = experiment.split.train
    spoilt = degraded_pictures(experiment.collection, train, SIZE).images
    image = experiment.normalize(np.asarray(Image.open(io.BytesIO(spoilt[5])))[None])

    @nnx.jit
    def last_maps(backbone, image):
        return backbone.upper(backbone.lower(image, train=False), train=False)

    last = last_maps(experiment.model.backbone, image)
    expected = np.asarray(last).mean((1, 2))[0]
    assert maps.shape == (len(train), 2, 1, 1, len(expected))
    size = np.abs(expected).max()
    np.testing.assert_allclose(maps[5, 0, 0, 0], expected, atol=0.01 * size)
    plain = lower_maps(experiment)[train[5], 0, 0, 0]
    assert np.abs(plain - expected).max() > 0.05 * size


def test_a_run_trains_on_degraded_maps(cache, tmp_path):
    """The loss is another one; a network without pictures has none to degrade."""

    def loss(degraded):
        options = {"degraded": degraded, "num_epochs": 1}
        experiment = experiment_of("concat", cache, **options)
        return fit_run(experiment, tmp_path / str(degraded))[2][0]["loss"]

    assert loss(0.0) != loss(1.0)
    assert len(list(cache.glob("*-degraded-*.npy"))) == 2  # maps, means
    assert degraded_maps(experiment_of("concat", tmp_path)) is None
    solved = experiment_of("concat", tmp_path / "none", degraded=0.5)
    solved = dataclasses.replace(solved, solve=lambda model, maps: None)
    assert degraded_maps(solved) is None and not (tmp_path / "none").exists()
    assert degraded_maps(experiment_of("text", tmp_path, degraded=0.5)) is None


def test_a_run_reads_degraded_images_where_it_keeps_no_maps(tmp_path, monkeypatch):
    """test_pipeline tests what batches hold then."""
    asked = []

    def batches(*args, degraded, **options):
        asked.append(degraded)
        raise InterruptedError

    monkeypatch.setattr(pipeline, "train_batches", batches)
    config = tiny_config("image")
    with config.unlocked():
        config.data.options.num_pairs, config.data.num_queries = 48, 8
        config.data.num_train, config.data.num_validation = 24, 4
        config.training.batch_size, config.training.degraded = 8, 0.25
    with pytest.raises(InterruptedError):
        fit_run(build.experiment(config), tmp_path)
    assert asked == [0.25]


def test_a_config_without_degraded_pictures_is_one_from_before_there_were_any():
    config = tiny_config("concat")
    before = build.settled(config)
    with config.unlocked():
        config.training.degraded = 0.0
    assert build.settled(config) == before
    config.training.degraded = 0.25
    assert build.settled(config)["training"]["degraded"] == 0.25
