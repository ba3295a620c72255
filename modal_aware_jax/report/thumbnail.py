"""Small RGB pictures of whatever image a report is given."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError


def thumbnail(image, side: int) -> Image.Image:
    """An image as RGB, `side` pixels along its longer side.

    Args:
        image: encoded bytes, or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4],
          uint8, or float in 0..1. Bytes that are no image give a crossed-out square, so
          that one bad file does not cost the report.
        side: in pixels.

    >>> thumbnail(np.zeros((20, 10), np.uint8), 40).size
    (20, 40)
    """
    if isinstance(image, bytes | bytearray | memoryview):
        try:
            picture = ImageOps.exif_transpose(Image.open(io.BytesIO(image)))
            picture = picture.convert("RGB")
        except (OSError, SyntaxError, UnidentifiedImageError):
            return _unreadable(side)
    else:
        picture = Image.fromarray(_pixels(image)).convert("RGB")
    scale = side / max(picture.size)
    size = tuple(max(1, round(length * scale)) for length in picture.size)
    how = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return picture.resize(size, how)


def _pixels(image):
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or array.ndim == 3 and array.shape[-1] in (3, 4)):
        raise ValueError(
            "thumbnail: expected encoded bytes or an array [H, W], [H, W, 1], "
            f"[H, W, 3] or [H, W, 4], got an array of shape {array.shape}."
        )
    if not array.size:
        raise ValueError(f"thumbnail: the image is empty, shape {array.shape}.")
    if np.issubdtype(array.dtype, np.floating):
        array = np.nan_to_num(array).clip(0, 1) * 255
    return np.ascontiguousarray(array.clip(0, 255).astype(np.uint8))


def _unreadable(side):
    picture = Image.new("RGB", (side, side), (225, 225, 225))
    pen = ImageDraw.Draw(picture)
    pen.line((0, 0, side, side), fill=(150, 150, 150), width=2)
    pen.line((0, side, side, 0), fill=(150, 150, 150), width=2)
    return picture
