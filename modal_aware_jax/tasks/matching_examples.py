"""What the report of matching shows of single test images and sentences."""

import math

import numpy as np

from modal_aware_jax.data.captions.collection import sentences_of
from modal_aware_jax.retrieval.evaluate_matching import DIRECTIONS
from modal_aware_jax.retrieval.rerank import first_in_order

NUM_EXAMPLES = 6  # queries shown of each direction
NUM_RESULTS = 5
NUM_GRAPHS = 2  # pairs whose graph is drawn


def examples_of(pairs, positions, images, texts, owners, sentences, reranked=None):
    """Queries of both directions, with what they find: (heading, [dict]).

    Args:
      pairs, positions: the collection, and the images in it.
      images, texts, owners: embeddings [N, F], [M, F] and whose the texts are [M].
      sentences: M.
      reranked: by direction the candidates and their new scores, as for
        `evaluate_matching`: the results are then in that order.
    """
    some = np.linspace(0, len(images) - 1, min(NUM_EXAMPLES, len(images))).astype(int)
    firsts = np.searchsorted(owners, some)

    def picture(row):
        return pairs.images[int(positions[row])]

    def own(row):
        return [sentences[i] for i in np.flatnonzero(owners == row)]

    def found(way, rows, query, gallery):
        again = reranked and [side[rows] for side in reranked[way]]
        both = first_in_order(query[rows], gallery, NUM_RESULTS, again)
        return [list(zip(*each, strict=True)) for each in zip(*both, strict=True)]

    asked, shown = [], []
    for row, best in zip(some, found(DIRECTIONS[0], some, images, texts), strict=True):
        results = [(None, sentences[i], value, owners[i] == row) for i, value in best]
        query = picture(row), " / ".join(own(row))
        asked.append({"query": query, "results": results})
    every = found(DIRECTIONS[1], firsts, texts, images)
    for row, first, best in zip(some, firsts, every, strict=True):
        results = [(picture(i), own(i)[0], value, i == row) for i, value in best]
        shown.append({"query": (None, sentences[first]), "results": results})
    return [("Images ask for sentences", asked), ("Sentences ask for images", shown)]


def graph_examples(experiment, positions, score) -> list[dict]:
    """Some test images with their first sentence and the edges of this pair."""
    pairs = experiment.collection
    told = [sentences_of(pairs.captions[int(i)]) for i in positions]
    first = np.cumsum([0, *map(len, told)])
    graphs = []
    for row in np.linspace(0, len(positions) - 1, NUM_GRAPHS).astype(int).tolist():
        sentence = told[row][0]
        words = experiment.text.tokens_of(sentence)
        edges = score.edges(row, int(first[row]))
        patches = len(edges[0]) - len(words)
        graphs.append(
            {
                "image": pairs.images[int(positions[row])],
                "sentence": sentence,
                "words": words,
                "grid": most_square(patches),
                "edges": edges,
            }
        )
    return graphs


def most_square(count: int) -> tuple[int, int]:
    """Rows and columns of a grid of so many patches, as of a square image.

    >>> most_square(36), most_square(8)
    ((6, 6), (2, 4))
    """
    rows = max(r for r in range(1, math.isqrt(count) + 1) if count % r == 0)
    return rows, count // rows
