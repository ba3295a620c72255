"""All devices of a run as one mesh, and what lies where on it.

The mesh has two axes. Batches are split over `data`; parameters are copied to every
device, except that `tensor_parallel` devices may share the wide weights of the text
(T = 8,192 in the papers), split along T over the axis `tensor`. The compiler adds the
communication: losses see the codes of the global batch, batch norms its statistics.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from modal_aware_jax.training.update import TrainState

DATA, TENSOR = "data", "tensor"


def device_mesh(tensor_parallel: int = 1) -> Mesh:
    """All devices of all processes: [devices / N, N] for N = tensor_parallel.

    The devices of a process are neighbours, so that its share of a batch is one block
    of rows, and N of them never span two processes.

    >>> dict(device_mesh().shape)["tensor"]
    1
    """
    local, total = jax.local_device_count(), jax.device_count()
    if local * jax.process_count() != total:
        raise ValueError(
            f"device_mesh: this process has {local} devices, all {jax.process_count()} "
            f"together {total}. Expected the same number in each."
        )
    if tensor_parallel < 1 or local % tensor_parallel:
        fits = [n for n in range(1, local + 1) if local % n == 0]
        raise ValueError(
            f"config.training.tensor_parallel is {tensor_parallel}, but a process has "
            f"{local} devices, and that many of them must share a weight. What divides "
            f"them: {', '.join(map(str, fits))}."
        )
    devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    grid = np.array(devices).reshape(-1, tensor_parallel)
    return Mesh(grid, (DATA, TENSOR), axis_types=(AxisType.Auto,) * 2)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises a ValueError unless the mesh's data axis divides the batch."""
    parts = mesh.shape[DATA]
    if batch_size % parts == 0:
        return
    below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
    sizes = " or ".join(str(size) for size in (below, above) if size)
    fits = [n for n in range(1, parts) if batch_size % n == 0]
    raise ValueError(
        f"A batch of {batch_size} cannot be split over {parts} devices. Set "
        f"--config.training.batch_size={sizes}, or use {', '.join(map(str, fits))} "
        f"devices for batches of {batch_size}."
    )


def share() -> tuple[int, int]:
    """The part of every batch that this process reads: (its number, their number)."""
    return jax.process_index(), jax.process_count()


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    """The first axis split over the data axis of the mesh."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def put_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
    """This process's rows of a batch, B / processes each -> global arrays [B, ...]."""
    rows = by_rows(mesh)

    def one(x):
        return jax.make_array_from_process_local_data(rows, np.asarray(x))

    return jax.tree.map(one, batch)


def put(tree: Any, shardings: Any) -> Any:
    """Puts a tree that every process holds in full on the mesh.

    Args:
      tree: of arrays, equal in all processes.
      shardings: a sharding, or a tree of them of the same structure.
    """
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)

    def one(x, sharding):
        if isinstance(x, jax.Array) and x.sharding == sharding:
            return x
        if jax.process_count() == 1:
            return jax.device_put(x, sharding)
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])

    return jax.tree.map(one, tree, shardings)


def key_of(seed: int, mesh: Mesh) -> jax.Array:
    """A random key that every device holds."""
    make = jax.jit(jax.random.key, static_argnums=0, out_shardings=replicated(mesh))
    return make(seed)


def state_shardings(state: TrainState, mesh: Mesh, wide_features: int) -> TrainState:
    """Where each array of a training state lies.

    Args:
      state: of the arrays, or of their shapes.
      mesh: of `device_mesh`.
      wide_features: T of the wide text vector. In the text branch and in block 1 the
        arrays with an axis of this length are split along it, the last one where there
        are two, and so is what the optimiser keeps for them.
    """
    parts = mesh.shape[TENSOR]
    if wide_features % parts:
        raise ValueError(
            f"config.training.tensor_parallel={parts} does not divide the wide text "
            f"vector of {wide_features} features (config.model.text_widths)."
        )

    def where(path, leaf):
        names = {getattr(key, "key", None) for key in path}
        axes = [axis for axis, size in enumerate(leaf.shape) if size == wide_features]
        if parts == 1 or not names & {"text", "block1"} or not axes:
            return replicated(mesh)
        spec = [None] * len(leaf.shape)
        spec[axes[-1]] = TENSOR
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map_with_path(where, state)
