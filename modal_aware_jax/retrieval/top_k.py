"""The k nearest codes: ascending distance, then ascending row, exactly.

On a CPU by group minima, elsewhere by `lax.top_k`; on both in chunks, so that a
database larger than memory may be a memory map.
"""

import functools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from modal_aware_jax.retrieval.group_minima import (
    QUERY_BLOCK,
    Chunk,
    candidates,
    choose_layout,
    make_chunk,
)
from modal_aware_jax.retrieval.inputs import check_codes, check_whole
from modal_aware_jax.retrieval.order import (
    code_columns,
    distance_type,
    distances_to,
    nearest_rows,
)
from modal_aware_jax.retrieval.ranking import CHUNK_ROWS, num_threads, padded_rows

CHUNK_BYTES = 2**23  # smaller ones cost calls, larger ones leave the cache
MOST_CHUNKS = 8  # searched at a time, and as many being read
ALL_ROWS = 2**22  # rows whose distances are held at once, for every thread


def search(query, database, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of every query.

    >>> code = np.array([[0], [1], [3], [1]], np.uint32)
    >>> search(code[:1], code, 3)[1].tolist()
    [[0, 1, 3]]

    Args:
      query: uint32 [Q, Wd] packed codes.
      database: uint32 [N, Wd] packed codes, also a `np.memmap`.
      k: how many rows; clipped to N.

    Returns:
      (distances int32 [Q, k], rows int64 [Q, k]), ascending distance, then
      ascending row.
    """
    query, database = check_codes("search", query, database)
    return search_rows(query, database, check_k("search", k, len(database)))


def search_rows(query, database, k: int) -> tuple[np.ndarray, np.ndarray]:
    """`search` without checks, over anything with a shape that slices into rows."""
    if jax.default_backend() != "cpu":
        return _search_device(query, database, k)
    limit = chunk_limit(database.shape[1])
    small = len(query) < 4 and len(database) <= limit
    if small or k * 64 > min(len(database), limit):
        return _search_all(query, database, k)
    # Threads share the queries of one chunk, or else the chunks.
    threads = num_threads() if len(database) <= limit else 1
    chunks = iterate_chunks(database, k, len(query), limit)
    return search_chunks(query, chunks, k, threads)


def check_k(function, k, num_database) -> int:
    return min(check_whole(function, "k", k), num_database)


def chunk_limit(words: int) -> int:
    """Rows of a chunk on a CPU."""
    return max(CHUNK_BYTES // (4 * max(words, 2)), 2**15)


def chunk_starts(num_database: int, limit: int) -> tuple[range, int]:
    """Starts of the chunks, and their rows: equal padded parts of about `limit`."""
    parts = -(-num_database // limit)
    rows = padded_rows(-(-num_database // parts))
    return range(0, num_database, rows), min(rows, num_database)


def iterate_chunks(
    database, k: int, num_queries: int, limit: int
) -> Iterable[list[Chunk]]:
    """Chunks of at most `limit` rows in row order, as many at a time as threads.

    The next ones are made, which reads them from a disk, while these are searched.
    """
    starts, rows = chunk_starts(len(database), limit)
    layout = choose_layout(rows, database.shape[1], k, num_queries, len(starts))

    def make(start):
        return make_chunk(np.asarray(database[start : start + rows]), start, layout)

    size = min(num_threads(), MOST_CHUNKS)
    groups = [starts[i : i + size] for i in range(0, len(starts), size)]
    with ThreadPoolExecutor(size) as pool:
        ahead = [pool.submit(make, start) for start in groups[0]]
        for group in groups[1:]:
            chunks = [future.result() for future in ahead]
            ahead = [pool.submit(make, start) for start in group]
            yield chunks
        yield [future.result() for future in ahead]


def _query_blocks(num_queries: int, threads: int) -> list[slice]:
    """Equal blocks of at most QUERY_BLOCK queries, a multiple of the threads."""
    blocks = -(-num_queries // (QUERY_BLOCK * threads)) * threads
    size = -(-num_queries // (4 * blocks)) * 4
    return [slice(i, min(i + size, num_queries)) for i in range(0, num_queries, size)]


def _merge(best, found, k, largest):
    """The k nearest of the best so far, [B, k] each, and new candidates."""
    distance, row = best
    which, new_distance, new_row = found
    queries, kept = distance.shape
    which = np.concatenate([np.repeat(np.arange(queries), kept), which])
    distance = np.concatenate([distance.ravel(), new_distance])
    row = np.concatenate([row.ravel(), new_row])
    keys = which * (largest + 1) + distance
    if queries * (largest + 1) < 2**16:
        keys = keys.astype(np.uint16)  # radix sort
    order = np.argsort(keys, kind="stable")
    first = np.searchsorted(which[order], np.arange(queries))
    kept = min(k, int(np.bincount(which, minlength=queries).min()))
    order = order[first[:, None] + np.arange(kept)]  # [B, kept]
    return distance[order], row[order]


def search_chunks(query, chunks: Iterable[list[Chunk]], k: int, threads: int):
    """`search` over prepared chunks in row order, k at most their number of rows.

    `threads` is how many blocks of queries are searched at a time.
    """
    largest = query.shape[1] * 32
    blocks = _query_blocks(len(query), threads)
    best = [
        (
            np.zeros((b.stop - b.start, 0), np.int64),
            np.zeros((b.stop - b.start, 0), int),
        )
        for b in blocks
    ]

    def find(task):
        i, chunk = task
        distance, _ = best[i]
        if distance.shape[1] < k:
            worst = np.full(len(distance), largest + 1)
        else:
            worst = distance[:, -1]
        which, near, rows = candidates(query[blocks[i]], chunk, k, worst)
        return i, (which, near, rows + chunk.start)

    with ThreadPoolExecutor(num_threads()) as pool:
        for group in chunks:
            tasks = [(i, chunk) for i in range(len(blocks)) for chunk in group]
            for i, found in pool.map(find, tasks):
                if len(found[0]):
                    best[i] = _merge(best[i], found, k, largest)
    distance = np.concatenate([d for d, _ in best]).astype(np.int32)
    return distance, np.concatenate([r for _, r in best])


def _search_all(query, database, k):
    """`search` through all distances of one query at a time: for few, or large k."""
    largest = database.shape[1] * 32
    kind = distance_type(largest)
    words = np.stack(code_columns(query), axis=1)
    starts, rows = chunk_starts(len(database), max(k, ALL_ROWS))
    best = [(np.zeros(0, kind), np.zeros(0, np.int64))] * len(query)

    def update(i, start, columns):
        distance = distances_to(words[i], columns, kind)
        near = nearest_rows(distance, min(k, len(distance)), largest)
        distance = np.concatenate([best[i][0], distance[near]])
        near = np.concatenate([best[i][1], near + start])
        if start:
            order = np.argsort(distance, kind="stable")[:k]
            distance, near = distance[order], near[order]
        best[i] = distance, near

    with ThreadPoolExecutor(num_threads()) as pool:
        for start in starts:
            columns = code_columns(np.asarray(database[start : start + rows]))
            for _ in pool.map(
                lambda i, s=start, c=columns: update(i, s, c), range(len(query))
            ):
                pass
    distance = np.array([d for d, _ in best], np.int32).reshape(len(query), k)
    return distance, np.array([r for _, r in best], np.int64).reshape(len(query), k)


def nearest_on_device(query, database, num_rows, k):
    """Distances and rows [Q, k] of the first `num_rows` rows, inside jit.

    `lax.top_k` keeps the lower index of equal keys first, and is fast on floats.
    """
    far = jnp.float32(database.shape[1] * 32 + 1)
    real = jnp.arange(database.shape[0]) < num_rows

    def one(code):
        different = jax.lax.population_count(code[None, :] ^ database)
        distance = different.sum(axis=1, dtype=jnp.int32).astype(jnp.float32)
        negative, rows = jax.lax.top_k(-jnp.where(real, distance, far), k)
        return -negative, rows

    distance, rows = jax.lax.map(one, query)
    return distance.astype(jnp.int32), rows


@functools.partial(jax.jit, static_argnames="k")
def _device_chunk(query, database, num_rows, k):
    return nearest_on_device(query, database, num_rows, k)


def _search_device(query, database, k):
    """`search` with `lax.top_k`, one padded chunk on the device at a time."""
    starts, rows = chunk_starts(len(database), CHUNK_ROWS)
    padded = padded_rows(rows)
    on_device = jax.device_put(query)
    best = np.zeros((len(query), 0), np.int32), np.zeros((len(query), 0), np.int64)
    for start in starts:
        codes = np.zeros((padded, database.shape[1]), np.uint32)
        part = database[start : start + rows]
        codes[: len(part)] = part
        found = _device_chunk(on_device, codes, len(part), min(k, padded))
        distance, row = (np.asarray(x)[:, : len(part)] for x in found)
        distance = np.concatenate([best[0], distance], axis=1)
        row = np.concatenate([best[1], row.astype(np.int64) + start], axis=1)
        order = np.argsort(distance, axis=1, kind="stable")[:, :k]
        best = (
            np.take_along_axis(distance, order, axis=1),
            np.take_along_axis(row, order, axis=1),
        )
    return best
