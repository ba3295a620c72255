"""Exact Hamming search on a CPU, by the smallest distance of each group of rows.

Rows are cut into groups of 8 to 32 neighbours. One fused XLA loop finds the smallest
distance of every group to four queries at once (four minima share a word), so the
codes are read once for four queries and no distance is ever written. Let t be the
k-th smallest minimum. A group above t holds none of the k nearest; of the groups
at t only the first, in row order, can hold one; together exactly k groups remain
to be looked at, however many distances tie.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modal_aware_jax.retrieval.order import code_columns, distance_type
from modal_aware_jax.retrieval.ranking import padded_rows

QUERY_BLOCK = 128  # queries of one device call
UNROLLED = 128  # population counts in one loop body: more compile for too long


class Layout(NamedTuple):
    """How one chunk lies on the device."""

    words: int  # Wd
    unroll: int  # rows of a group in one loop body
    parts: int  # a group is `parts` such runs of rows
    groups: int  # padded number of groups
    queries: int  # queries that share a word of the result

    @property
    def group_rows(self) -> int:
        return self.unroll * self.parts


def choose_layout(rows: int, words: int, k: int, chunks: int = 1) -> Layout:
    """Groups so large that reading minima and reading candidates cost about equal."""
    queries = 4 if words * 32 <= 255 else 2 if words <= 8 else 1
    unroll = 8
    while queries > 1 and unroll * words * queries > UNROLLED:
        queries //= 2
    size = unroll
    while 8 * k * size <= rows and k * (2 * size) ** 2 <= rows * chunks and size < 128:
        size *= 2
    groups = padded_rows(-(-rows // size) * 8) // 8
    return Layout(words, unroll, size // unroll, groups, queries)


def _minima(query, database, num_queries, *, layout):
    """Minima of all runs of rows, for all queries.

    Nothing but whole words in one loop: on a CPU, narrower types and inner loops
    made this ten times slower.

    Args:
      query: uint32 [QUERY_BLOCK, Wd].
      database: uint32 [Wd, unroll, parts * groups].

    Returns:
      uint32 [QUERY_BLOCK / queries, parts * groups], each word the minima of
      `queries` queries, the first in its lowest bits.
    """
    bits = 32 // layout.queries

    def distance(i, row):
        different = (query[i, w] ^ database[w, row] for w in range(layout.words))
        counts = [jax.lax.population_count(x) for x in different]
        return functools.reduce(jnp.add, counts)

    def smallest(i):
        if layout.words * layout.unroll * layout.queries > UNROLLED:
            different = query[i][:, None, None] ^ database
            counts = jax.lax.population_count(different).sum(axis=0, dtype=jnp.uint32)
            return counts.min(axis=0)
        rows = [distance(i, row) for row in range(layout.unroll)]
        return functools.reduce(jnp.minimum, rows)

    def one(i, table):
        shared = [
            smallest(i * layout.queries + lane) << jnp.uint32(bits * lane)
            for lane in range(layout.queries)
        ]
        return table.at[i].set(functools.reduce(jnp.bitwise_or, shared))

    shape = (QUERY_BLOCK // layout.queries, layout.parts * layout.groups)
    steps = (num_queries + layout.queries - 1) // layout.queries
    return jax.lax.fori_loop(0, steps, one, jnp.zeros(shape, jnp.uint32))


@functools.lru_cache(maxsize=256)
def compiled_minima(layout: Layout):
    """The compiled `_minima` for one layout, with the widest vectors of the CPU."""
    uint32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.uint32)
    lowered = jax.jit(functools.partial(_minima, layout=layout)).lower(
        uint32((QUERY_BLOCK, layout.words)),
        uint32((layout.words, layout.unroll, layout.parts * layout.groups)),
        jax.ShapeDtypeStruct((), jnp.int32),
    )
    try:
        return lowered.compile({"xla_cpu_prefer_vector_width": 512})
    except jax.errors.JaxRuntimeError:  # an XLA without this option
        return lowered.compile()


class Chunk(NamedTuple):
    """Consecutive rows of the database, ready to be searched."""

    columns: list  # for each 32- or 64-bit word, [groups in use, group_rows]
    rows: int  # n; the last group repeats its last row
    device: jax.Array  # uint32 [Wd, unroll, parts * groups]
    layout: Layout
    start: int  # first row


def make_chunk(codes: np.ndarray, start: int, layout: Layout) -> Chunk:
    """Transposes rows [n, Wd] so that neighbours lie in different vectors."""
    size = layout.group_rows
    rows_given = len(codes)
    whole = rows_given // size * size
    table = np.empty(
        (layout.words, layout.unroll, layout.parts, layout.groups), np.uint32
    )
    used = -(-len(codes) // size)
    table[..., used:] = 0
    shape = (-1, layout.parts, layout.unroll, layout.words)
    table[..., : whole // size] = codes[:whole].reshape(shape).transpose(3, 2, 1, 0)
    if used * size > whole:  # the last group repeats its last row
        rows = np.minimum(np.arange(whole, used * size), len(codes) - 1)
        last = codes[rows].reshape(shape).transpose(3, 2, 1, 0)
        table[..., used - 1 : used] = last
        codes = np.concatenate([codes[:whole], codes[rows]])
    device = jax.device_put(table.reshape(layout.words, layout.unroll, -1))
    columns = [column.reshape(used, size) for column in code_columns(codes)]
    return Chunk(columns, rows_given, device, layout, start)


def _group_minima(query, chunk: Chunk) -> np.ndarray:
    """Minima [B, groups in use] of a block of queries."""
    layout = chunk.layout
    padded = np.zeros((QUERY_BLOCK, layout.words), np.uint32)
    padded[: len(query)] = query
    count = np.int32(len(query))
    words = np.asarray(compiled_minima(layout)(padded, chunk.device, count))
    steps = -(-len(query) // layout.queries)
    minima = words[:steps].view(f"u{4 // layout.queries}")
    minima = minima.reshape(steps, layout.parts, -1)
    minima = minima[:, 0] if layout.parts == 1 else minima.min(axis=1)
    minima = minima.astype(distance_type(layout.words * 32), copy=False)
    minima = minima.reshape(steps, layout.groups, layout.queries)
    used = len(chunk.columns[0])
    return np.moveaxis(minima[:, :used], 2, 1).reshape(-1, used)[: len(query)]


def _kth_smallest(minima, k, largest):
    """The k-th smallest of every row [B, G], and how many are smaller."""
    rows, bins = len(minima), largest + 2
    keys = minima + np.arange(rows)[:, None] * bins
    counts = np.bincount(keys.ravel(), minlength=rows * bins).reshape(rows, bins)
    inside = np.cumsum(counts, axis=1)
    radius = (inside < k).sum(axis=1)
    return radius, (inside - counts)[np.arange(rows), radius]


def candidates(query, chunk: Chunk, k: int, worst: np.ndarray):
    """Rows of a chunk that may be among the k nearest of a block of queries.

    Args:
      query: uint32 [B, Wd].
      chunk: at least one row.
      k: how many are wanted.
      worst: int64 [B], only rows nearer than this count.

    Returns:
      (which query, distance, row), int64 [M] each, sorted by query, then by row.
    """
    minima = _group_minima(query, chunk)
    largest = chunk.layout.words * 32
    radius = worst - 1
    spare = None
    if k <= minima.shape[1] and (worst > largest).any():
        kth, smaller = _kth_smallest(minima, k, largest)
        radius, spare = np.minimum(kth, radius), k - smaller
        spare = np.where(kth == radius, spare, k)
    limit = np.maximum(radius, 0).astype(minima.dtype)
    inside = minima <= limit[:, None]
    if (radius < 0).any():
        inside[radius < 0] = False
    which, group = np.nonzero(inside)
    if spare is not None and len(which) > k * len(query):
        at_radius = minima[which, group] == radius[which]
        seen = np.cumsum(at_radius)
        first = np.searchsorted(which, np.arange(len(query)))
        seen -= (seen - at_radius)[np.minimum(first, len(seen) - 1)][which]
        keep = ~at_radius | (seen <= spare[which])
        which, group = which[keep], group[keep]
    size = chunk.layout.group_rows
    words = np.stack(code_columns(query), axis=1)[which]
    distance = np.zeros((len(group), size), minima.dtype)
    for w, column in enumerate(chunk.columns):
        distance += np.bitwise_count(column.take(group, axis=0) ^ words[:, w, None])
    near = np.flatnonzero(distance <= limit[which, None])
    row = group[near // size] * size + near % size
    real = row < chunk.rows
    near, row = near[real], row[real]
    return which[near // size], distance.ravel()[near].astype(np.int64), row
