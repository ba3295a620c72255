"""What a data set is like, in one table."""

import numpy as np


def dataset_statistics(
    labels: np.ndarray, words_per_pair: np.ndarray, vocabulary: int, parts
) -> dict[str, int | float]:
    """The facts of a collection and its split.

    Args:
      labels: 0/1 [N, L].
      words_per_pair: how many words of the vocabulary each pair has, [N].
      vocabulary: T.
      parts: `data.protocol.Split`.

    Returns:
      numbers by what they count, in the order of the table. A database pair is
      relevant to a query if they share a label.
    """
    labels = np.asarray(labels) > 0
    relevant = relevant_counts(labels[parts.query], labels[parts.database])
    return {
        "pairs": len(labels),
        "labels": labels.shape[1],
        "labels per pair, mean": float(labels.sum(1).mean()),
        "pairs without label": int((~labels.any(1)).sum()),
        "vocabulary": int(vocabulary),
        "words per pair, mean": float(np.mean(words_per_pair)),
        "words per pair, median": float(np.median(words_per_pair)),
        "pairs without word": int((np.asarray(words_per_pair) == 0).sum()),
        "test queries": len(parts.query),
        "database": len(parts.database),
        "training pairs": len(parts.train),
        "validation queries": len(parts.validation),
        "share of the database relevant to a query, mean": float(
            (relevant / max(len(parts.database), 1)).mean()
        ),
        "queries without a relevant pair": int((relevant == 0).sum()),
    }


def relevant_counts(query_labels: np.ndarray, database_labels: np.ndarray):
    """How many database pairs share a label with each query: int64 [Q].

    >>> relevant_counts(np.array([[1, 0], [0, 0]]), np.array([[1, 1], [0, 1]]))
    array([1, 0])
    """
    database = np.asarray(database_labels, np.float32).T
    counts = [
        ((np.asarray(some, np.float32) @ database) > 0).sum(axis=1)
        for some in np.array_split(query_labels, max(1, len(query_labels) // 256))
    ]
    return np.concatenate(counts).astype(np.int64)


def statistics_markdown(columns: dict[str, dict]) -> str:
    """One column a data set.

    >>> print(statistics_markdown({"two": {"pairs": 2, "labels per pair": 1.5}}))
    | | two |
    |---|---:|
    | pairs | 2 |
    | labels per pair | 1.50 |
    <BLANKLINE>
    """
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for row in next(iter(columns.values())):
        cells = [
            f"{value:,}" if isinstance(value, int) else _decimal(value)
            for value in (column[row] for column in columns.values())
        ]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _decimal(value):
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"
