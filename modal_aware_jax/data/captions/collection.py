"""Captioned images as a collection: one item an image, all its sentences beside it.

An item's caption holds its sentences, one a line. So images are read, cached and split
once each, whatever number of sentences they have, and no sentence of a test image is
ever trained on.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from modal_aware_jax.data.captions import flickr8k, flickr30k, karpathy
from modal_aware_jax.data.captions.records import Captions, check_on_problem
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.prepare import Pair, Scan, load_or_prepare, source_directory

READERS = {
    "flickr8k": flickr8k.read,
    "flickr30k": flickr30k.read,
    "karpathy": karpathy.read,
}
# Parts as the collections name them -> as `Collection.parts` does.
PARTS = {
    "train": "train",
    "restval": "train",
    "val": "validation",
    "test": "query",
    "": "",
}


def sentences_of(caption: str) -> list[str]:
    """The sentences of a caption, one a line.

    >>> sentences_of("A dog .\\nA brown dog runs .")
    ['A dog .', 'A brown dog runs .']
    """
    return caption.split("\n")


def sentences_there(captions: Sequence[str], most: int) -> np.ndarray:
    """Which of the `most` places for sentences each caption fills: bool [N, most].

    A sentence counts though no word of it is known.

    >>> sentences_there(["A dog .\\n!!!", "Sea"], 3).tolist()
    [[True, True, False], [True, False, False]]
    """
    counts = [len(sentences_of(caption)) for caption in captions]
    return np.arange(most) < np.array(counts, int)[:, None]


def caption_of(sentences: Sequence[str]) -> str:
    """Sentences as one caption; line breaks inside a sentence become spaces."""
    return "\n".join(" ".join(sentence.split()) for sentence in sentences)


def scan_captions(found: Captions, max_sentences: int) -> Scan:
    """What a reader found, as items to prepare.

    Args:
      found: images with their sentences.
      max_sentences: the first so many of an image's sentences are kept; 0 keeps all.
    """
    pairs, cut = [], 0
    for record in found.records:
        kept = record.sentences[: max_sentences or None]
        cut += len(record.sentences) - len(kept)
        pairs.append(
            Pair(
                id=record.id,
                read_image=record.read_image,
                where=record.where,
                caption=caption_of(kept),
                text=np.zeros(0, np.int32),
                labels=(),
                part=PARTS[record.split],
            )
        )
    counts = {"sentences": sum(len(sentences_of(pair.caption)) for pair in pairs)}
    if cut:
        counts[f"sentences left out, beyond {max_sentences} of an image"] = cut
    return Scan(pairs, (), (), found.problems, counts)


def load(
    source: str,
    directory: str | os.PathLike,
    *,
    max_sentences: int = 5,
    stored_size: int | None = 256,
    on_problem: str = "stop",
    prepared_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> Collection:
    """Reads (and on first use prepares) a captioned collection.

    Its items have sentences, no words and no labels; their parts are those of the
    collection's lists, 'restval' of COCO among those to learn from.

    Args:
      source: 'flickr8k', 'flickr30k' or 'karpathy'; see `data.captions`.
      directory: with the archives or folders.
      max_sentences: the first so many of an image's sentences are kept, five being
        usual; 0 keeps all.
      stored_size: images are reduced to this shorter side; None and 0 keep all sizes.
      on_problem: 'stop' raises DataProblems with everything that is wrong; 'skip'
        leaves out what is wrong, and says so.
      prepared_dir: where preparations are kept; None: the user's cache directory.
      progress: whether to show a progress bar and the counts (on stderr).
    """
    check_on_problem(source, on_problem)
    if max_sentences < 0:
        raise ValueError(
            f"{source}: max_sentences must be 0 (all) or more, got {max_sentences}."
        )
    directory = source_directory(source, directory)

    def scan():
        found = READERS[source](directory, on_problem="skip")
        return scan_captions(found, max_sentences)

    return load_or_prepare(
        f"{source}_captions",
        scan,
        inputs=[pathlib.Path(directory)],
        options={"max_sentences": max_sentences},
        stored_size=stored_size,
        on_problem=on_problem,
        prepared_dir=prepared_dir,
        progress=progress,
    )


def loader(source: str) -> Callable[..., Collection]:
    """`load` of one source, as tables of sources hold it."""

    @functools.wraps(load)
    def load_source(directory, **options):
        return load(source, directory, **options)

    return load_source
