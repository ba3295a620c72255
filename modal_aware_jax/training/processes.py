"""Several processes, commonly one a host, that train one model together.

Each runs the same command. They must see the same data and the same working directory
(a shared file system); what one of them meets, a signal or a file that is gone, all of
them hear of at the same step.
"""

import functools
import json
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from modal_aware_jax.training import errors


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes; call it before anything else uses a device.

    Args:
        coordinator: address and port of process 0, `host:1234`. None: what SLURM, GKE,
            Open MPI or a TPU pod says in the environment.
        num_processes, process_id: None, or both with a coordinator.
    """
    # JAX would take SIGTERM for itself, and a process between two runs never leave.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    given = (coordinator, num_processes, process_id)
    if any(value is None for value in given) and given != (None, None, None):
        raise ValueError(
            "--coordinator, --num_processes and --process_id belong together; got "
            f"{coordinator}, {num_processes} and {process_id}. Give all three, or only "
            "--distributed where SLURM, GKE, Open MPI or a TPU pod knows them."
        )
    try:
        jax.distributed.initialize(*given)
        # Some transports wait 30 seconds for the first common operation, and reading
        # the data may take one process longer than another.
        multihost_utils.sync_global_devices("start")
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"The processes could not find each other: {error} Start the same command "
            "on every host, with --coordinator=HOST:PORT of the first, --num_processes "
            "and --process_id; or --distributed alone where the environment is SLURM, "
            "GKE, Open MPI or a TPU pod."
        ) from error


def is_first() -> bool:
    """Whether this process writes what is written once, and prints."""
    return jax.process_index() == 0


def agree(value: Any) -> Any:
    """The first process's value, JSON, in all of them; waits for all."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = np.zeros(size, np.uint8)
    if is_first():
        buffer[:] = text
    shared = np.asarray(multihost_utils.broadcast_one_to_all(buffer))
    return json.loads(shared.astype(np.uint8).tobytes())


def only_first(do: Callable[[], Any]) -> Any:
    """What `do` returns, JSON, called in the first process alone.

    Where it raises a `RunError` there, the others raise the same.
    """
    outcome, failure = None, None
    if is_first():
        try:
            outcome = do()
        except errors.RunError as error:
            failure = error
    told = agree({"outcome": outcome, "error": failure and _described(failure)})
    if failure is not None:
        raise failure
    if told["error"]:
        name, message = told["error"]
        raise getattr(errors, name)(message)
    return told["outcome"]


def _described(error):
    return [type(error).__name__, str(error)]


def all_rows(rows: np.ndarray) -> np.ndarray:
    """The rows [n, ...] of every process, one process after the other."""
    if jax.process_count() == 1:
        return rows
    counts = multihost_utils.process_allgather(np.int32(len(rows)))
    width = rows.itemsize * math.prod(rows.shape[1:])
    padded = np.zeros((counts.max(), width), np.uint8)  # JAX would halve a float64
    padded[: len(rows)] = np.ascontiguousarray(rows).view(np.uint8).reshape(-1, width)
    gathered = multihost_utils.process_allgather(padded)
    joined = np.concatenate([g[:n] for g, n in zip(gathered, counts, strict=True)])
    return joined.view(rows.dtype).reshape(-1, *rows.shape[1:])


def highest(number: int) -> jax.Array:
    """The highest of all processes' numbers; returns at once, like a training step."""
    everywhere, compute = _voting()
    votes = np.full(jax.local_device_count(), number, np.int32)
    vote = compute(jax.make_array_from_process_local_data(everywhere, votes))
    vote.copy_to_host_async()
    return vote


@functools.cache
def _voting():
    mesh = Mesh(np.array(jax.devices()), ("all",), axis_types=(AxisType.Auto,))
    result = NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec("all")), jax.jit(
        jnp.max, out_shardings=result
    )
