"""Counts by distance: all that a metric with ties='expected' needs.

One pass on the device: XOR, population count, and a scatter-add of
`distance + (K + 1) * grade` for each query. Two items are counted by one addition
where the table of pairs is small: this halves the slowest instruction.
Rows are padded to a few sizes, so that a new N seldom compiles anew; a padded row
has code 0 and no label, and its count is taken away again.
"""

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from modal_aware_jax.hashing.codes import num_words
from modal_aware_jax.retrieval.inputs import (
    NO_CLASS,
    Inputs,
    last_word_mask,
    relevance_words,
)

CHUNK_ROWS = 2**18  # database rows on the device at a time
QUERY_BLOCK = 32  # queries of one device call
TABLE_BYTES = 2**26  # counts held at a time


def num_threads() -> int:
    """Number of host threads: the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def padded_rows(rows: int) -> int:
    """Rounds up to one of 16 sizes an octave, at most 6 % more than needed."""
    rows = max(rows, 1024)
    step = 2 ** (rows.bit_length() - 5)
    return -(-rows // step) * step


def chunk_rows(num_database: int) -> int:
    """Rows of one chunk: equal parts of at most CHUNK_ROWS, then padded."""
    parts = -(-num_database // CHUNK_ROWS)
    return padded_rows(-(-num_database // parts))


def _distance_and_grade(query, query_words, database, words, same_class, num_grades):
    """Distances and grades, int32 [n]; database [Wd, n], words [Lw, n]."""
    counts = [jax.lax.population_count(query[i] ^ x) for i, x in enumerate(database)]
    distance = functools.reduce(jnp.add, counts).astype(jnp.int32)
    if same_class:
        return distance, (query_words[0] == words[0]).astype(jnp.int32)
    shared = [query_words[i] & x for i, x in enumerate(words)]
    if num_grades == 2:
        return distance, (functools.reduce(jnp.bitwise_or, shared) != 0).astype(
            jnp.int32
        )
    shared = functools.reduce(jnp.add, [jax.lax.population_count(x) for x in shared])
    return distance, shared.astype(jnp.int32)


def _count_block(
    query, query_words, database, words, num_queries, *, num_bits, same_class, grades
):
    """Counts int32 [QUERY_BLOCK, grades * (K + 1)] of the first `num_queries`."""
    rows = database.shape[1]
    bins = grades * (num_bits + 1)
    paired = bins * bins * 4 <= rows

    def keys(i, part):
        part_of = [x[part] for x in database], [x[part] for x in words]
        distance, grade = _distance_and_grade(
            query[i], query_words[i], *part_of, same_class, grades
        )
        return distance + (num_bits + 1) * grade

    def count(i, table):
        if paired:
            first, second = slice(0, rows // 2), slice(rows // 2, rows)
            pair = keys(i, first) * bins + keys(i, second)
            pairs = jnp.zeros(bins * bins, jnp.int32)
            pairs = pairs.at[pair].add(1, mode="promise_in_bounds")
            pairs = pairs.reshape(bins, bins)
            counts = pairs.sum(0) + pairs.sum(1)
        else:  # four tables, so that equal neighbours do not wait for each other
            lane = (jnp.arange(rows, dtype=jnp.int32) & 3) * bins
            lanes = jnp.zeros(4 * bins, jnp.int32)
            lanes = lanes.at[keys(i, slice(None)) + lane].add(
                1, mode="promise_in_bounds"
            )
            counts = lanes.reshape(4, bins).sum(0)
        return table.at[i].set(counts)

    table = jnp.zeros((query.shape[0], bins), jnp.int32)
    return jax.lax.fori_loop(0, num_queries, count, table)


@functools.lru_cache(maxsize=256)
def _compiled(rows, words, num_bits, same_class, grades):
    """The counting function for one padded size."""
    code_words = num_words(num_bits)
    uint32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.uint32)
    function = functools.partial(
        _count_block, num_bits=num_bits, same_class=same_class, grades=grades
    )
    return (
        jax.jit(function)
        .lower(
            uint32((QUERY_BLOCK, code_words)),
            uint32((QUERY_BLOCK, words)),
            uint32((code_words, rows)),
            uint32((words, rows)),
            jax.ShapeDtypeStruct((), jnp.int32),
        )
        .compile()
    )


def _device_chunk(inputs: Inputs, start: int, rows: int):
    """Codes [Wd, rows] and label words [Lw, rows] on the device, and their number."""
    stop = min(start + rows, inputs.num_database)
    codes = inputs.database[start:stop] & last_word_mask(inputs.num_bits)
    words = relevance_words(inputs, slice(start, stop))
    database = np.zeros((codes.shape[1], rows), np.uint32)
    database[:, : stop - start] = codes.T
    fill = NO_CLASS if inputs.same_class else 0
    labels = np.full((words.shape[1], rows), fill, np.uint32)
    labels[:, : stop - start] = words.T
    return jax.device_put(database), jax.device_put(labels), stop - start


def _blocks(inputs: Inputs, queries: range):
    """Query blocks padded to QUERY_BLOCK rows: (row offset, codes, labels, number)."""
    mask = last_word_mask(inputs.num_bits)
    for start in range(queries.start, queries.stop, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, queries.stop)
        padding = ((0, QUERY_BLOCK - (stop - start)), (0, 0))
        codes = np.pad(inputs.query[start:stop] & mask, padding)
        words = np.pad(inputs.query_words[start:stop], padding)
        yield start - queries.start, codes, words, np.int32(stop - start)


def _count_chunk(inputs, queries, start, rows, grades, pool, table):
    """Adds the counts of one chunk of the database to `table`."""
    database, words, real = _device_chunk(inputs, start, rows)
    count = _compiled(rows, words.shape[0], inputs.num_bits, inputs.same_class, grades)

    def add(block):
        offset, codes, labels, number = block
        counts = np.asarray(count(codes, labels, database, words, number))[:number]
        rows_of_table = table[offset : offset + number]
        rows_of_table += counts
        zero_distance = np.bitwise_count(codes[:number]).sum(axis=1, dtype=np.int64)
        rows_of_table[np.arange(number), zero_distance] -= rows - real

    for _ in pool.map(add, _blocks(inputs, queries)):
        pass


def iterate_counts(
    inputs: Inputs, num_grades: int = 2
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (queries, counts int64 [B, grades, K + 1]) for blocks of queries.

    Grade 0 is not relevant. With `num_grades` 2, grade 1 is relevant; with more,
    the grade is the number of shared labels.
    """
    bins = num_grades * (inputs.num_bits + 1)
    size = max(QUERY_BLOCK, TABLE_BYTES // (8 * bins) // QUERY_BLOCK * QUERY_BLOCK)
    rows = chunk_rows(inputs.num_database)
    with ThreadPoolExecutor(num_threads()) as pool:
        for first in range(0, inputs.num_queries, size):
            queries = range(first, min(first + size, inputs.num_queries))
            table = np.zeros((len(queries), bins), np.int64)
            for start in range(0, inputs.num_database, rows):
                _count_chunk(inputs, queries, start, rows, num_grades, pool, table)
            yield (
                slice(queries.start, queries.stop),
                table.reshape(len(queries), num_grades, inputs.num_bits + 1),
            )
