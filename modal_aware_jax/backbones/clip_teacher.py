"""A CLIP of a folder as a teacher: its vectors of photographs and of sentences."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence

import jax
import numpy as np
from flax import nnx

from modal_aware_jax.backbones.clip import CLIP, unit
from modal_aware_jax.backbones.from_pretrained import from_pretrained
from modal_aware_jax.backbones.sentence_vectors import read_tokenizer
from modal_aware_jax.backbones.siglip import SigLIPText
from modal_aware_jax.backbones.text_batches import text_batches

LENGTH_STEP = 16  # lengths of texts are padded to multiples of it
# Of images in [0, 1], where the folder does not say: OpenAI's.
MEAN = 0.48145466, 0.4578275, 0.40821073
DEVIATION = 0.26862954, 0.2613026, 0.2757771
FILES = ("config.json", "tokenizer.json")


class ClipTeacher:
    """Unit vectors of images and of texts in the space that a CLIP has for both.

    Args:
      folder: as the transformers library's `save_pretrained` writes it, with a fast
        tokenizer (`tokenizer.json`, which needs the package `tokenizers`).

    Attributes:
      features: F.
      image_size: pixels of a side.
      scale: what its cosines are multiplied by to give logits.
      digest: 16 hex digits of weights and tokenizer.

    Raises:
      ValueError: the folder holds no CLIP; says what is missing.
    """

    def __init__(self, folder: str | os.PathLike):
        path = pathlib.Path(folder).expanduser()
        missing = [name for name in FILES if not (path / name).is_file()]
        if missing:
            raise ValueError(
                f"ClipTeacher: {folder} lacks {' and '.join(missing)}. Give a folder "
                "with a CLIP and its fast tokenizer, as the transformers library's "
                "save_pretrained writes them."
            )
        clip = from_pretrained(path)
        if not isinstance(clip, CLIP):
            raise ValueError(
                f"ClipTeacher: {folder} holds a {type(clip).__name__}, which has no "
                "space for images and texts. Give a CLIP, Chinese-CLIP or SigLIP."
            )
        self.features, self.scale = clip.features, float(clip.scale)
        places = clip.image.embedding
        self.image_size = places.grid[0] * places.patch_size[0]
        self.digest = _digest(path)
        self._tokenizer = read_tokenizer(path, clip.text.max_length)
        # SigLIP read the padding of its texts like words.
        self._reads_padding = isinstance(clip.text, SigLIPText)
        self._length = clip.text.max_length
        self._padding = _padding(path) if self._reads_padding else 0
        mean, deviation = _normalisation(path, self._reads_padding)
        graphdef, self._weights = nnx.split(clip)

        @jax.jit
        def image(weights, images):
            scaled = (images.astype(np.float32) / 255 - mean) / deviation
            return unit(nnx.merge(graphdef, weights).encode_image(scaled))

        @jax.jit
        def text(weights, ids, mask):
            return unit(nnx.merge(graphdef, weights).encode_text(ids, mask))

        self._image, self._text = image, text

    def images(self, batches: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        """Vectors float32 [B, F] of each batch of uint8 images [B, S, S, 3]."""
        for batch in batches:
            yield np.asarray(self._image(self._weights, batch))

    def texts(self, texts: Sequence[str], *, progress=lambda n: None) -> np.ndarray:
        """Vectors of n texts, float32 [n, F]; longer ones than the model reads are cut.

        Args:
          texts: free text.
          progress: is told the number of texts after each batch.
        """
        read = [row.ids for row in self._tokenizer.encode_batch(list(texts))]
        vectors = np.zeros((len(read), self.features), np.float32)
        batches = text_batches(read, self._padded, padding=self._padding)
        for rows, ids, mask in batches:
            mask = None if self._reads_padding else mask
            vectors[rows] = self._text(self._weights, ids, mask)[: len(rows)]
            progress(len(rows))
        return vectors

    def _padded(self, length):
        if self._reads_padding:
            return self._length
        steps = -(-max(length, 1) // LENGTH_STEP)
        return min(steps * LENGTH_STEP, self._length)


def _normalisation(folder, is_siglip):
    """Mean and deviation of the colours, [3] each, that a model was trained with."""
    path = folder / "preprocessor_config.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    usual = ((0.5,) * 3, (0.5,) * 3) if is_siglip else (MEAN, DEVIATION)
    given = facts.get("image_mean", usual[0]), facts.get("image_std", usual[1])
    return tuple(np.array(x, np.float32).reshape(1, 1, 1, 3) for x in given)


def _padding(folder):
    facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return facts.get("text_config", {}).get("pad_token_id", 1)


def _digest(folder):
    digest = hashlib.sha256()
    files = (*folder.glob("*.safetensors"), *folder.glob("*.json"))
    for path in sorted(files):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
