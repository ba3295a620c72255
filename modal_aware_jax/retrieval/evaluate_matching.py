"""All that is told of a gallery of images and sentences, as one dict."""

import numpy as np

from modal_aware_jax.retrieval.bootstrap import bootstrap_by_image
from modal_aware_jax.retrieval.cmc import cumulative_match_curve
from modal_aware_jax.retrieval.matching import hits_at
from modal_aware_jax.retrieval.matching_scores import matching_scores

KS = (1, 5, 10)
DIRECTIONS = ("image_to_text", "text_to_image")


def evaluate_matching(images, texts, text_groups) -> dict:
    """All scores of embeddings, both ways, with an interval.

    >>> texts = np.array([[1.0, 0.1], [2.0, 1.9], [0.1, 1.0], [1.1, 1.0]])
    >>> result = evaluate_matching(np.eye(2), texts, np.array([0, 0, 1, 1]))
    >>> result["rsum"], result["text_to_image"]["recall"].tolist()
    (575.0, [0.75, 1.0, 1.0])

    Args:
      images: [N, F]; image i has the group i.
      texts: [M, F].
      text_groups: [M].

    Returns:
      dict of
        rsum, rsum_low, rsum_high: recalls in percent, added, with the interval of a
          bootstrap that draws images;
        image_to_text, text_to_image: dicts of `recall` [3] at 1, 5 and 10, between 0
          and 1, `median_rank`, `mean_rank` and `cmc` [10], by rank 1 to 10;
        of_image: float64 [N], what each image and its sentences add to rsum; their
          mean is rsum;
        num_images, num_texts, texts_per_image.
    """
    groups = np.arange(len(images))
    one = 1 if len(texts) == len(images) else None
    found = matching_scores(
        images, texts, groups, text_groups, ks=KS, texts_per_image=one
    )
    result, hits = {}, []
    for name, query, gallery, own, theirs in (
        (DIRECTIONS[0], images, texts, groups, text_groups),
        (DIRECTIONS[1], texts, images, text_groups, groups),
    ):
        direction = getattr(found, name)
        result[name] = {
            "recall": np.array(direction.recall),
            "median_rank": direction.median_rank,
            "mean_rank": direction.mean_rank,
            "cmc": cumulative_match_curve(query, gallery, own, theirs),
        }
        each = hits_at(query, gallery, own, theirs, ks=KS)
        hits.append(100 * each.sum(axis=1))
    interval = bootstrap_by_image(hits, [groups, text_groups])
    share = np.bincount(text_groups, hits[1], len(images)) * len(images) / len(texts)
    return {
        "rsum": found.rsum,
        "rsum_low": interval.low,
        "rsum_high": interval.high,
        **result,
        "of_image": hits[0] + share,
        "num_images": found.num_images,
        "num_texts": found.num_texts,
        "texts_per_image": list(found.texts_per_image),
    }
