"""The dtype a network computes in; its parameters stay float32.

In bfloat16, matrix products and convolutions read and write half as many bytes and run
on an accelerator's matrix units. What a small error would spoil stays float32: the
parameters and their optimiser, batch statistics, the hash head and the label head, and
with the relaxed bits all distances and losses.
"""

import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.experiment.lookup import choose

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}
EXACT = ("head", "label_head")


def compute_in(network: nnx.Module, dtype: str) -> nnx.Module:
    """Sets the dtype of a network's layers, in place: 'float32' or 'bfloat16'.

    Args:
      network: with its heads named as in `models/`.
      dtype: its name.

    Returns:
      The network.

    Example:
      >>> layers = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> compute_in(layers, "bfloat16")(jnp.ones((1, 2))).dtype
      dtype(bfloat16)
    """
    chosen = choose("config.model.dtype", DTYPES, dtype)
    if chosen is None:
        return network
    for path, layer in nnx.iter_modules(network):
        if hasattr(layer, "dtype") and not (path and path[0] in EXACT):
            layer.dtype = chosen
    return network
