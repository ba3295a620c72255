"""A network that reads a batch a few images at a time.

The first maps of a convolutional network are many times as large as its images: those
of 64 images of 160 pixels have 157 MB in MobileNetV2, and go to memory and back between
any two layers. Of a few images they stay in the processor's cache. For inference only:
a batch norm that reads the moments of its batch needs all of it.
"""

import math
import os

import jax
import jax.numpy as jnp
from jax import lax

from modal_aware_jax.cpu.chunks import in_chunks

NUMBERS = 2**19  # of the images that a core reads at a time, 2 MiB of float32


def in_turn(network, images: jax.Array) -> jax.Array:
    """`network(images)`, on CPU a few images at a time.

    Other platforms read the whole batch at once, and so does an exported network, whose
    batch may be any.

    Args:
      network: maps images [n, H, W, C] of any number n to an array [n, ...], each
        image by itself.
      images: [B, H, W, C].

    Returns:
      Array [B, ...].

    >>> in_turn(lambda images: images.mean((1, 2)), jnp.ones((64, 160, 160, 3))).shape
    (64, 3)
    """
    if not isinstance(images.shape[0], int):
        return network(images)
    size, numbers = math.prod(images.shape[1:]), NUMBERS * num_cores()
    (parts,) = in_chunks(size, images, numbers=numbers)  # [n, turns, H, W, C]
    if parts.shape[1] == 1:
        return network(images)

    def turns(images, parts):
        out = lax.map(network, jnp.moveaxis(parts, 1, 0))
        return jnp.moveaxis(out, 0, 1).reshape(len(images), *out.shape[2:])

    return lax.platform_dependent(
        images, parts, cpu=turns, default=lambda images, parts: network(images)
    )


def num_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
