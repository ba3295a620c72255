"""The inputs spread over actors by Ray Data: this machine's cores, or a cluster's."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from modal_aware_jax.encode_many.inputs import Input
from modal_aware_jax.encode_many.one_input import Reading
from modal_aware_jax.encode_many.worker import Done, Worker

MARGIN = 0.5  # of a core, which Ray's own tasks need beside the actors


class Actors(NamedTuple):
    """How many actors there are, and what each of them holds.

    Attributes:
      count: of actors.
      cpus: cores of each; less than all together, or Ray's own tasks starve.
      gpus: GPUs of each, parts of one, too.
      address: of a running Ray, 'auto' for this machine's; '' starts one here.
    """

    count: int
    cpus: float = 1.0
    gpus: float = 0.0
    address: str = ""


def encode_on_ray(
    sources: Sequence[Input],
    model: pathlib.Path,
    output: str,
    *,
    actors: Actors,
    batch_size: int,
    reading: Reading,
) -> Iterator[Done]:
    """Encodes inputs on actors, each of which loads the model once.

    An actor that dies is started again and its input encoded anew: the output is the
    same, since a part depends on its input alone.

    Args:
      sources: the inputs.
      model: an exported model, at a path that every machine sees.
      output: the folder's address, likewise.
      actors: how many, and of what.
      batch_size, reading: as of `encode_input`.

    Yields:
      How it went, in the order in which inputs end.

    Raises:
      ValueError: Ray is not installed or cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "Several workers need Ray: pip install 'modal-aware-jax[ray]'. With "
            "--workers=0 this process encodes alone."
        ) from error
    _start(ray, actors)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # there is one of our own
    # As JSON, since Arrow takes no name that is not UTF-8.
    rows = [{"source": json.dumps(source)} for source in sources]
    options = dict(batch_size=batch_size, reading=tuple(reading))
    found = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Actor,
        fn_constructor_args=(str(model), output),
        fn_constructor_kwargs=options,
        compute=ray.data.ActorPoolStrategy(
            size=min(actors.count, len(rows)), max_tasks_in_flight_per_actor=1
        ),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus or None,
    )
    for row in found.iter_rows():
        yield Done(*json.loads(row["done"]))


class _Actor:
    """A `Worker` that loads its own model."""

    def __init__(self, model, output, *, batch_size, reading):
        from modal_aware_jax.modes.model_files import load_model_file

        self._worker = Worker(
            load_model_file(pathlib.Path(model)),
            output,
            batch_size=batch_size,
            reading=Reading(*reading),
        )

    def __call__(self, row):
        source = Input(*json.loads(row["source"]))
        return {"done": json.dumps(self._worker(source))}


def _start(ray, actors):
    if ray.is_initialized():
        return
    try:
        if actors.address:
            ray.init(address=actors.address, log_to_driver=False)
        else:
            cores = actors.count * actors.cpus + MARGIN
            ray.init(
                num_cpus=int(-(-cores // 1)),
                num_gpus=int(-(-actors.count * actors.gpus // 1)) or None,
                include_dashboard=False,
                log_to_driver=False,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Ray cannot be reached at {actors.address or 'this machine'} ({error}). "
            "Start it with `ray start --head`, or give another --address."
        ) from error
