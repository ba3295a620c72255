"""A picture and its mirror image, read as one."""

from collections.abc import Callable

import jax
from flax import nnx


def reads_mirrored(config, network: nnx.Module) -> bool:
    """Whether a run's pictures are encoded mirrored too: `data.mirrored` says so.

    A network without a backbone reads none.
    """
    return bool(config.data.get("mirrored", False)) and hasattr(network, "backbone")


def mean_with_mirror(output: Callable, cached_maps: bool) -> Callable:
    """`output(model, batch)` as the mean over pictures as they are and mirrored.

    Training draws either at random; in evaluation both are read, and what the head
    gives is averaged: relaxed bits before their sign, embeddings, logits. Encoding
    costs twice as much where maps are not cached. A second score of pairs, and the
    graph that is drawn, read the picture as it is.

    Args:
      output: of one reading, to an array.
      cached_maps: whether a batch's `image` holds maps [B, 2, h, w, C] of both, as
        `training.cache` keeps them; otherwise images [B, H, W, 3], mirrored here.

    Example:
      >>> import jax.numpy as jnp
      >>> first = lambda model, batch: batch["image"][:, 0, 0]
      >>> images = jnp.array([[[[1.0], [5.0]]]])
      >>> mean_with_mirror(first, False)(None, {"image": images}).tolist()
      [[3.0]]
    """

    def both(model, batch) -> jax.Array:
        image = batch["image"]
        if cached_maps:
            plain, mirrored = image[:, 0], image[:, 1]
        else:
            plain, mirrored = image, image[:, :, ::-1]
        one, other = (
            output(model, {**batch, "image": side}) for side in (plain, mirrored)
        )
        return (one + other) / 2

    return both
