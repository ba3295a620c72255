"""An image and what is stored of it, decoded once where that is the same."""

import io

import numpy as np
import pytest
from PIL import Image

from modal_aware_jax.data.pipeline import decode
from modal_aware_jax.data.stored_image import to_stored, to_stored_and_image

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
