"""Tiny collections in the layout of the official archives, for tests."""

import io
import zipfile

import numpy as np
from PIL import Image

from modal_aware_jax.data.flickr25k import POTENTIAL_LABELS, RELEVANT_LABELS

TAGS = {
    1: ["sky", "sea"],
    2: ["sky"],
    3: [],
    4: ["café", "boat"],
    7: ["sea", "sky", "boat"],
    10: ["explore"],
}
LABELS = {"sky": [1, 2, 7], "sea": [1, 7], "animals": [10], "sea_r1": [7]}


def jpeg(seed=0, size=(40, 30), **options):
    """The bytes of a JPEG of smooth noise."""
    random = np.random.default_rng(seed)
    noise = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8))
    buffer = io.BytesIO()
    noise.resize(size).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def flickr_files(numbers=tuple(TAGS)):
    """Images and tag files by their official names."""
    files = {}
    for number in numbers:
        files[f"mirflickr/im{number}.jpg"] = jpeg(number)
        lines = "".join(f"{tag}\r\n" for tag in TAGS[number])
        files[f"mirflickr/meta/tags/tags{number}.txt"] = lines.encode()
        files[f"mirflickr/meta/tags_raw/tags{number}.txt"] = b"\xff raw"
    files["mirflickr/doc/readme.txt"] = b"about"
    return files


def annotation_files(num_labels=38):
    """Label files by their official names."""
    names = POTENTIAL_LABELS + (RELEVANT_LABELS if num_labels == 38 else ())
    files = {
        f"{name}.txt": "".join(f"{n}\r\n" for n in LABELS.get(name, [])).encode()
        for name in names
    }
    return {**files, "README.txt": b"about the labels"}


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def write_folder(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_flickr(directory, *, change_images=None, change_annotations=None):
    """Both archives whole; a change is a dict of names, None takes a file away."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, files, change in (
        ("mirflickr25k", flickr_files(), change_images),
        ("mirflickr25k_annotations_v080", annotation_files(), change_annotations),
    ):
        files = {**files, **(change or {})}
        files = {key: value for key, value in files.items() if value is not None}
        write_zip(directory / f"{name}.zip", files)
    return directory
