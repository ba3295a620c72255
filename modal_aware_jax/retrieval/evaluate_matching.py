"""All that is told of a gallery of images and sentences, as one dict."""

import numpy as np

from modal_aware_jax.retrieval.bootstrap import bootstrap_by_image
from modal_aware_jax.retrieval.matching import first_tie, found_within, rank_of
from modal_aware_jax.retrieval.matching_scores import check_sides
from modal_aware_jax.retrieval.rerank import reranked_tie

KS = (1, 5, 10)
DIRECTIONS = ("image_to_text", "text_to_image")
MAX_RANK = 10  # of the cumulative match


def evaluate_matching(images, texts, text_groups, *, reranked=None) -> dict:
    """All scores of embeddings, both ways, with an interval.

    >>> texts = np.array([[1.0, 0.1], [2.0, 1.9], [0.1, 1.0], [1.1, 1.0]])
    >>> result = evaluate_matching(np.eye(2), texts, np.array([0, 0, 1, 1]))
    >>> result["rsum"], result["text_to_image"]["recall"].tolist()
    (575.0, [0.75, 1.0, 1.0])

    Args:
      images: [N, F]; image i has the group i.
      texts: [M, F].
      text_groups: [M].
      reranked: by direction, candidates [Q, k] of `rerank.first_found` and their new
        scores [Q, k]; None for the embeddings' own order.

    Returns:
      dict of
        rsum, rsum_low, rsum_high: recalls in percent, added, with the interval of a
          bootstrap that draws images;
        image_to_text, text_to_image: dicts of `recall` [3] at 1, 5 and 10, between 0
          and 1, `median_rank`, `mean_rank` and `cmc` [10], by rank 1 to 10;
        of_image: float64 [N], what each image and its sentences add to rsum; their
          mean is rsum;
        num_images, num_texts, texts_per_image;
        embeddings, where it was ranked again: a dict of rsum and of_image of the
          embeddings' own order.
    """
    groups = np.arange(len(images))
    one = 1 if len(texts) == len(images) else None
    counts = check_sides("evaluate_matching", groups, text_groups, one)
    result, hits, before = {}, [], []
    for name, query, gallery, own, theirs in (
        (DIRECTIONS[0], images, texts, groups, text_groups),
        (DIRECTIONS[1], texts, images, text_groups, groups),
    ):
        sides = query, gallery, own, theirs
        tie = first_tie("evaluate_matching", *sides)
        if reranked is not None:
            before.append(100 * found_within(tie, KS, "expected").sum(axis=1))
            tie = reranked_tie(*sides, *reranked[name])
        each, ranks = found_within(tie, KS, "expected"), rank_of(tie, "expected")
        matched = found_within(tie, range(1, MAX_RANK + 1), "expected")
        result[name] = {
            "recall": each.mean(axis=0),
            "median_rank": float(np.median(ranks)),
            "mean_rank": float(ranks.mean()),
            "cmc": matched.mean(axis=0),
        }
        hits.append(100 * each.sum(axis=1))
    interval = bootstrap_by_image(hits, [groups, text_groups])

    def of_image(image_hits, text_hits):
        share = np.bincount(text_groups, text_hits, len(images))
        return image_hits + share * len(images) / len(texts)

    if before:
        own = of_image(*before)
        result["embeddings"] = {"rsum": float(own.mean()), "of_image": own}
    return {
        "rsum": 100 * sum(sum(result[name]["recall"].tolist()) for name in DIRECTIONS),
        "rsum_low": interval.low,
        "rsum_high": interval.high,
        **result,
        "of_image": of_image(*hits),
        "num_images": len(images),
        "num_texts": len(texts),
        "texts_per_image": [int(counts.min()), int(counts.max())],
    }
