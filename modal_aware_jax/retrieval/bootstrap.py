"""Confidence intervals of matching scores that resample images, not sentences.

The sentences of an image are not independent queries: five of them fail together when
the photograph is hard. Resampling sentences would give intervals that are too narrow.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from modal_aware_jax.retrieval.inputs import check_whole


class ImageInterval(NamedTuple):
    """A value, or a difference, with its confidence interval."""

    value: float
    low: float
    high: float


def bootstrap_by_image(
    values: Sequence,
    groups: Sequence,
    *,
    others: Sequence | None = None,
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> ImageInterval:
    """Interval of a sum of means over queries, or of its difference to `others`.

    Each sample draws images with replacement and takes all queries of a drawn image, in
    every part alike; the galleries stay as they are (percentile bootstrap: Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13). Parts are what is added
    up: rsum has the two directions, `values=[100 * image_hits.sum(1), 100 *
    text_hits.sum(1)]` with `hits_at` of each; a single recall has one part.

    >>> image_hits, text_hits = np.array([1.0, 0.0]), np.array([1.0, 1.0, 0.0, 1.0])
    >>> bootstrap_by_image([image_hits, text_hits], [[0, 1], [0, 0, 1, 1]]).value
    1.25

    Args:
      values: parts, float [Q] each: scores of single queries.
      groups: parts, [Q] each: the image that every query shows or belongs to. All
        parts have the same images.
      others: another method's values of the same queries: the interval is of the
        paired difference values - others.
      confidence: of the two-sided interval.
      samples: number of resamplings.
      seed: of the resampling.

    Raises:
      ValueError: parts do not fit, or their images differ.
    """
    samples = check_whole("bootstrap_by_image", "samples", samples)
    if not 0 < confidence < 1:
        raise ValueError(
            "bootstrap_by_image: expected confidence between 0 and 1, got "
            f"{confidence!r}."
        )
    sums, counts = _by_image(values, groups)  # [parts, images] each
    if others is not None:
        shapes = [np.shape(x) for x in values], [np.shape(x) for x in others]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "bootstrap_by_image: expected others of the same shapes as values, got "
                f"{shapes[1]} and {shapes[0]}."
            )
        sums = sums - _by_image(others, groups)[0]
    random = np.random.default_rng(seed)
    num_images = sums.shape[1]
    drawn_values = np.empty(samples)
    for i in range(samples):
        times = np.bincount(
            random.integers(0, num_images, num_images), minlength=num_images
        )
        drawn_values[i] = ((sums @ times) / (counts @ times)).sum()
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn_values, [tail, 1 - tail])
    value = (sums.sum(axis=1) / counts.sum(axis=1)).sum()
    return ImageInterval(float(value), float(low), float(high))


def _by_image(values, groups):
    """Sums and numbers of the queries of each image, float64 [parts, images]."""
    if len(values) != len(groups) or not len(values):
        raise ValueError(
            "bootstrap_by_image: expected as many parts of groups as of values, at "
            f"least one, got {len(groups)} and {len(values)}. One part? Put it in a "
            "list: [values], [groups]."
        )
    sums, counts, images = [], [], None
    for part, owners in zip(values, groups, strict=True):
        part, owners = np.asarray(part, np.float64), np.asarray(owners)
        if part.ndim != 1 or part.shape != owners.shape or not len(part):
            raise ValueError(
                "bootstrap_by_image: expected every part as values [Q] and groups [Q], "
                f"not empty, got {list(part.shape)} and {list(owners.shape)}."
            )
        if not np.isfinite(part).all():
            raise ValueError("bootstrap_by_image: values hold NaN or infinity.")
        names, codes = np.unique(owners, return_inverse=True)
        if images is not None and not np.array_equal(images, names):
            raise ValueError(
                "bootstrap_by_image: all parts need queries of the same images; one "
                f"has {len(images)}, another {len(names)} of which "
                f"{len(np.intersect1d(images, names))} are shared."
            )
        images = names
        sums.append(np.bincount(codes, part, len(names)))
        counts.append(np.bincount(codes, minlength=len(names)).astype(np.float64))
    return np.stack(sums), np.stack(counts)
