"""Doses of perturbation against statistics, SciPy, a JPEG decoder and hand counts."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from modal_aware_jax.data import perturbations as by

WORDS = [f"w{i}" for i in range(20)]


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def picture():
    smooth = ndimage.gaussian_filter(rng().normal(size=(96, 64, 3)), (1, 1, 0))
    return np.interp(smooth, (smooth.min(), smooth.max()), (60, 200)).astype(np.uint8)


@pytest.mark.parametrize("deviation", [5, 20])
def test_noise_has_the_stated_deviation_and_no_shift(deviation):
    flat = np.full((200, 200, 3), 128, np.uint8)
    change = by.add_noise(flat, deviation, rng()).astype(float) - 128
    assert change.std() == pytest.approx(np.hypot(deviation, 12**-0.5), rel=0.01)
    assert abs(change.mean()) < 4 * deviation / 200 / 3**0.5
    rows = change.reshape(200, -1)
    assert abs(np.corrcoef(rows[:-1].ravel(), rows[1:].ravel())[0, 1]) < 0.02


def test_noise_stays_in_range_and_none_changes_nothing(picture):
    white = np.full((50, 50, 3), 255, np.uint8)
    noisy = by.add_noise(white, 300, rng())
    assert 0.3 < (noisy == 255).mean() < 0.7 and (noisy == 0).any()
    np.testing.assert_array_equal(by.add_noise(picture, 0, rng()), picture)


@pytest.mark.parametrize("radius", [1.5, 4.0])
def test_blur_is_a_gaussian_of_this_deviation(radius):
    """PIL's three box blurs against SciPy's true kernel, on a white dot."""
    dot = np.zeros((81, 81, 3), np.uint8)
    dot[38:43, 38:43] = 255
    ours = by.blur(dot, radius)[..., 0].astype(float)
    theirs = ndimage.gaussian_filter(dot[..., 0].astype(float), radius)
    # PIL rounds to whole grey levels after each of six passes.
    assert abs(ours - theirs).max() < 0.06 * theirs.max() + 2
    across = ours.sum(axis=0)
    centre = np.arange(81) - 40
    spread = (across * centre**2).sum() / across.sum() - 2.0  # less the dot's own
    assert spread == pytest.approx(radius**2, rel=0.12)


def test_jpeg_is_what_a_file_of_that_quality_holds(picture):
    errors = []
    for quality in (90, 40, 10):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        left = by.compress(picture, quality)
        np.testing.assert_array_equal(left, np.asarray(Image.open(file)))
        errors.append(np.abs(left.astype(int) - picture).mean())
    assert errors == sorted(errors) and errors[0] < errors[2]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.25, 1.0])
def test_occlusion_covers_the_stated_share_with_one_box(picture, share):
    marked = np.where(picture == by.GREY, 0, picture)
    covered = (by.occlude(marked, share, rng(1)) == by.GREY).all(axis=-1)
    assert covered.mean() == pytest.approx(share, abs=0.015)
    assert ndimage.label(covered)[1] == (share > 0)
    if share:
        box = ndimage.find_objects(covered.astype(int))[0]
        assert covered[box].all()


def test_occlusion_comes_anywhere():
    image = np.zeros((16, 16, 3), np.uint8)
    hits = sum((by.occlude(image, 0.25, rng(i)) > 0).any(-1) for i in range(300))
    assert (hits > 0).all()


def test_words_are_dropped_and_replaced_at_the_rate():
    counts = [len(by.drop_words(WORDS, 0.3, rng(i))) for i in range(400)]
    # Binomial: 20 words, 14 kept on average, with a deviation of 2.05.
    assert np.mean(counts) == pytest.approx(14, abs=4 * 2.05 / 20)
    assert np.std(counts) == pytest.approx(2.05, rel=0.15)
    for i in range(50):
        kept = by.drop_words(WORDS, 0.5, rng(i))
        assert kept == [word for word in WORDS if word in kept]  # in their order
        swapped = by.replace_words(WORDS, 0.5, ["a", "b"], rng(i))
        assert len(swapped) == 20
        assert all(n in (o, "a", "b") for n, o in zip(swapped, WORDS, strict=True))
    drawn = by.replace_words(["x"] * 4000, 0.5, ["a", "a", "a", "b"], rng())
    shares = [drawn.count(word) / 4000 for word in "xab"]
    np.testing.assert_allclose(shares, [0.5, 0.375, 0.125], atol=0.03)
    lost = [by.empty(WORDS, 0.25, rng(i)) for i in range(2000)]
    assert all(words in ([], WORDS) for words in lost)
    assert sum(not words for words in lost) / 2000 == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("name", by.LEVELS)
def test_every_row_is_seeded_by_pair_and_grows_with_its_level(picture, name):
    row = by.LEVELS[name]

    def damage(dose, seed, position):
        if row.modality == "image":
            out = by.perturb_image(picture, name, dose, seed=seed, position=position)
            assert out.shape == picture.shape and out.dtype == np.uint8
            return np.abs(out.astype(int) - picture).mean(), out.tobytes()
        out = by.perturb_words(
            WORDS, name, dose, ["a", "b"], seed=seed, position=position
        )
        return len(set(WORDS) - set(out)), tuple(out)

    doses = [np.mean([damage(d, 0, i)[0] for i in range(40)]) for d in row.doses]
    assert 0 < doses[0] < doses[1] < doses[2]
    middle = row.doses[1]
    assert damage(middle, 3, 5) == damage(middle, 3, 5)
    if name not in ("blur", "jpeg"):  # these have no chance in them
        assert len({damage(middle, 0, i)[1] for i in range(20)}) > 1
        assert len({damage(middle, s, 0)[1] for s in range(20)}) > 1


def test_unknown_rows_are_named(picture):
    with pytest.raises(ValueError, match="no perturbation 'drop' of the image; take"):
        by.perturb_image(picture, "drop", 1, seed=0, position=0)
    with pytest.raises(ValueError, match="no perturbation 'jpg' of the text; take"):
        by.perturb_words([], "jpg", 1, [], seed=0, position=0)
