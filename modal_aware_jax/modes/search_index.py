"""Codes made elsewhere against an index file made elsewhere: no config, no model."""

import pathlib

import numpy as np

from modal_aware_jax.retrieval.codes_file import read_queries
from modal_aware_jax.retrieval.index import HammingIndex
from modal_aware_jax.retrieval.index_file import IndexFileError


def search_index_file(
    index: pathlib.Path,
    codes: pathlib.Path | None,
    *,
    k: int = 10,
    output: pathlib.Path | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of every query code in an index file.

    Args:
      index: a file that `HammingIndex.save` wrote.
      codes: an `.npz` file with the query codes; see `retrieval.read_queries`.
      k: how many results a query.
      output: where to write `distances` and `ids` as `.npz`; None writes nothing.

    Returns:
      (distances int32 [Q, k], ids [Q, k]).
    """
    if codes is None:
        raise ValueError(
            "search: name the query codes with --codes=FILE.npz beside --index."
        )
    try:
        opened = HammingIndex.load(index)
    except OSError as error:
        raise IndexFileError(
            f"search: {index} cannot be opened ({error.strerror}). Write an index with "
            "HammingIndex.save."
        ) from error
    distances, ids = opened.search(read_queries(codes, opened.num_bits), k)
    if output is not None:
        with open(output, "wb") as file:
            np.savez(file, distances=distances, ids=ids)
    return distances, ids
