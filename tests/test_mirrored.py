"""What is encoded of a picture as it is and of its mirror image, averaged."""

import numpy as np
import pytest
from PIL import ImageOps
from test_frozen_means import SIZE, experiment_of

from modal_aware_jax.compare.perturbed import Reader
from modal_aware_jax.data import pipeline
from modal_aware_jax.hashing.codes import binarize, pack
from modal_aware_jax.modes import search
from modal_aware_jax.modes.encoder import Encoder, lower_maps, variables_of
from modal_aware_jax.modes.reading import other_reading

ROWS = np.arange(6)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("maps")


def pictures(experiment, *, mirrored):
    """Images [6, S, S, 3], mirrored by Pillow where wanted."""
    found = []
    for row in ROWS:
        picture = pipeline.decode(experiment.collection.images[row])
        picture = picture.resize((SIZE, SIZE), resample=2)  # bilinear
        found.append(np.asarray(ImageOps.mirror(picture) if mirrored else picture))
    return np.stack(found)


@pytest.fixture(scope="module", params=["modal_aware", "concat"])
def truth(request, cache):
    """A method, and the mean of two readings by a network that knows of one."""
    plain = experiment_of(request.param, cache, cached_maps=False)
    text = plain.collection.text[ROWS].astype(np.float32)
    readings = [
        np.asarray(
            plain.output(
                plain.model,
                {"image": pictures(plain, mirrored=mirrored), "text": text},
            )
        )
        for mirrored in (False, True)
    ]
    assert np.abs(readings[0] - readings[1]).max() > 0.02 * np.abs(readings[0]).max()
    return request.param, np.mean(readings, axis=0)


@pytest.mark.parametrize("cached_maps", [False, True])
def test_both_readings_are_averaged_with_and_without_a_cache(truth, cached_maps, cache):
    method, expected = truth
    ours = experiment_of(method, cache, mirrored=True, cached_maps=cached_maps)
    encoder = Encoder(ours, lower_maps(ours))
    found = encoder.outputs(variables_of(ours.model), ROWS)
    # What a cache leaves is the float16 of its maps.
    atol = (5e-3 if cached_maps else 1e-5) * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=atol)


def test_the_codes_of_perturbed_pictures_are_of_both_readings_too(truth, cache):
    method, expected = truth
    ours = experiment_of(method, cache, mirrored=True, cached_means=False)
    reader = Reader(ours)
    images = reader.lower(pictures(ours, mirrored=False))
    codes = reader.codes(images, ours.collection.text[ROWS].astype(np.float32))
    sure = np.abs(expected) > 0.01 * np.abs(expected).max()
    bits = unpacked(codes, ours.num_bits)
    assert sure.mean() > 0.9
    assert (bits == np.asarray(binarize(expected)))[sure].all()


def test_an_index_of_the_other_reading_is_a_file_of_its_own(cache):
    def which(method, *, now, before):
        experiment = experiment_of(method, cache, mirrored=now)
        data = {} if before is None else {"mirrored": before}
        return other_reading(experiment, {"config": {"data": data}})

    assert which("concat", now=True, before=True) == ""
    assert which("concat", now=False, before=None) == ""  # of before there were any
    assert which("concat", now=True, before=None) == "-mirrored"
    assert which("concat", now=False, before=True) == "-plain"
    assert which("text", now=False, before=True) == ""


def test_a_search_after_a_change_of_the_reading_makes_its_own_index(
    cache, tmp_path, monkeypatch
):
    record, names = {"step": 3, "config": {"data": {"mirrored": True}}}, []
    steps = []

    def opened(pairs, path, encode_pairs, weights):
        names.append(path.name)
        raise InterruptedError

    monkeypatch.setattr(search, "load_run", lambda *run: steps.append(run[2]) or record)
    monkeypatch.setattr(search, "open_index", opened)
    for mirrored in (True, False):
        now = experiment_of("concat", cache, mirrored=mirrored)
        with pytest.raises(InterruptedError):
            search.search_run(now, tmp_path, words="sea", step="best")
    assert names == ["collection-3.index", "collection-3-plain.index"]
    assert steps == ["best", "best"]


def unpacked(codes, num_bits):
    """Words of 32 bits, the least first, to -1 and 1."""
    places = np.arange(num_bits)
    bits = codes[:, places // 32] >> (places % 32).astype(np.uint32) & 1
    return bits.astype(int) * 2 - 1


def test_the_hand_made_unpacking_is_that_of_the_package():
    signs = np.where(np.random.default_rng(0).normal(size=(3, 40)) > 0, 1, -1)
    assert (unpacked(np.asarray(pack(signs)), 40) == signs).all()


def test_text_alone_has_no_mirror_image(cache):
    ours = experiment_of("text", cache, mirrored=True)
    assert not ours.mirrored
    plain = experiment_of("text", cache)
    found, expected = (
        Encoder(e, lower_maps(e)).outputs(variables_of(e.model), ROWS)
        for e in (ours, plain)
    )
    np.testing.assert_array_equal(found, expected)
