"""The usual table of matching: both directions, recalls, ranks and their sum."""

from typing import NamedTuple

import numpy as np

from modal_aware_jax.retrieval.matching import (
    check_ks,
    first_tie,
    found_within,
    rank_of,
)
from modal_aware_jax.retrieval.metrics import check_ties
from modal_aware_jax.retrieval.similarity import group_codes


class DirectionScores(NamedTuple):
    """One direction: means over its queries.

    Attributes:
      recall: R@k of every k, between 0 and 1.
      median_rank: of the first relevant item, from 1; the mean of the middle two where
        the queries are even.
      mean_rank: likewise the mean.
    """

    recall: tuple[float, ...]
    median_rank: float
    mean_rank: float


class MatchingScores(NamedTuple):
    """Both directions of one gallery.

    Attributes:
      ks: the ranks of the recalls.
      image_to_text, text_to_image: `DirectionScores`.
      rsum: the recalls of both directions in percent, added: at most 200 len(ks).
      num_images, num_texts: sizes of the two galleries.
      texts_per_image: the fewest and the most texts of an image.
    """

    ks: tuple[int, ...]
    image_to_text: DirectionScores
    text_to_image: DirectionScores
    rsum: float
    num_images: int
    num_texts: int
    texts_per_image: tuple[int, int]


def matching_scores(
    images,
    texts,
    image_groups,
    text_groups,
    *,
    ks=(1, 5, 10),
    num_bits: int | None = None,
    ties: str = "expected",
    texts_per_image: int | None = None,
) -> MatchingScores:
    """R@k, median and mean rank of images asking texts and of texts asking images.

    Every image is there once and has all of its texts; otherwise the numbers are no
    recalls of the collection, and the call is refused. Scoring one of five sentences an
    image is the common mistake: image to text becomes harder, text to image has a fifth
    of its queries. So a collection with one text an image must say `texts_per_image=1`.

    >>> images = np.eye(2)
    >>> texts = np.array([[1.0, 0.1], [2.0, 1.9], [0.1, 1.0], [1.1, 1.0]])
    >>> scores = matching_scores(images, texts, [0, 1], [0, 0, 1, 1], ks=(1, 2))
    >>> scores.image_to_text.recall, scores.text_to_image.recall, scores.rsum
    ((1.0, 1.0), (0.75, 1.0), 375.0)

    Args:
      images, texts: float [N, D] embeddings, or packed codes with `num_bits`.
      image_groups, text_groups: the image that a row shows or belongs to, a number or
        name.
      ks, num_bits, ties: as for `recall_at`.
      texts_per_image: None for any number but one; a number is checked of every image.

    Raises:
      ValueError: an image is there twice or has no text, a text has no image, or an
        image has another number of texts than it should.
    """
    check_ties("matching_scores", ties)
    ks = check_ks("matching_scores", ks)
    counts = check_sides("matching_scores", image_groups, text_groups, texts_per_image)
    directions = []
    for query, gallery, own, theirs in (
        (images, texts, image_groups, text_groups),
        (texts, images, text_groups, image_groups),
    ):
        tie = first_tie("matching_scores", query, gallery, own, theirs, num_bits)
        recall = found_within(tie, ks, ties).mean(axis=0)
        ranks = rank_of(tie, ties)
        directions.append(
            DirectionScores(
                tuple(recall.tolist()), float(np.median(ranks)), float(ranks.mean())
            )
        )
    return MatchingScores(
        ks=tuple(ks.tolist()),
        image_to_text=directions[0],
        text_to_image=directions[1],
        rsum=100 * sum(sum(direction.recall) for direction in directions),
        num_images=len(counts),
        num_texts=int(counts.sum()),
        texts_per_image=(int(counts.min()), int(counts.max())),
    )


def check_sides(
    function: str, image_groups, text_groups, texts_per_image: int | None = None
) -> np.ndarray:
    """How many texts each image has, int64 [N]; ValueError where sides do not fit.

    >>> check_sides("here", [7, 9], [9, 9, 7]).tolist()
    [1, 2]
    """
    images, texts = np.asarray(image_groups), np.asarray(text_groups)
    if images.ndim != 1 or texts.ndim != 1 or not len(images) or not len(texts):
        raise ValueError(
            f"{function}: expected image_groups [N] and text_groups [N], not empty, "
            f"got {list(images.shape)} and {list(texts.shape)}."
        )
    own, theirs = group_codes(
        function,
        ("image_groups", "text_groups"),
        (images, texts),
        (len(images), len(texts)),
    )
    times = np.bincount(own)[own]
    if (times > 1).any():
        raise ValueError(
            f"{function}: image {images[np.argmax(times > 1)].item()!r} is there "
            f"{times.max()} times. Give every image once; its texts share its group. "
            "An image repeated beside each of its texts would tie with itself."
        )
    orphans = texts[~np.isin(theirs, own)]
    if len(orphans):
        raise ValueError(
            f"{function}: {len(orphans)} texts have no image, the first is of "
            f"{orphans[0].item()!r}. Their queries could never be answered."
        )
    counts = np.bincount(theirs, minlength=len(own))[own]
    if not counts.all():
        raise ValueError(
            f"{function}: {np.count_nonzero(counts == 0)} images have no text, such as "
            f"{images[np.argmin(counts)].item()!r}. Leave them out on purpose."
        )
    expected = texts_per_image
    if expected is not None and (counts != expected).any():
        wrong = np.argmax(counts != expected)
        raise ValueError(
            f"{function}: expected {expected} texts an image, but "
            f"{np.count_nonzero(counts != expected)} images have another number, such "
            f"as {images[wrong].item()!r} with {counts[wrong]}."
        )
    if expected is None and len(counts) > 1 and (counts == 1).all():
        raise ValueError(
            f"{function}: every image has one text. Scoring one of several sentences "
            "is a common mistake, and its numbers are not comparable. Give all texts "
            "with their image's group; if there really is only one, say "
            "texts_per_image=1."
        )
    return counts
