"""A whole collection to packed codes and ids, in one `.npz` file."""

import os
import pathlib

import numpy as np

from modal_aware_jax.build import Experiment
from modal_aware_jax.modes.encoder import Encoder, lower_maps, variables_of
from modal_aware_jax.modes.evaluate import load_run


def encode_collection(
    experiment: Experiment, workdir: pathlib.Path, *, output: pathlib.Path | None = None
) -> pathlib.Path:
    """Encodes every pair of the experiment's collection with a run's checkpoint.

    The file holds `codes` uint32 [N, Wd], `ids` [N], `labels` [N, L], `num_bits`; it
    appears complete or not at all.

    Args:
      experiment: built from the config the run was trained with.
      workdir: the run's directory.
      output: the file to write; `encoded.npz` in the workdir by default.

    Returns:
      The path of the file.
    """
    load_run(experiment, workdir)
    pairs = experiment.collection
    encoder = Encoder(experiment, lower_maps(experiment))
    variables = variables_of(experiment.model)
    codes = encoder(variables, np.arange(len(pairs)), label="encode")
    output = output or workdir / "encoded.npz"
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial.npz")
    np.savez_compressed(
        partial,
        codes=codes,
        ids=pairs.ids,
        labels=pairs.labels,
        num_bits=experiment.num_bits,
    )
    partial.replace(output)
    return output
