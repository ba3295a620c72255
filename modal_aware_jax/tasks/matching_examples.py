"""What the report of matching shows of single test images and sentences."""

import math

import numpy as np

from modal_aware_jax.data.captions.collection import sentences_of

NUM_EXAMPLES = 6  # queries shown of each direction
NUM_RESULTS = 5
NUM_GRAPHS = 2  # pairs whose graph is drawn


def examples_of(pairs, positions, images, texts, owners, sentences):
    """Queries of both directions, with what they find: (heading, [dict])."""
    images, texts = (_unit(x) for x in (images, texts))
    some = np.linspace(0, len(images) - 1, min(NUM_EXAMPLES, len(images))).astype(int)

    def picture(row):
        return pairs.images[int(positions[row])]

    asked, found = [], []

    def own(row):
        return [sentences[i] for i in np.flatnonzero(owners == row)]

    for row in some:
        cosines = texts @ images[row]
        best = np.argsort(-cosines, kind="stable")[:NUM_RESULTS]
        results = [(None, sentences[i], cosines[i], owners[i] == row) for i in best]
        asked.append(
            {"query": (picture(row), " / ".join(own(row))), "results": results}
        )
        first = int(np.flatnonzero(owners == row)[0])
        cosines = images @ texts[first]
        best = np.argsort(-cosines, kind="stable")[:NUM_RESULTS]
        results = [(picture(i), own(i)[0], cosines[i], i == row) for i in best]
        found.append({"query": (None, sentences[first]), "results": results})
    return [("Images ask for sentences", asked), ("Sentences ask for images", found)]


def _unit(rows):
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(length, 1e-12)


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
