"""From a user's image file to the upright RGB image that is stored."""

import io
import threading
import warnings

import numpy as np
from PIL import Image, ImageOps

MIN_SIDE = 8
JPEG_QUALITY = 92
_TURNED = range(2, 9)  # EXIF knows no other but 1, upright


class ImageProblem(ValueError):
    """An image that cannot be used; `kind` is a kind of `problems.ADVICE`."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def grey_image() -> bytes:
    """A small grey PNG, for display in place of an image that is not there.

    >>> Image.open(io.BytesIO(grey_image())).size
    (32, 32)
    """
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (128, 128, 128)).save(buffer, "PNG")
    return buffer.getvalue()


def to_stored(
    encoded: bytes, size: int | None, *, most_pixels: int | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """Checks an image by decoding all of it, and makes it upright, RGB and small.

    A JPEG or PNG that is so already keeps its bytes; any other is stored as JPEG of
    quality 92. Grey is repeated over the channels, 16-bit grey is scaled to 8 bits,
    grey of fractions is of 0 to 1 or of 0 to 255, CMYK is converted without its colour
    profile, what is transparent is laid on white, and the first frame of an animation
    is taken.

    Args:
      encoded: the bytes of an image file of any format that PIL reads.
      size: the shorter side is reduced to this; None keeps all sizes.
      most_pixels: more are refused before they are decoded; None: PIL's own limit.

    Returns:
      The bytes to store, and what was done to the image, in words.

    Raises:
      ImageProblem: it cannot be decoded, or is smaller than 8 pixels on a side.
    """
    return _checked(encoded, size, most_pixels)[:2]


def to_stored_and_image(
    encoded: bytes, size: int | None, *, most_pixels: int | None = None
) -> tuple[bytes, Image.Image]:
    """`to_stored`, and what its bytes decode to, RGB; most are decoded only once."""
    stored, _, image = _checked(encoded, size, most_pixels)
    if image is None:
        image = Image.open(io.BytesIO(stored)).convert("RGB")
    return stored, image


def _checked(encoded, size, most_pixels):
    try:
        with QUIET:
            return _to_stored(encoded, size, most_pixels)
    except ImageProblem:
        raise
    except Image.UnidentifiedImageError:
        what = "is empty" if not encoded else "is no image that PIL can read"
        raise ImageProblem("unreadable image", f"the file {what}") from None
    except Exception as error:  # PIL's decoders raise nearly anything
        raise ImageProblem("unreadable image", f"cannot be decoded: {error}") from error


def _to_stored(encoded, size, most_pixels):
    """The bytes, what was done, and the image where they are those that came."""
    image, damaged = _open(encoded)
    width, height = image.size
    limit = most_pixels or Image.MAX_IMAGE_PIXELS
    if limit and width * height > limit:
        raise ImageProblem(
            "unreadable image",
            f"its {width}x{height} pixels exceed the limit of {limit:,}: it may be "
            "made to fill the memory",
        )
    if min(width, height) < MIN_SIDE:
        raise ImageProblem(
            "tiny image",
            f"the image has {width}x{height} pixels, "
            f"at least {MIN_SIDE}x{MIN_SIDE} are needed",
        )
    if size and image.format == "JPEG":
        image.draft(None, (2 * size, 2 * size))  # decodes huge ones at a part of it
    image.load()
    orientation, also_damaged = _orientation(image)
    done = ["rid of a damaged EXIF block"] if damaged or also_damaged else []
    if orientation in _TURNED:
        image = ImageOps.exif_transpose(image)
        done.append("turned upright")
    if image.mode != "RGB":
        done.append(f"converted from {image.mode} to RGB")
        image = _to_rgb(image)
    scale = size / min(image.size) if size else 1
    if min(width, height) > min(image.size) or scale < 1:  # draft mode reduces too
        done.append("reduced")
    if not done and image.format in ("JPEG", "PNG"):
        return encoded, (), image
    if scale < 1:
        shape = tuple(max(1, round(side * scale)) for side in image.size)
        image = image.resize(shape, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue(), tuple(done), None


def _open(encoded):
    """The image, and whether its EXIF block is damaged.

    PIL tells of a damaged block by a warning, of a JPEG's at every opening.
    """
    with _FILTERS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        Image.init()
        # An EPS file is a program, which PIL hands to Ghostscript.
        kinds = [kind for kind in Image.ID if kind != "EPS"]
        image = Image.open(io.BytesIO(encoded), formats=kinds)
    return image, _tell_of_exif(caught)


def _orientation(image):
    """The EXIF orientation of an image, and whether its EXIF block is damaged.

    Of a loaded image: PIL decodes a PNG to look for its block, and after an error
    gives the half that it decoded as if it were whole.
    """
    with _FILTERS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            orientation = image.getexif().get(0x0112)
        except Exception:  # a block that PIL cannot make anything of
            return None, True
    return orientation, _tell_of_exif(caught)


def _tell_of_exif(caught):
    return any("EXIF" in str(warning.message) for warning in caught)


class _Quiet:
    """Leaves PIL's warnings aside while any thread is inside.

    `warnings.catch_warnings` alone is not for threads: the filters are the process's.
    """

    def __init__(self):
        self._inside, self._context = 0, None

    def __enter__(self):
        with _FILTERS:
            if not self._inside:
                self._context = warnings.catch_warnings()
                self._context.__enter__()
                warnings.simplefilter("ignore", UserWarning)
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            self._inside += 1

    def __exit__(self, *error):
        with _FILTERS:
            self._inside -= 1
            if not self._inside:
                self._context.__exit__(*error)


_FILTERS = threading.Lock()
QUIET = _Quiet()


def _grey(values):
    """Whole numbers up to 65,535, or fractions, as uint8; others are no grey."""
    whole = values.dtype.kind in "iu"
    low, high = values.min(), values.max()  # NaN where there is one
    if not (0 <= low and high <= (65535 if whole else 255)):
        raise ImageProblem(
            "unreadable image",
            f"its values go from {low} to {high}: grey is of 0 to 255, 0 to 1 or, "
            "in whole numbers, 0 to 65535",
        )
    if whole:
        return (values >> (8 if high > 255 else 0)).astype(np.uint8)
    return np.round(values * (255 if high <= 1 else 1)).astype(np.uint8)


def _to_rgb(image):
    if image.mode.startswith(("I", "F")):  # PIL would clip them to 8 bits
        return Image.fromarray(_grey(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
