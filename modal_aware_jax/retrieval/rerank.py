"""A second look at the first k of a search: pairs are scored again, and sorted anew.

Embeddings find the first k, which a network that reads both sides of a pair then puts
in another order. What is not among them stays where it was, behind them.
"""

from collections.abc import Callable, Sequence

import numpy as np

from modal_aware_jax.retrieval.inputs import check_whole
from modal_aware_jax.retrieval.matching import FirstTie, first_tie
from modal_aware_jax.retrieval.similarity import Similarity, group_codes


def first_found(query, gallery, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k gallery rows of the largest cosine with each query.

    >>> rows, cosines = first_found(np.eye(2), np.array([[1, 1.0], [0, 2], [3, 0]]), 2)
    >>> rows.tolist(), cosines.round(3).tolist()
    ([[2, 0], [1, 0]], [[1.0, 0.707], [1.0, 0.707]])

    Args:
      query, gallery: float [Q, D] and [N, D].
      k: clipped to N.

    Returns:
      Rows int64 and cosines float64, [Q, k] each: descending cosine, then ascending
      row.
    """
    similarity = Similarity("first_found", query, gallery)
    k = min(check_whole("first_found", "k", k), similarity.num_gallery)
    rows = np.zeros((similarity.num_queries, k), np.int64)
    cosines = np.zeros((similarity.num_queries, k))
    for block in similarity.query_blocks():
        best = np.zeros((block.stop - block.start, 0))
        where = best.astype(np.int64)
        for chunk in similarity.gallery_chunks():
            scores = similarity.scores(block, chunk)
            columns = np.arange(chunk.start, chunk.start + scores.shape[1])
            best = np.concatenate([best, scores], axis=1)
            columns = np.broadcast_to(columns, scores.shape)
            where = np.concatenate([where, columns], axis=1)
            # Earlier rows stand first: a stable sort keeps them there.
            order = np.argsort(-best, axis=1, kind="stable")[:, :k]
            best = np.take_along_axis(best, order, axis=1)
            where = np.take_along_axis(where, order, axis=1)
        rows[block], cosines[block] = where, best
    return rows, cosines


def first_in_order(query, gallery, k: int, reranked=None):
    """What is found first: by the cosines, or in the order of a second look.

    >>> rows, values = first_in_order(
    ...     np.eye(2), np.eye(2), 1, (np.array([[0, 1], [1, 0]]), np.eye(2) + 1))
    >>> rows.tolist(), values.tolist()
    ([[0], [0]], [[2.0], [2.0]])

    Args:
      query, gallery: float [Q, D] and [N, D].
      k: how many.
      reranked: candidates [Q, c] and their new scores [Q, c]; None: the cosines' order.

    Returns:
      Rows and cosines, or scores, [Q, k] each, k being clipped to N or to c.
    """
    if reranked is None:
        return first_found(query, gallery, k)
    order = np.argsort(-reranked[1], axis=1, kind="stable")[:, :k]
    return tuple(np.take_along_axis(side, order, axis=1) for side in reranked)


def score_both_ways(images, texts, k: int, score: Callable) -> dict:
    """The first k of both directions with new scores; each pair is scored once.

    Args:
      images, texts: float [N, D] and [M, D] embeddings.
      k: of either direction.
      score: `score(image rows [P], text rows [P])` -> [P].

    Returns:
      `image_to_text` and `text_to_image`: rows of what was found, their cosines, and
      their scores, [Q, k] each.

    >>> found = score_both_ways(np.eye(2), np.eye(2), 1, lambda i, t: 10 * i + t)
    >>> found["text_to_image"][2].tolist()
    [[0.0], [11.0]]
    """
    ways = first_found(images, texts, k), first_found(texts, images, k)
    (of_images, _), (of_texts, _) = ways
    own = np.arange(len(of_images))[:, None], np.arange(len(of_texts))[:, None]
    scores = score_once([(own[0], of_images), (of_texts, own[1])], score)
    return {
        "image_to_text": (*ways[0], scores[0]),
        "text_to_image": (*ways[1], scores[1]),
    }


def score_once(pairs: Sequence[tuple], score: Callable) -> list[np.ndarray]:
    """Scores of several sets of pairs; one that is in many is scored once.

    >>> asked = []
    >>> def score(image, text):
    ...     asked.append(len(image))
    ...     return 10 * image + text
    >>> score_once([([[0], [1]], [[2, 3], [2, 3]]), ([1, 1], [3, 3])], score)
    [array([[ 2.,  3.],
           [12., 13.]]), array([13., 13.])]
    >>> asked
    [4]

    Args:
      pairs: image rows and text rows, that broadcast.
      score: `score(image rows [P], text rows [P])` -> [P].

    Returns:
      float64 of the shape of each set.
    """
    sets = [np.broadcast_arrays(*(np.asarray(x) for x in one)) for one in pairs]
    image, text = np.concatenate([np.reshape(one, (2, -1)) for one in sets], axis=1)
    width = text.max(initial=0) + 1
    once, back = np.unique(image * width + text, return_inverse=True)
    scores = np.asarray(score(*np.divmod(once, width)), np.float64)[back]
    cuts = np.cumsum([image.size for image, _ in sets])[:-1]
    parts = zip(np.split(scores, cuts), sets, strict=True)
    return [part.reshape(image.shape) for part, (image, _) in parts]


def put_first(similarities, candidates, scores) -> np.ndarray:
    """Similarities with those of the candidates above all others, in a new order.

    >>> put_first(np.array([[0.9, 0.8, 0.1]]), [[0, 1]], [[-4.0, 5.0]]).tolist()
    [[2.0, 3.0, 0.1]]

    Args:
      similarities: [Q, N], cosines.
      candidates: [Q, k] rows of the gallery.
      scores: [Q, k] that they are ordered by; equal ones tie.

    Returns:
      float64 [Q, N]: 2, 3 and so on for candidates in ascending order.
    """
    result = np.array(similarities, np.float64)
    for row, found, values in zip(result, candidates, scores, strict=True):
        row[found] = 2 + np.unique(values, return_inverse=True)[1]
    return result


def reranked_tie(
    query, gallery, query_groups, gallery_groups, candidates, scores
) -> FirstTie:
    """The first tie with a relevant row, the candidates put in the order of the scores.

    Args:
      query, gallery, query_groups, gallery_groups: as for `first_relevant_rank`.
      candidates: [Q, k] rows of `first_found`.
      scores: [Q, k]; equal ones tie.

    Raises:
      ValueError: the shapes do not fit, or a score is not finite.

    >>> tie = reranked_tie(
    ...     np.eye(2), np.eye(2), [0, 1], [0, 1], [[0, 1], [1, 0]], [[1, 2], [2, 1]])
    >>> (tie.before + 1).tolist()
    [2, 1]
    """
    name = "reranked_tie"
    candidates, scores = np.asarray(candidates), np.asarray(scores, np.float64)
    if (
        candidates.ndim != 2
        or candidates.shape != scores.shape
        or len(candidates) != len(query)
    ):
        raise ValueError(
            f"{name}: expected candidates and scores [{len(query)}, k], a row a query, "
            f"got {candidates.shape} and {scores.shape}."
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{name}: scores hold NaN or infinity.")
    tie = first_tie(name, query, gallery, query_groups, gallery_groups)
    own, theirs = group_codes(
        name,
        ("query_groups", "gallery_groups"),
        (query_groups, gallery_groups),
        (len(query), len(gallery)),
    )
    relevant = theirs[candidates] == own[:, None]
    best = np.max(scores, axis=1, where=relevant, initial=-np.inf)[:, None]
    beside = scores == best
    found = relevant.any(axis=1)
    k = candidates.shape[1]
    # Of a tie across the border the part inside is taken by others.
    inside = np.clip(k - tie.before, 0, None)
    first = np.argmax(beside & relevant, axis=1)
    upto = np.arange(k) <= first[:, None]
    return FirstTie(
        before=np.where(found, (scores > best).sum(axis=1), tie.before + inside),
        size=np.where(found, beside.sum(axis=1), tie.size - inside),
        relevant=np.where(found, (beside & relevant).sum(axis=1), tie.relevant),
        place=np.where(found, (beside & upto).sum(axis=1), tie.place - inside),
    )
