"""An image and what is stored of it, decoded once where that is the same."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from modal_aware_jax.data.pipeline import decode
from modal_aware_jax.data.stored_image import (
    ImageProblem,
    to_stored,
    to_stored_and_image,
)

TURNED = Image.Exif()
TURNED[0x0112] = 6


def encoded(kind, mode="RGB", size=(60, 44), **options):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (11, 15, 3), np.uint8))
    buffer = io.BytesIO()
    image = small.resize(size, Image.Resampling.BICUBIC).convert(mode)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("stored_size", [None, 20, 44, 256])
@pytest.mark.parametrize(
    "kind, mode, options",
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "L", {}),
        ("PNG", "RGB", {}),
        ("PNG", "RGB", {"transparency": (1, 2, 3)}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("JPEG", "RGB", {"exif": TURNED}),
    ],
)
def test_the_image_is_what_its_stored_bytes_decode_to(kind, mode, options, stored_size):
    content = encoded(kind, mode, **options)
    stored, image = to_stored_and_image(content, stored_size)
    assert stored == to_stored(content, stored_size)[0]
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(decode(stored)))


def test_what_is_kept_as_it_came_is_decoded_once(monkeypatch):
    opened, open_image = [], Image.open
    monkeypatch.setattr(
        Image, "open", lambda *a, **k: opened.append(1) or open_image(*a, **k)
    )
    to_stored_and_image(encoded("JPEG"), 256)
    assert len(opened) == 1


def test_a_png_that_is_damaged_in_its_middle_is_refused_as_pil_refuses_it():
    content = bytearray(encoded("PNG", size=(200, 200)))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(Exception) as pils:
        Image.open(io.BytesIO(content)).load()
    with pytest.raises(ImageProblem, match="cannot be decoded") as ours:
        to_stored(bytes(content), None)
    assert str(pils.value) in str(ours.value)


def test_a_png_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    content = encoded("PNG", size=(200, 100))
    decoded, load = [], PngImageFile.load_prepare
    monkeypatch.setattr(
        PngImageFile, "load_prepare", lambda self: decoded.append(1) or load(self)
    )
    with pytest.raises(ImageProblem, match="200x100 pixels exceed the limit"):
        to_stored(content, None, most_pixels=19_999)
    assert not decoded
    to_stored(content, None, most_pixels=20_000)
    assert decoded


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_turned_image_is_stored_upright(kind):
    stored, _ = to_stored(encoded(kind, exif=TURNED), None)
    assert Image.open(io.BytesIO(stored)).size == (44, 60)
