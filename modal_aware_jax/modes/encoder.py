"""Encoding pairs of an experiment: one jitted forward pass for every mode."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from modal_aware_jax.build import Experiment
from modal_aware_jax.data import pipeline
from modal_aware_jax.data.degraded import degraded_pictures
from modal_aware_jax.hashing.encode import encode, relax
from modal_aware_jax.training import devices
from modal_aware_jax.training.cache import frozen_maps
from modal_aware_jax.training.frozen_means import frozen_means
from modal_aware_jax.training.progress import ProgressBar


class Encoder:
    """Encodes pairs by their positions; compiled once, for any weights of the model.

    A batch is split over all devices, and over all processes, each of which reads its
    rows; every process gets all codes.

    Args:
      experiment: as built from the config.
      maps: cached maps [N, 2, h, w, C] of the frozen lower half, or None.
    """

    def __init__(self, experiment: Experiment, maps: np.ndarray | None = None):
        self.experiment = experiment
        self.maps = maps
        self.mesh = devices.device_mesh(experiment.tensor_parallel)
        devices.check_batch_size(experiment.batch_size, self.mesh)
        graphdef, _ = nnx.split(experiment.model)

        @functools.partial(jax.jit, out_shardings=devices.replicated(self.mesh))
        def output(variables, batch):
            return experiment.output(nnx.merge(graphdef, *variables), batch)

        self._output = output

    def __call__(self, variables, positions: np.ndarray, *, label=None) -> np.ndarray:
        """Packed codes uint32 [len(positions), Wd], in the order of the positions.

        Args:
          variables: one or several pure dicts that together fill the model.
          positions: in the collection.
          label: of a progress bar; none is shown without.
        """
        return self._run(encode, variables, positions, label)

    def outputs(self, variables, positions: np.ndarray, *, label=None) -> np.ndarray:
        """What the head gives, float32 [len(positions), K]: relaxed bits, or logits."""
        return self._run(relax, variables, positions, label)

    def _run(self, collect, variables, positions, label):
        positions = np.asarray(positions)
        variables = devices.put(variables, _shardings(variables, self.mesh))

        def output(batch):
            read = ("image", "text", *pipeline.PRESENCE)
            arrays = {name: batch[name] for name in read if name in batch}
            return self._output(variables, devices.put_batch(arrays, self.mesh))

        batches = self._batches(positions)
        if label is None:
            return collect(output, batches)[0]
        with ProgressBar(len(positions), label=label) as bar:
            return collect(output, batches, progress=bar.advance)[0]

    def _batches(self, positions):
        """This process's rows of the batches, with the positions of all rows."""
        options = {"batch_size": self.experiment.batch_size, "share": devices.share()}
        pairs = self.experiment.collection
        if self.maps is None:
            batches = pipeline.eval_batches(
                pairs,
                positions,
                image_size=self.experiment.image_size,
                workers=self.experiment.workers,
                **options,
            )
        else:
            options["mirrored"] = self.experiment.mirrored
            batches = pipeline.cached_eval_batches(
                self.maps, pairs, positions, **options
            )
        rows = pipeline.padded_positions(positions, self.experiment.batch_size)
        for batch, index in zip(batches, rows, strict=True):
            yield {**batch, "index": index, "mask": index >= 0}


def _shardings(variables, mesh):
    """Arrays that lie on the mesh stay where they are; a copy of the others on each."""

    def one(x):
        if isinstance(x, jax.Array) and getattr(x.sharding, "mesh", None) == mesh:
            return x.sharding
        return devices.replicated(mesh)

    return jax.tree.map(one, variables)


def variables_of(model: nnx.Module) -> tuple[dict]:
    """All variables of a model as one pure dict, as an `Encoder` takes them."""
    return (nnx.to_pure_dict(nnx.state(model)),)


def output_of(experiment: Experiment) -> Callable:
    """A batch to what the task reads of it, jitted, with the weights of now."""
    graphdef, state = nnx.split(experiment.model)

    @jax.jit
    def output(state, batch):
        return experiment.output(nnx.merge(graphdef, state), batch)

    return functools.partial(output, state)


def lower_maps(experiment: Experiment) -> np.ndarray | None:
    """The maps of the frozen lower half, from disk where they were computed before.

    None where the batches hold images. Text alone reads none: one zero stands for each.
    Where the network reads no more of a frozen backbone, its last maps or their means.
    """
    if not hasattr(experiment.model, "backbone"):
        return np.broadcast_to(np.float16(0), (len(experiment.collection), 2, 1, 1, 1))
    if not experiment.cached_maps:
        return None
    return _maps_of(experiment, experiment.collection)


def degraded_maps(experiment: Experiment) -> np.ndarray | None:
    """The same of the training pairs' pictures, each degraded once: [n, 2, h, w, C].

    None where no share of them is read so, or from pixels, or nothing is trained.
    """
    reads = hasattr(experiment.model, "backbone") and experiment.cached_maps
    if not (reads and experiment.degraded) or experiment.solve is not None:
        return None
    parts, size = experiment.split, experiment.image_size
    return _maps_of(
        experiment, degraded_pictures(experiment.collection, parts.train, size)
    )


def _maps_of(experiment, pairs):
    lower, weights = lower_half(experiment)
    place = {"path": experiment.cache_dir, "image_size": experiment.image_size}
    maps = frozen_maps(pairs, lower, weights, workers=experiment.workers, **place)
    if experiment.cached_last:
        place |= {"kind": "last", "dtype": np.float16}
    elif not experiment.cached_means:
        return maps
    last, weights = upper_half(experiment)
    return frozen_means(maps, last, weights, collection=pairs, **place)


def lower_half(experiment: Experiment) -> tuple[Callable, dict]:
    """The backbone's lower half with the weights that the model has now.

    Returns:
      uint8 images [B, S, S, 3] -> maps [B, h, w, C], jitted; and the half's own
      weights as a pure dict, which tell one half from another.
    """
    graphdef, state = nnx.split(experiment.model)

    @jax.jit
    def lower(state, images):
        backbone = nnx.merge(graphdef, state).backbone
        return backbone.lower(experiment.normalize(images), train=False)

    # The rest trains on: the maps must not seem to depend on it.
    weights, _ = nnx.split_state(state, lambda path, _: experiment.is_lower(path), ...)
    return functools.partial(lower, state), nnx.to_pure_dict(weights)


def upper_half(experiment: Experiment) -> tuple[Callable, dict]:
    """The backbone's upper half and, where the network reads means, these.

    Returns:
      maps [B, h, w, C] -> last maps [B, h', w', D] or means [B, 1, 1, D], jitted; and
      the weights of the whole backbone as a pure dict.
    """
    graphdef, state = nnx.split(experiment.model.backbone)

    @jax.jit
    def last(state, maps):
        backbone = nnx.merge(graphdef, state)
        last = backbone.upper(maps.astype(np.float32), train=False)
        if experiment.cached_last:
            return last
        return last.mean(axis=(1, 2), keepdims=True)

    return functools.partial(last, state), nnx.to_pure_dict(state)
