"""COCO's two protocols of matching: five folds of 1,000 images, and all 5,000.

Karpathy's test split has 5,000 images. Its 5k scores have the whole as gallery; its 1k
scores are the means over five folds of 1,000 images in the order of the split, each
with its own galleries. Both read the first five sentences of every image (some have six
or seven). Everything here is a function of groups, so it serves any collection.
"""

from collections.abc import Sequence

import numpy as np

from modal_aware_jax.retrieval.inputs import check_whole
from modal_aware_jax.retrieval.matching_scores import (
    DirectionScores,
    MatchingScores,
    check_sides,
    matching_scores,
)


def first_texts(text_groups, count: int = 5) -> np.ndarray:
    """Positions of the first `count` texts of every image, in their order.

    >>> first_texts(["a", "a", "b", "a"], 2).tolist()
    [0, 1, 2]
    """
    check_whole("first_texts", "count", count)
    seen, kept = {}, []
    for i, group in enumerate(np.asarray(text_groups).tolist()):
        seen[group] = seen.get(group, 0) + 1
        if seen[group] <= count:
            kept.append(i)
    return np.array(kept, np.int64)


def folds(
    image_groups, text_groups, *, num_folds: int = 5
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions of the images and of the texts of every fold.

    Images are cut into consecutive folds of equal size in their given order; texts go
    with their image.

    >>> [(i.tolist(), t.tolist()) for i, t in folds([0, 1], [1, 0, 0], num_folds=2)]
    [([0], [1, 2]), ([1], [0])]

    Raises:
      ValueError: the images cannot be cut into folds of equal size, or a text has no
        image.
    """
    num_folds = check_whole("folds", "num_folds", num_folds)
    images, texts = np.asarray(image_groups), np.asarray(text_groups)
    if images.ndim != 1 or not len(images) or len(images) % num_folds:
        raise ValueError(
            f"folds: expected image_groups [N] whose N is a multiple of {num_folds}, "
            f"got {list(images.shape)}."
        )
    fold_of = {
        name: i * num_folds // len(images) for i, name in enumerate(images.tolist())
    }
    orphans = [name for name in texts.tolist() if name not in fold_of]
    if orphans:
        raise ValueError(f"folds: the text group {orphans[0]!r} has no image.")
    text_folds = np.array([fold_of[name] for name in texts.tolist()], np.int64)
    size = len(images) // num_folds
    return [
        (np.arange(f * size, (f + 1) * size), np.flatnonzero(text_folds == f))
        for f in range(num_folds)
    ]


def fold_scores(
    images,
    texts,
    image_groups,
    text_groups,
    *,
    num_folds: int = 5,
    texts_per_image: int | None = 5,
    ks=(1, 5, 10),
    num_bits: int | None = None,
    ties: str = "expected",
) -> tuple[MatchingScores, list[MatchingScores]]:
    """Means over folds of `matching_scores`, and the scores of every fold.

    COCO 1k: `num_folds=5` on 5,000 images. COCO 5k: `num_folds=1`. Median ranks are
    averaged too, as the literature does.

    >>> rows = np.repeat(np.eye(2), 2, axis=0)
    >>> mean, each = fold_scores(np.eye(2), rows, [0, 1], [0, 0, 1, 1], num_folds=2,
    ...                          texts_per_image=2, ks=(1,))
    >>> mean.rsum, len(each), mean.num_images
    (200.0, 2, 1)

    Args:
      texts_per_image: as for `matching_scores`; take the `first_texts` before.
      num_folds: number of consecutive folds of the images. The other arguments are
        `matching_scores`'s.
    """
    check_sides("fold_scores", image_groups, text_groups, texts_per_image)
    image_groups, text_groups = np.asarray(image_groups), np.asarray(text_groups)
    images, texts = np.asarray(images), np.asarray(texts)
    each = [
        matching_scores(
            images[own],
            texts[theirs],
            image_groups[own],
            text_groups[theirs],
            ks=ks,
            num_bits=num_bits,
            ties=ties,
            texts_per_image=texts_per_image,
        )
        for own, theirs in folds(image_groups, text_groups, num_folds=num_folds)
    ]
    return _mean_scores(each), each


def _mean_scores(each: Sequence[MatchingScores]) -> MatchingScores:
    def mean(direction):
        parts = [getattr(scores, direction) for scores in each]
        recall = np.mean([part.recall for part in parts], axis=0)
        return DirectionScores(
            tuple(recall.tolist()),
            float(np.mean([part.median_rank for part in parts])),
            float(np.mean([part.mean_rank for part in parts])),
        )

    return each[0]._replace(
        image_to_text=mean("image_to_text"),
        text_to_image=mean("text_to_image"),
        rsum=float(np.mean([scores.rsum for scores in each])),
        num_texts=round(float(np.mean([scores.num_texts for scores in each]))),
        texts_per_image=(
            min(scores.texts_per_image[0] for scores in each),
            max(scores.texts_per_image[1] for scores in each),
        ),
    )
