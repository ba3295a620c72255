"""Exact Hamming search on a CPU, by the smallest distance of each group of rows.

A tile is a run of rows; its groups are the rows at equal places modulo LANES, 8 to 128
of them, so that codes are read as they lie in memory or on disk. One fused XLA loop
finds the smallest distance of every group to four queries at once (four minima share a
word): the codes are read once for four queries and no distance is ever written. Let t
be the k-th smallest minimum. A group above t holds none of the k nearest; of the
groups at t only those of the first tiles can hold one; so little more than k groups
remain to be looked at, however many distances tie.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modal_aware_jax.retrieval.order import distance_type
from modal_aware_jax.retrieval.ranking import padded_rows

QUERY_BLOCKS = (8, 32, 128)  # queries of one device call, padded to one of these
QUERY_BLOCK = QUERY_BLOCKS[-1]
UNROLLED = 128  # population counts in one loop body: more compile for too long
UNROLL = 8  # rows of a group in one loop body
LANES = 32  # groups of a tile
ALIGNMENT = 64  # bytes
PAGE = 1024  # words
PIECE = 2**18  # rows whose distances are computed at a time


class Layout(NamedTuple):
    """How one chunk lies on the device."""

    words: int  # of a code
    word_bits: int  # 64 where codes divide into such words, else 32
    parts: int  # a group has `parts` times UNROLL rows
    tiles: int  # padded number of tiles
    queries: int  # queries that share a word of the result

    @property
    def code_bits(self) -> int:
        return self.words * self.word_bits

    @property
    def word_type(self):
        return np.uint64 if self.word_bits == 64 else np.uint32

    @property
    def group_rows(self) -> int:
        return UNROLL * self.parts

    @property
    def tile_rows(self) -> int:
        return LANES * self.group_rows


def choose_layout(
    rows: int, code_words: int, k: int, num_queries: int, chunks: int = 1
) -> Layout:
    """Groups so large that reading minima and reading candidates cost about equal.

    Args:
      rows, chunks: how many rows a chunk has, and how many chunks there are.
      code_words: Wd.
      k: how many are wanted.
      num_queries: Q. Fewer than four leave parts of a shared word away.
    """
    # Columns of codes of one word need not be told apart first, which for few queries
    # costs more than their distances.
    word_bits = 32 if code_words % 2 else 64
    words = 32 * code_words // word_bits
    queries = 4 if code_words * 32 <= 255 else 2 if code_words <= 8 else 1
    while queries > 1 and UNROLL * words * queries > UNROLLED:
        queries //= 2
    while queries // 2 >= num_queries:
        queries //= 2
    size = UNROLL
    while 8 * k * size <= rows and k * (2 * size) ** 2 <= rows * chunks and size < 128:
        size *= 2
    tiles = -(-padded_rows(rows) // (LANES * size))
    return Layout(words, word_bits, size // UNROLL, tiles, queries)


def _minima(query, database, num_queries, *, layout):
    """Minima of all groups, for all queries.

    Nothing but whole words in the loop over rows: on a CPU, narrower types and inner
    loops made this ten times slower. More than two words a code are read from columns.

    Args:
      query: [B, words], of the layout's words.
      database: [tiles * parts, UNROLL, LANES, words].

    Returns:
      [B, tiles, LANES], of the smallest type that holds a distance.
    """
    bits = 32 // layout.queries
    mask = jnp.uint32(2**bits - 1) if bits < 32 else jnp.uint32(0xFFFFFFFF)
    if layout.words > 2:
        columns = jnp.moveaxis(database, -1, 0)
    else:
        columns = [database[..., w] for w in range(layout.words)]

    def distance(i, row):
        different = (query[i, w] ^ columns[w][:, row] for w in range(layout.words))
        counts = [jax.lax.population_count(x) for x in different]
        return functools.reduce(jnp.add, counts).astype(jnp.uint32)

    def smallest(i):
        if layout.words * UNROLL * layout.queries > UNROLLED:
            different = query[i][:, None, None, None] ^ columns
            counts = jax.lax.population_count(different).sum(axis=0, dtype=jnp.uint32)
            return counts.min(axis=1)
        rows = [distance(i, row) for row in range(UNROLL)]
        return functools.reduce(jnp.minimum, rows)

    def unpacked(runs, lane):
        """The smallest of one byte of every run of a group, [tiles, LANES]."""
        shift = jnp.uint32(bits * lane)
        parts = [(runs[:, part] >> shift) & mask for part in range(layout.parts)]
        return functools.reduce(jnp.minimum, parts).astype(table_type)

    def write(table, runs, i):
        runs = runs.reshape(layout.tiles, layout.parts, LANES)
        for lane in range(layout.queries):
            table = table.at[i * layout.queries + lane].set(unpacked(runs, lane))
        return table

    def one(i, carry):
        # One step late: what is carried is not computed anew for every use of it.
        table = write(*carry, i - 1)
        shared = [
            smallest(i * layout.queries + lane) << jnp.uint32(bits * lane)
            for lane in range(layout.queries)
        ]
        return table, functools.reduce(jnp.bitwise_or, shared)

    table_type = distance_type(layout.code_bits)
    table = jnp.zeros((len(query), layout.tiles, LANES), table_type)
    runs = jnp.zeros((layout.tiles * layout.parts, LANES), jnp.uint32)
    steps = (num_queries + layout.queries - 1) // layout.queries
    start = jnp.int32(0)
    return write(*jax.lax.fori_loop(start, steps, one, (table, runs)), steps - 1)


@functools.lru_cache(maxsize=256)
def compiled_minima(layout: Layout, block: int):
    """`_minima` compiled for one layout and at most `block` queries.

    With the widest vectors of the CPU.
    """
    words = functools.partial(jax.ShapeDtypeStruct, dtype=layout.word_type)
    rows = (layout.tiles * layout.parts, UNROLL, LANES)
    with jax.enable_x64(True):
        lowered = jax.jit(functools.partial(_minima, layout=layout)).lower(
            words((block, layout.words)),
            words((*rows, layout.words)),
            jax.ShapeDtypeStruct((), jnp.int32),
        )
    try:
        return lowered.compile({"xla_cpu_prefer_vector_width": 512})
    except jax.errors.JaxRuntimeError:  # an XLA without this option
        return lowered.compile()


class Chunk(NamedTuple):
    """Consecutive rows of the database, ready to be searched."""

    words: np.ndarray  # rows as the layout's words, with the padding
    rows: int  # n
    groups: int  # that hold a row
    device: jax.Array  # [tiles * parts, UNROLL, LANES, words]
    layout: Layout
    start: int  # first row


def _aligned(rows: int, words: int) -> np.ndarray:
    """An empty uint32 array at an address that JAX takes over without a copy."""
    size = rows * words
    memory = np.empty(size + ALIGNMENT // 4, np.uint32)
    skipped = -memory.ctypes.data % ALIGNMENT // 4
    return memory[skipped : skipped + size].reshape(rows, words)


def make_chunk(codes: np.ndarray, start: int, layout: Layout) -> Chunk:
    """Rows [n, Wd] on the device: as they lie where they fill it, else a copy."""
    rows = len(codes)
    size = layout.tiles * layout.tile_rows
    whole = rows // layout.tile_rows * layout.tile_rows
    rest = rows - whole
    as_they_lie = codes.flags.c_contiguous and codes.ctypes.data % ALIGNMENT == 0
    if rows == size and as_they_lie:
        codes.ravel()[::PAGE].max()  # read from the disk here, ahead of the search
        padded = codes
    else:
        padded = _aligned(size, codes.shape[1])
        padded[:rows] = codes
    if rest:  # a group repeats its last row: padding must not be nearer than a row
        place = np.arange(rest, layout.tile_rows)
        last = place - LANES * ((place - rest) // LANES + 1)
        padded[rows : whole + layout.tile_rows] = padded[whole + np.maximum(last, 0)]
        padded[whole + layout.tile_rows :] = 0
    elif rows < size:
        padded[rows:] = 0
    groups = whole // layout.group_rows + min(rest, LANES)
    shape = (layout.tiles * layout.parts, UNROLL, LANES, layout.words)
    words = padded.view(layout.word_type)
    with jax.enable_x64(True):
        device = jax.device_put(words.reshape(shape))
    return Chunk(words, rows, groups, device, layout, start)


def _group_minima(query, chunk: Chunk) -> np.ndarray:
    """Minima [B, groups] of a block of queries."""
    layout = chunk.layout
    block = next(size for size in QUERY_BLOCKS if size >= len(query))
    padded = np.zeros((block, layout.words), layout.word_type)
    padded[: len(query)] = np.ascontiguousarray(query).view(layout.word_type)
    count = np.int32(len(query))
    with jax.enable_x64(True):
        minima = compiled_minima(layout, block)(padded, chunk.device, count)
    minima = np.asarray(minima)
    return minima.reshape(block, -1)[: len(query), : chunk.groups]


def _kth_smallest(minima, k, largest):
    """The k-th smallest of every row [B, G], and how many are smaller."""
    rows, bins = len(minima), largest + 2
    keys = minima + np.arange(rows)[:, None] * bins
    counts = np.bincount(keys.ravel(), minlength=rows * bins).reshape(rows, bins)
    inside = np.cumsum(counts, axis=1)
    radius = (inside < k).sum(axis=1)
    return radius, (inside - counts)[np.arange(rows), radius]


def _near(query, chunk: Chunk, which, group, limit):
    """Rows of groups within the limit of their query: (which query, distance, row)."""
    size = chunk.layout.group_rows
    table = chunk.words.reshape(chunk.layout.tiles, size, LANES, -1)
    words = np.ascontiguousarray(query).view(chunk.words.dtype)[which]
    distance = np.zeros((len(group), size), limit.dtype)
    for w in range(words.shape[1]):
        column = table[group // LANES, :, group % LANES, w]  # [M, group_rows]
        distance += np.bitwise_count(column ^ words[:, w, None])
    near = np.flatnonzero(distance <= limit[which, None])
    found = group[near // size]
    row = found // LANES * chunk.layout.tile_rows + found % LANES + near % size * LANES
    near, row = near[row < chunk.rows], row[row < chunk.rows]
    return which[near // size], distance.ravel()[near].astype(np.int64), row


def candidates(query, chunk: Chunk, k: int, worst: np.ndarray):
    """Rows of a chunk that may be among the k nearest of a block of queries.

    Args:
      query: uint32 [B, Wd].
      chunk: at least one row.
      k: how many are wanted.
      worst: int64 [B], only rows nearer than this count.

    Returns:
      (which query, distance, row), int64 each, sorted by query, then by row.
    """
    minima = _group_minima(query, chunk)
    largest = chunk.layout.code_bits
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
    which, group = np.divmod(np.flatnonzero(inside), inside.shape[1])
    if spare is not None and len(which) > k * len(query):
        # A tile at the radius is needed unless those before it hold enough groups.
        at_radius = minima[which, group] == radius[which]
        before = np.cumsum(at_radius) - at_radius
        tile = which * chunk.layout.tiles + group // LANES
        earlier = before[np.searchsorted(tile, tile)]
        earlier -= before[np.searchsorted(which, which)]
        keep = ~at_radius | (earlier < spare[which])
        which, group = which[keep], group[keep]
    step = max(1, PIECE // chunk.layout.group_rows)
    pieces = [
        _near(query, chunk, which[i : i + step], group[i : i + step], limit)
        for i in range(0, max(len(which), 1), step)
    ]
    which, distance, row = (np.concatenate(x) for x in zip(*pieces, strict=True))
    order = np.argsort(which * chunk.rows + row)
    return which[order], distance[order], row[order]
