"""Relevance in rank order, equal distances by ascending row: for ties='index'.

NumPy sorts 8- and 16-bit keys by radix, stably and on many threads; XLA does not on a
CPU. Large databases are sorted in blocks, whose ties are then laid end to end.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from modal_aware_jax.retrieval.inputs import Inputs, last_word_mask
from modal_aware_jax.retrieval.label_bits import LabelBits
from modal_aware_jax.retrieval.ranking import num_threads

BLOCK_ROWS = 2**16  # words and distances of so many rows stay in the cache
SORTED_ROWS = 2**19  # rows sorted at once: 16 bytes each, in every thread


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


def grades_in_order(parts: Iterable[tuple[np.ndarray, np.ndarray]], largest: int):
    """Grades [N] of all rows, by distance and then by row.

    Args:
      parts: (distances, grades) of consecutive rows, SORTED_ROWS or fewer at a time.
      largest: the largest possible distance.
    """
    blocks = []
    for distance, grades in parts:
        order = np.argsort(distance, kind="stable")
        edges = np.arange(largest + 2, dtype=distance.dtype)
        starts = np.searchsorted(distance, edges, sorter=order).tolist()
        blocks.append((grades[order], starts))
    if len(blocks) == 1:
        return blocks[0][0]
    ties = range(largest + 1)
    return np.concatenate(
        [ranked[starts[d] : starts[d + 1]] for d in ties for ranked, starts in blocks]
    )


def _grade_type(num_grades: int):
    return np.uint8 if num_grades <= 256 else np.uint16


def _totals(grades: np.ndarray, num_grades: int) -> np.ndarray:
    """How many rows have each grade, int64 [num_grades]."""
    if grades.dtype == bool:
        relevant = np.count_nonzero(grades)
        return np.array([len(grades) - relevant, relevant])
    return np.bincount(grades, minlength=num_grades)


def map_ranked(
    inputs: Inputs, function: Callable, limit: int | None = None, num_grades: int = 2
) -> list:
    """Calls `function(grades in rank order [limit], totals)` for every query.

    Grades are bool; with `num_grades` above 2, the numbers of shared labels. `totals`
    int64 [num_grades] counts the rows of each grade in the whole database.
    """
    mask = last_word_mask(inputs.num_bits)
    columns = code_columns(inputs.database, mask)
    queries = np.stack(code_columns(inputs.query, mask), axis=1)
    bits = None if inputs.same_class else LabelBits(inputs)
    kind = distance_type(inputs.num_bits)
    blocks = [
        slice(start, min(start + SORTED_ROWS, inputs.num_database))
        for start in range(0, inputs.num_database, SORTED_ROWS)
    ]

    def grades_of(i, rows):
        if inputs.same_class:
            return inputs.database_labels[rows] == inputs.query_words[i, 0]
        if num_grades == 2:
            return bits.shared(i, rows)
        return bits.num_shared(i, rows, _grade_type(num_grades))

    def one(i):
        totals = np.zeros(num_grades, np.int64)

        def part(rows):
            grades = grades_of(i, rows)
            totals[:] += _totals(grades, num_grades)
            near = distances_to(queries[i], [column[rows] for column in columns], kind)
            return near, grades

        if limit is None or limit >= inputs.num_database:
            ranked = grades_in_order(map(part, blocks), inputs.num_bits)
            return function(ranked, totals)
        distance, grades = part(slice(0, inputs.num_database))
        return function(grades[nearest_rows(distance, limit, inputs.num_bits)], totals)

    with ThreadPoolExecutor(num_threads()) as pool:
        return list(pool.map(one, range(inputs.num_queries)))
