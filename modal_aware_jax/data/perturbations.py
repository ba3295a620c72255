"""What goes wrong with photographs and tags, in stated doses.

Each function is pure: the same input, dose and random generator give the same output.
Images are uint8 [H, W, 3], texts are lists of words. `LEVELS` is the table of doses;
`perturb_image` and `perturb_words` apply one of them to one pair of a collection, the
same for every method and in any order. `degrade` draws one for a training picture.
"""

import io
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

GREY = 128


def add_noise(image: np.ndarray, deviation: float, rng: np.random.Generator):
    """Adds Gaussian noise of this standard deviation in grey levels of 0..255."""
    noisy = image + rng.normal(0.0, deviation, image.shape)
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


def blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur; the radius, in pixels, is the standard deviation."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def compress(image: np.ndarray, quality: int) -> np.ndarray:
    """What is left after JPEG of this quality, 1 to 95, colours at half resolution."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))


def occlude(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Covers this share of the area, 0 to 1, with one grey box of the image's shape.

    The box lies anywhere inside with equal probability.
    """
    height, width = image.shape[:2]
    rows, columns = round(height * share**0.5), round(width * share**0.5)
    top = rng.integers(0, height - rows + 1)
    left = rng.integers(0, width - columns + 1)
    covered = image.copy()
    covered[top : top + rows, left : left + columns] = GREY
    return covered


def drop_words(
    words: Sequence[str], rate: float, rng: np.random.Generator
) -> list[str]:
    """Leaves out each word with this probability.

    >>> drop_words(["sea", "sky"], 1.0, np.random.default_rng(0))
    []
    """
    kept = rng.random(len(words)) >= rate
    return [word for word, keep in zip(words, kept, strict=True) if keep]


def replace_words(
    words: Sequence[str],
    rate: float,
    others: Sequence[str],
    rng: np.random.Generator,
) -> list[str]:
    """Puts another word in the place of each with this probability.

    Args:
      words: of the text.
      rate: the probability.
      others: where words are drawn from, each entry with the same probability: give
        the words of many texts, repeats included, for words as frequent as in these.
      rng: the random generator.

    >>> replace_words(["sea", "sky"], 1.0, ["dog"], np.random.default_rng(0))
    ['dog', 'dog']
    """
    chosen = rng.random(len(words)) < rate
    drawn = rng.integers(0, len(others), len(words))
    return [
        others[other] if new else word
        for word, new, other in zip(words, chosen, drawn, strict=True)
    ]


def empty(words: Sequence[str], rate: float, rng: np.random.Generator) -> list[str]:
    """Loses the whole text with this probability.

    >>> empty(["sea", "sky"], 1.0, np.random.default_rng(0))
    []
    """
    return [] if rng.random() < rate else list(words)


class Perturbation(NamedTuple):
    """A row of the table of doses.

    Attributes:
      modality: 'image' or 'text'.
      unit: what the doses are.
      doses: mild, medium, strong.
    """

    modality: str
    unit: str
    doses: tuple[float, float, float]


LEVELS = {
    "noise": Perturbation(
        "image", "standard deviation in grey levels of 255", (10, 20, 40)
    ),
    "blur": Perturbation(
        "image", "standard deviation in % of the image's side", (0.5, 1, 2)
    ),
    "jpeg": Perturbation("image", "JPEG quality", (40, 20, 10)),
    "occlusion": Perturbation("image", "% of the area under a grey box", (5, 10, 25)),
    "drop": Perturbation("text", "% of the words dropped", (10, 25, 50)),
    "replace": Perturbation("text", "% of the words replaced by others", (10, 25, 50)),
    "empty": Perturbation("text", "% of the texts emptied", (10, 25, 50)),
}


def perturb_image(
    image: np.ndarray, name: str, dose: float, *, seed: int, position: int
) -> np.ndarray:
    """One of the image rows of `LEVELS` -> uint8 [H, W, 3].

    Args:
      image: uint8 [H, W, 3], as the network reads it.
      name: of the row.
      dose: in the row's unit.
      seed: of all randomness.
      position: of the pair in its collection.
    """
    rng = _generator(name, seed, position)
    if name == "noise":
        return add_noise(image, dose, rng)
    if name == "blur":
        return blur(image, dose / 100 * min(image.shape[:2]))
    if name == "jpeg":
        return compress(image, int(dose))
    if name == "occlusion":
        return occlude(image, dose / 100, rng)
    raise ValueError(_unknown("image", name))


def perturb_words(
    words: Sequence[str],
    name: str,
    dose: float,
    others: Sequence[str],
    *,
    seed: int,
    position: int,
) -> list[str]:
    """One of the text rows of `LEVELS`.

    Args:
      words: of the text.
      name, dose, seed, position: as in `perturb_image`.
      others: words to replace with, see `replace_words`.
    """
    rng = _generator(name, seed, position)
    if name == "drop":
        return drop_words(words, dose / 100, rng)
    if name == "replace":
        return replace_words(words, dose / 100, others, rng)
    if name == "empty":
        return empty(words, dose / 100, rng)
    raise ValueError(_unknown("text", name))


def degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise, blur or JPEG, each as likely, of any dose up to the strongest of `LEVELS`.

    Doses are drawn evenly: noise of 0 to 40 grey levels, blur of 0 to 2 % of the
    shorter side, JPEG of quality 95 down to 10.

    Args:
      image: uint8 [H, W, 3], as the network reads it.
      rng: of kind and dose.

    Returns:
      uint8 [H, W, 3].

    Example:
      >>> grey = np.full((8, 8, 3), 128, np.uint8)
      >>> degrade(grey, np.random.default_rng(0)).shape
      (8, 8, 3)
    """
    kind, share = rng.integers(3), rng.uniform()
    if kind == 0:
        return add_noise(image, share * _strongest("noise"), rng)
    if kind == 1:
        radius = share * _strongest("blur") / 100 * min(image.shape[:2])
        return blur(image, radius)
    best = 95
    quality = best - share * (best - _strongest("jpeg"))
    return compress(image, round(quality))


def _strongest(name):
    return LEVELS[name].doses[-1]


def _generator(name, seed, position):
    """A stream of its own for each perturbation and pair; all doses share it."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), position])


def _unknown(modality, name):
    known = [n for n, row in LEVELS.items() if row.modality == modality]
    return f"There is no perturbation {name!r} of the {modality}; take {known}."
