"""A split that the collection's own tables give, kept as it is."""

import numpy as np

from modal_aware_jax.data.protocol import Split, check_split


def given_split(
    parts: np.ndarray,
    *,
    num_queries: None = None,
    num_train: int | None = None,
    num_validation: int | None = None,
    seed: int = 0,
    drawable: bool = True,
) -> Split:
    """The split of named parts; what they leave open is drawn.

    'query' are the test queries, and all the rest is the database. Without such a part
    'validation' asks the queries. 'train' is learned from; without it, all of the
    database is drawn from. Validation queries are the part of that name, in the
    database, or where there is none drawn from those to be learned from.

    Args:
      parts: [N] of 'train', 'validation', 'query', 'database' and ''.
      num_queries: must be open: the split brings its queries.
      num_train: learn from so many of them only; None: from all.
      num_validation: number of validation queries; None: all of the part, or where
        there is none a tenth of those to be learned from, 1,000 at most.
      seed: the same seed gives the same split.
      drawable: whether the reader can draw a split instead, which messages name then.

    Example:
      >>> parts = np.array(["train"] * 20 + ["query"] * 5)
      >>> [len(part) for part in given_split(parts)]
      [5, 20, 18, 2]
    """
    drawn = ", or draw a split: --config.data.options.given_split=false"
    drawn = drawn if drawable else ""
    if num_queries is not None:
        raise ValueError(
            "The collection brings its own split, with its own queries: leave "
            f"--config.data.num_queries out{drawn}."
        )
    parts = np.asarray(parts, dtype=str)
    held = {name: np.flatnonzero(parts == name) for name in ("query", "validation")}
    query, validation = held["query"], held["validation"]
    if not len(query):
        query, validation = validation, query
    if not len(query) or len(query) == len(parts):
        names = ", ".join(repr(name) for name in np.unique(parts).tolist())
        raise ValueError(
            f"The given split has parts {names} only: queries (test) and pairs to "
            f"learn from (train) are needed. Name their parts so{drawn}."
        )
    random = np.random.RandomState(seed)
    database = np.setdiff1d(np.arange(len(parts)), query)
    free = np.setdiff1d(database, validation)
    train = random.permutation(free[parts[free] == "train"])
    if not len(train):
        train = random.permutation(free)
    if not len(validation):
        size = min(len(train) // 10, 1000) if num_validation is None else num_validation
        _check("--config.data.num_validation", size, len(train), drawn)
        validation, train = train[:size], train[size:]
    elif num_validation is not None:
        _check("--config.data.num_validation", num_validation, len(validation), drawn)
        validation = random.permutation(validation)[:num_validation]
    if num_train is not None:
        _check("--config.data.num_train", num_train, len(train), drawn)
        train = train[:num_train]
    result = Split(
        *(np.sort(p).astype(np.int64) for p in (query, database, train, validation))
    )
    check_split(result, len(parts))
    return result


def _check(name, wanted, there, drawn):
    if not 0 <= wanted <= there:
        raise ValueError(
            f"The given split leaves {there} pairs for {name}, but {wanted} "
            f"are asked for. Ask for fewer{drawn}."
        )
