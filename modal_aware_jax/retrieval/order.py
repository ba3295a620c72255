"""Relevance in rank order, equal distances by ascending row: for ties='index'.

NumPy sorts 8- and 16-bit keys by radix, and stably, which XLA does not on a CPU.
Blocks that stay in the cache are sorted one by one; a row's rank is its place in
the block, moved by the counts of smaller distances and of earlier blocks.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from modal_aware_jax.retrieval.inputs import Inputs, last_word_mask, relevance_words
from modal_aware_jax.retrieval.ranking import CHUNK_ROWS, num_threads

BLOCK_ROWS = 2**16  # a place in a block fits 16 bits


def code_columns(codes: np.ndarray, mask: np.ndarray | None = None) -> list[np.ndarray]:
    """Columns of a packed code as 1-D words, 64-bit ones where they fit.

    A code of exactly 64 bits is not copied.
    """
    if mask is not None and not (mask == 0xFFFFFFFF).all():
        codes = codes & mask
    codes = np.ascontiguousarray(codes)
    wide = codes.view(np.uint64) if codes.shape[1] % 2 == 0 else codes
    return [np.ascontiguousarray(wide[:, i]) for i in range(wide.shape[1])]


def distance_type(largest: int):
    """The smallest type that holds the distances and the number after them."""
    return np.uint8 if largest < 255 else np.uint16


def distances_to(words, columns: list[np.ndarray], kind) -> np.ndarray:
    """Distances [N] of one query, whose words are given, to all rows."""
    total = np.empty(len(columns[0]), kind)
    for start in range(0, len(total), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        total[block] = np.bitwise_count(columns[0][block] ^ words[0])
        for word, column in zip(words[1:], columns[1:], strict=True):
            total[block] += np.bitwise_count(column[block] ^ word)
    return total


def radius_of(distance: np.ndarray, count: int, largest: int) -> int:
    """The smallest radius whose ball holds at least `count` rows."""
    low, high = 0, largest
    while low < high:
        middle = (low + high) // 2
        if np.count_nonzero(distance <= middle) >= count:
            high = middle
        else:
            low = middle + 1
    return low


def nearest_rows(distance: np.ndarray, count: int, largest: int) -> np.ndarray:
    """Row numbers of the `count` nearest, by distance and then by row."""
    rows = np.flatnonzero(distance <= radius_of(distance, count, largest))
    return rows[np.argsort(distance[rows], kind="stable")[:count]]


def grades_in_order(distance: np.ndarray, grades: np.ndarray, largest: int):
    """`grades` [N] of all rows, by distance and then by row."""
    edges = np.arange(largest + 2, dtype=distance.dtype)
    starts = range(0, len(distance), BLOCK_ROWS)
    begins = np.empty((len(starts), largest + 2), np.int64)
    found = []
    for begin, start in zip(begins, starts, strict=True):
        block = slice(start, start + BLOCK_ROWS)
        order = np.argsort(distance[block], kind="stable")
        ordered = distance[block][order]
        begin[:] = np.searchsorted(ordered, edges)
        ranked = grades[block][order]
        place = np.flatnonzero(ranked)
        found.append((place.astype(np.uint16), ordered[place], ranked[place]))
    counts = np.diff(begins, axis=1)
    total = counts.sum(axis=0)
    base = np.cumsum(total) - total + np.cumsum(counts, axis=0) - counts
    base -= begins[:, :-1]
    result = np.zeros(len(grades), grades.dtype)
    for (place, at, values), shift in zip(found, base, strict=True):
        result[shift[at] + place] = values
    return result


def _label_columns(inputs: Inputs) -> list[np.ndarray]:
    columns = np.empty((inputs.query_words.shape[1], inputs.num_database), np.uint32)
    for start in range(0, inputs.num_database, CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        columns[:, rows] = relevance_words(inputs, rows).T
    return list(columns)


def grades_of(words, columns, same_class: bool, num_grades: int) -> np.ndarray:
    """Grades [N] of all rows for one query: bool, or the number of shared labels."""
    if same_class:
        return columns[0] == words[0]
    wanted = [(w, column) for w, column in zip(words, columns, strict=True) if w]
    binary = num_grades == 2
    total = np.zeros(len(columns[0]), bool if binary else _grade_type(num_grades))
    for start in range(0, len(total), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        shared = [column[block] & word for word, column in wanted]
        if binary and shared:
            total[block] = functools.reduce(np.bitwise_or, shared) != 0
        elif not binary:
            for part in shared:
                total[block] += np.bitwise_count(part)
    return total


def _grade_type(num_grades: int):
    return np.uint8 if num_grades <= 256 else np.uint16


def map_ranked(
    inputs: Inputs, function: Callable, limit: int | None = None, num_grades: int = 2
) -> list:
    """Calls `function(grades in rank order [limit], all grades [N])` for every query.

    Grades are bool; with `num_grades` above 2, the numbers of shared labels.
    """
    mask = last_word_mask(inputs.num_bits)
    columns = code_columns(inputs.database, mask)
    queries = np.stack(code_columns(inputs.query, mask), axis=1)
    labels = _label_columns(inputs)
    kind = distance_type(inputs.num_bits)

    def one(i):
        grades = grades_of(inputs.query_words[i], labels, inputs.same_class, num_grades)
        distance = distances_to(queries[i], columns, kind)
        if limit is None or limit >= inputs.num_database:
            return function(grades_in_order(distance, grades, inputs.num_bits), grades)
        rows = nearest_rows(distance, limit, inputs.num_bits)
        return function(grades[rows], grades)

    with ThreadPoolExecutor(num_threads()) as pool:
        return list(pool.map(one, range(inputs.num_queries)))
