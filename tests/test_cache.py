import dataclasses
import io
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.degraded import degraded_pictures
from modal_aware_jax.training.cache import cached_file, fingerprint, frozen_maps
from modal_aware_jax.training.errors import Interrupted, WorkdirError
from modal_aware_jax.training.teacher import teacher_vectors
from modal_aware_jax.training.workdir import lock_workdir

WEIGHTS = {"scale": np.float32(0.5)}


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (21, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def pairs(pixels):
    ids = [f"im{i}" for i in range(21)]
    one = np.ones((21, 1), np.uint8)
    return Collection("tiny", ids, [png(p) for p in pixels], one, ids, one, "w", "l")


class Lower:
    """Halved pixels of every second row and column; counts and can be stopped."""

    def __init__(self, stop_after=None):
        self.images, self.stop_after = 0, stop_after
        self.maps = jax.jit(lambda x: x[:, ::2, ::2].astype(jnp.float32) * 0.5)

    def __call__(self, images):
        if isinstance(images, np.ndarray):
            self.images += len(images)
            if self.stop_after is not None and self.images > self.stop_after:
                self.stop_after = None
                os.kill(os.getpid(), signal.SIGTERM)
        return self.maps(images)


def maps_of(pixels):
    """By hand: one image at a time, the mirror image from the flipped pixels."""
    rows = []
    for image in pixels:
        flipped = np.stack([row[::-1] for row in image])
        rows.append([image[::2, ::2] / 2, flipped[::2, ::2] / 2])
    return np.array(rows, np.float16)


def make(pairs, lower, path, **options):
    options = {"image_size": 8, "batch_size": 4, **options}
    return frozen_maps(pairs, lower, WEIGHTS, path=path, **options)


def test_plain_and_flipped_maps_then_from_disk(pairs, pixels, tmp_path, capsys):
    lower = Lower()
    maps = make(pairs, lower, tmp_path / "maps")
    assert maps.dtype == np.float16 and maps.shape == (21, 2, 4, 4, 3)
    np.testing.assert_array_equal(maps, maps_of(pixels))
    assert "frozen maps 21/21" in capsys.readouterr().out
    again = make(pairs, None, tmp_path / "maps")  # computes nothing
    assert isinstance(again, np.memmap) and not again.flags.writeable
    np.testing.assert_array_equal(again, maps)
    assert lower.images == 2 * 24


def test_an_interrupted_computation_goes_on(pairs, pixels, tmp_path):
    with pytest.raises(Interrupted, match="SIGTERM with the maps of .* of 21") as stop:
        make(pairs, Lower(stop_after=20), tmp_path)
    assert stop.value.exit_code == 143
    (partial,) = tmp_path.glob("*.partial")
    with open(partial, "ab") as file:
        file.write(b"half a row")
    lower = Lower()
    np.testing.assert_array_equal(make(pairs, lower, tmp_path), maps_of(pixels))
    assert lower.images < 2 * 24
    assert not list(tmp_path.glob("*.partial"))


def test_a_torn_header_starts_afresh(pairs, pixels, tmp_path):
    digest = fingerprint(WEIGHTS, pairs, 8)
    (tmp_path / f"maps-tiny-8-{digest}.partial").write_bytes(b"\x93NUM")
    np.testing.assert_array_equal(make(pairs, Lower(), tmp_path), maps_of(pixels))


def test_the_fingerprint_tells_weights_size_and_collection(pairs, pixels):
    others = [png(p) for p in pixels[::-1]]
    one = np.ones((21, 1), np.uint8)
    other = Collection("tiny", pairs.ids, others, one, pairs.ids, one, "w", "l")
    prints = {
        fingerprint(WEIGHTS, pairs, 8),
        fingerprint(WEIGHTS, pairs, 16),
        fingerprint({"scale": np.float32(0.25)}, pairs, 8),
        fingerprint({"other": np.float32(0.5)}, pairs, 8),
        fingerprint(WEIGHTS, other, 8),
    }
    assert len(prints) == 5
    assert fingerprint({"scale": jnp.float32(0.5)}, pairs, 8) in prints


class Prepared(list):
    """Pictures of a preparation; those of position 1 are not in the fingerprint."""

    times_read = 0

    def __iter__(self):
        self.times_read += 1
        return super().__iter__()

    def __init__(self, images, preparation):
        super().__init__(images)
        self.preparation = preparation


def test_a_replaced_picture_has_maps_of_its_own(pixels, tmp_path):
    def maps(preparation, at_1=0):
        images = [png(pixels[i % 21]) for i in range(80)]
        images[1] = png(pixels[at_1])
        ids = [f"im{i}" for i in range(80)]
        one = np.ones((80, 1), np.uint8)
        pairs = Collection(
            "many", ids, Prepared(images, preparation), one, ids, one, "w", "l"
        )
        lower = Lower()
        found = make(pairs, lower, tmp_path, batch_size=40)
        np.testing.assert_array_equal(found[1], maps_of(pixels[[at_1]])[0])
        return lower.images

    assert maps("first") == 160
    assert maps("first") == maps("other options") == 0  # the same pictures
    assert maps("replaced", at_1=7) == 160
    assert maps("replaced", at_1=7) == maps("first") == 0
    (facts,) = tmp_path.glob("maps*.json")
    facts.unlink()  # as from before they were kept
    assert maps("third") == 0 and facts.exists()


def test_pictures_are_read_once_for_all_files_of_a_preparation(pairs, tmp_path):
    images = Prepared(pairs.images, "first")
    prepared = dataclasses.replace(pairs, images=images)
    degraded = degraded_pictures(prepared, np.arange(3), 8)
    for size in (8, 16):
        for collection in (prepared, degraded):
            for _ in range(2):
                cached_file("maps", WEIGHTS, collection, path=tmp_path, image_size=size)
    assert images.times_read == 1
    assert len(list(tmp_path.glob("maps-*.json"))) == 4


class Brightness:
    """Stands for a teacher: an image's mean from 0 to 1, nothing of texts."""

    digest, image_size = "brightness", 8

    def images(self, batches):
        return (batch.mean(axis=(1, 2, 3))[:, None] / 255 for batch in batches)

    def texts(self, lines, *, progress):
        return np.zeros((len(lines), 1))


def test_a_teacher_is_shown_a_replaced_picture(tmp_path):
    def seen(preparation, level):
        images = [png(np.zeros((8, 8, 3), np.uint8))] * 40
        images[4] = png(np.full((8, 8, 3), level, np.uint8))  # none of the 32 in a name
        ids, one = [f"im{i}" for i in range(40)], np.ones((40, 1), np.uint8)
        pairs = Collection(
            "dark", ids, Prepared(images, preparation), one, ids, one, "w", "l"
        )
        return teacher_vectors(Brightness(), pairs, tmp_path)[0][4, 0]

    assert [seen("first", 0), seen("replaced", 255), seen("first", 0)] == [0, 1, 0]


def test_maps_beyond_float16_are_refused(pairs, tmp_path):
    with pytest.raises(ValueError, match="frozen_maps: lower_fn gave maps beyond"):
        make(pairs, jax.jit(lambda x: x.astype(jnp.float32) * 1e6), tmp_path)


def test_an_unwritable_folder_is_one_message(pairs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot be written: Not a directory"):
        make(pairs, Lower(), tmp_path / "file" / "maps")
    with lock_workdir(tmp_path):
        pass
