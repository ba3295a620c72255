"""Exact Hamming search over a database that is split over a device mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from modal_aware_jax.retrieval.inputs import check_codes
from modal_aware_jax.retrieval.ranking import padded_rows
from modal_aware_jax.retrieval.top_k import check_k, nearest_on_device


def shard_codes(packed, mesh) -> tuple[jax.Array, int]:
    """Splits codes [N, Wd] evenly over a mesh of one axis: (array, rows a device).

    Each device holds consecutive rows; the last ones are padded.
    """
    packed = np.asarray(packed)
    axes = getattr(mesh, "axis_names", None)
    if axes is None or len(axes) != 1:
        raise ValueError(
            f"shard_codes: expected a mesh of one axis, got {axes or mesh!r}."
        )
    rows = padded_rows(-(-len(packed) // mesh.size))
    codes = np.zeros((rows * mesh.size, packed.shape[1]), np.uint32)
    codes[: len(packed)] = packed
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
    return jax.device_put(codes, sharding), rows


@functools.partial(jax.jit, static_argnames=("k", "mesh"))
def _search(query, codes, num_database, *, k, mesh):
    axis = mesh.axis_names[0]

    def local(query, codes, num_database):
        rows = codes.shape[0]
        start = jax.lax.axis_index(axis) * rows
        real = jnp.clip(num_database - start, 0, rows)
        distance, row = nearest_on_device(query, codes, real, min(k, rows))
        distance = jax.lax.all_gather(distance, axis, axis=1, tiled=True)
        row = jax.lax.all_gather(row + start, axis, axis=1, tiled=True)
        # Devices stand in row order, and top_k keeps the first of equal distances.
        negative, place = jax.lax.top_k(-distance.astype(jnp.float32), k)
        return -negative.astype(jnp.int32), jnp.take_along_axis(row, place, axis=1)

    whole = PartitionSpec()
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(whole, PartitionSpec(axis), whole),
        out_specs=(whole, whole),
        check_vma=False,
    )(query, codes, num_database)


def search_sharded(query, database, k: int, mesh) -> tuple[np.ndarray, np.ndarray]:
    """`search` with the database split over the devices of a mesh: the same answer.

    >>> mesh = jax.make_mesh((1,), ("rows",))
    >>> code = np.array([[0], [1], [3], [1]], np.uint32)
    >>> search_sharded(code[:1], code, 3, mesh)[1].tolist()
    [[0, 1, 3]]

    Args:
      query: uint32 [Q, Wd].
      database: uint32 [N, Wd].
      k: how many rows; clipped to N.
      mesh: a `jax.sharding.Mesh` of one axis.

    Returns:
      (distances int32 [Q, k], rows int64 [Q, k]).
    """
    query, database = check_codes("search_sharded", query, database)
    k = check_k("search_sharded", k, len(database))
    codes, _ = shard_codes(database, mesh)
    distance, row = _search(query, codes, np.int32(len(database)), k=k, mesh=mesh)
    return np.asarray(distance), np.asarray(row).astype(np.int64)
