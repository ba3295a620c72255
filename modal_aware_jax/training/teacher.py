"""What a teacher says of a collection's images and sentences, computed once."""

import dataclasses
import hashlib
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from modal_aware_jax.backbones.clip_teacher import ClipTeacher
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.pipeline import eval_batches
from modal_aware_jax.training.cache import sole_writer
from modal_aware_jax.training.cached_pictures import file_of
from modal_aware_jax.training.progress import ProgressBar
from modal_aware_jax.training.workdir import explain_write_errors

BATCH = 16  # images


class TeacherLogits:
    """A teacher's logits of images with sentences of a collection.

    The teacher is read when it is first asked, in a training's first step: a run is
    evaluated without it. Its vectors are kept on disk, float16, under a name that tells
    the teacher and the collection; no image is cropped.

    Args:
      folder: of a CLIP, as `ClipTeacher` takes it.
      pairs: images, and captions with a sentence a line.
      cache: the folder of the files.
    """

    def __init__(
        self, folder: str | os.PathLike, pairs: Collection, cache: str | os.PathLike
    ):
        self._folder, self._pairs, self._cache = folder, pairs, pathlib.Path(cache)
        self._known = None

    def __call__(self, images: jax.Array, sentences: jax.Array) -> jax.Array:
        """Logits float32 [B, B] of images and of one sentence of each.

        Args:
          images: int [B], positions in the collection.
          sentences: int [B], which of an image's sentences.
        """
        if self._known is None:
            # Within a step that is being traced: these numbers are computed now.
            with jax.ensure_compile_time_eval():
                self._known = self._read()
        image, text, first, scale = self._known
        rows = image[images].astype(jnp.float32)
        columns = text[first[images] + sentences].astype(jnp.float32)
        return scale * jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)

    def _read(self):
        teacher = ClipTeacher(self._folder)
        image, text = teacher_vectors(teacher, self._pairs, self._cache)
        counts = [caption.count("\n") + 1 for caption in self._pairs.captions[:]]
        first = np.cumsum([0, *counts[:-1]]).astype(np.int32)
        return *map(jnp.asarray, (image, text, first)), teacher.scale


def teacher_vectors(teacher: ClipTeacher, pairs: Collection, cache: pathlib.Path):
    """Unit vectors of all images [N, F] and of all sentences [M, F], float16.

    From disk where they were computed before; another process that computes them is
    waited for.
    """
    digest = hashlib.sha256(f"{teacher.digest} {len(pairs)}".encode())
    digest.update("\n".join(map(str, pairs.ids)).encode())
    digest.update("\n".join(pairs.captions[:]).encode())
    for i in np.linspace(0, len(pairs) - 1, min(32, len(pairs))).astype(int):
        digest.update(bytes(pairs.images[int(i)]))
    folder = pathlib.Path(os.path.abspath(cache.expanduser()))
    name = f"teacher-{pairs.name}-{digest.hexdigest()[:16]}.npz"
    done = file_of(folder / name, pairs)
    with sole_writer(done) as missing:
        if missing:
            vectors = _compute(teacher, pairs)
            partial = done.with_suffix(".partial")
            with explain_write_errors(partial), open(partial, "wb") as file:
                np.savez(file, **vectors)
            partial.replace(done)
    with np.load(done) as kept:
        return kept["images"], kept["texts"]


def _compute(teacher, pairs):
    lines = [line for caption in pairs.captions[:] for line in caption.split("\n")]
    plain = np.zeros((len(pairs), 1), np.float32)  # no text is read with the images
    batches = eval_batches(
        dataclasses.replace(pairs, text=plain, vocabulary=()),
        np.arange(len(pairs)),
        batch_size=BATCH,
        image_size=teacher.image_size,
    )
    rows = []
    with ProgressBar(len(pairs), label="the teacher's view of images") as bar:
        for vectors in teacher.images(batch["image"] for batch in batches):
            rows.append(vectors.astype(np.float16))
            bar.advance(min(BATCH, len(pairs) - BATCH * (len(rows) - 1)))
    with ProgressBar(len(lines), label="and of sentences") as bar:
        texts = teacher.texts(lines, progress=bar.advance)
    return {
        "images": np.concatenate(rows)[: len(pairs)],
        "texts": texts.astype(np.float16),
    }
