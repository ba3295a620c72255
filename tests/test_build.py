"""Small pieces between config and experiment, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modal_aware_jax import build
from modal_aware_jax.data.protocol import split
from modal_aware_jax.tasks.hashing import validation_database


def test_words_are_dropped_at_the_rate_and_never_added():
    text = jnp.asarray(np.random.default_rng(0).integers(0, 2, (200, 300)), jnp.float32)
    kept = build.drop_words(jax.random.key(0), text, 0.3)
    assert not np.any(kept[text == 0])
    assert abs(float(kept.sum() / text.sum()) - 0.7) < 0.01
    np.testing.assert_array_equal(build.drop_words(jax.random.key(0), text, 0.0), text)


def test_a_crop_of_maps_is_a_window_and_every_window_comes_up():
    maps = jnp.arange(4 * 5).reshape(1, 4, 5, 1) * jnp.ones((2, 1, 1, 3))
    corners = set()
    for seed in range(60):
        crop = build.crop_maps(jax.random.key(seed), maps, 3)
        assert crop.shape == (2, 3, 3, 3)
        top, left = divmod(int(crop[0, 0, 0, 0]), 5)
        np.testing.assert_array_equal(crop, maps[:, top : top + 3, left : left + 3])
        corners.add((top, left))
    assert corners == {(top, left) for top in (0, 1) for left in (0, 1, 2)}
    with pytest.raises(ValueError, match="map_crop is 6, but the cached maps are 4x5"):
        build.crop_maps(jax.random.key(0), maps, 6)


def test_pixels_are_normalised_as_the_weights_expect():
    to_unit = build.normalizer((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    pixels = np.array([[[[0, 255, 51]]]], np.uint8)
    np.testing.assert_allclose(to_unit(pixels), [[[[-1, 1, -0.6]]]], rtol=1e-5)


def test_weights_are_found_beside_and_above_the_data(tmp_path):
    data = tmp_path / "shared" / "data" / "pack"
    weights = tmp_path / "shared" / "weights"
    data.mkdir(parents=True)
    weights.mkdir()
    with pytest.raises(ValueError, match="w.bin were not found.*backbone.weights=FILE"):
        build.find_weights("w.bin", str(data))
    (weights / "w.bin").write_bytes(b"above")
    assert build.find_weights("w.bin", str(data)) == weights / "w.bin"
    (data / "w.bin").write_bytes(b"beside")
    assert build.find_weights("w.bin", str(data)) == data / "w.bin"
    assert build.find_weights("hf-hub:a/b", str(data)) == "hf-hub:a/b"


def test_validation_searches_the_database_without_its_queries():
    parts = split(100, num_queries=10, num_train=50, num_validation=8, seed=0)
    whole = validation_database(parts, "database")
    assert set(whole) == set(parts.database) - set(parts.validation)
    unseen = validation_database(parts)
    assert set(unseen) == set(whole) - set(parts.train) and len(unseen) == 32
    some = validation_database(parts, size=20)
    assert len(some) == 20 and set(some) < set(unseen)
    all_trained = split(100, num_queries=10, num_train=82, num_validation=8, seed=0)
    assert len(validation_database(all_trained)) == 82  # nothing is unseen
    with pytest.raises(ValueError, match="validation_search 'unsen'.*Did you mean"):
        validation_database(parts, "unsen")
    np.testing.assert_array_equal(some, np.sort(some))


def test_every_method_names_a_loss_and_unknown_names_have_a_neighbour():
    assert {method.loss for method in build.METHODS.values()} <= set(build.LOSSES)
    titles = [method.title for method in build.METHODS.values()]
    assert len(set(titles)) == len(titles)
    with pytest.raises(ValueError, match="Unknown loss 'tripplet'.*Known: a, triplet"):
        build.choose("loss", {"a": 1, "triplet": 2}, "tripplet")
