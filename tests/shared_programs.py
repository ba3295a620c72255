"""Fewer programs to compile: random arrays of many shapes share them, workers too."""

import functools
import inspect
import math
import os

import jax
import numpy as np
from jax._src import lru_cache

LENGTHS = (256, 4096, 65536)


def share(name: str) -> None:
    """Lets `jax.random.NAME`, called outside of jit, draw a row and cut it to shape.

    JAX counts the elements of an array to make each from the key (partitionable
    threefry), whatever its shape: the first n of a longer row are those of n alone.
    """
    draw = getattr(jax.random, name)
    if hasattr(draw, "__wrapped__"):
        return
    signature = inspect.signature(draw)

    @functools.wraps(draw)
    def shared(*args, **options):
        given = signature.bind(*args, **options)
        given.apply_defaults()
        size = _size(given.arguments)
        length = next((length for length in LENGTHS if length >= size), 0)
        if not size or not length:
            return draw(*args, **options)
        shape = given.arguments["shape"]
        given.arguments["shape"] = (length,)
        row = np.asarray(draw(*given.args, **given.kwargs))
        return jax.numpy.asarray(row[:size].reshape(shape))

    for module in (jax.random, jax._src.random):
        setattr(module, name, shared)


def _size(arguments):
    """How many numbers are asked for; 0 where it takes a program of its own."""
    key, shape = arguments["key"], arguments["shape"]
    bounds = [arguments[n] for n in arguments if n in _BOUNDS]
    plain = (
        isinstance(shape, tuple)
        and all(isinstance(side, int) for side in shape)
        and all(isinstance(bound, int | float) for bound in bounds)
        and arguments.get("out_sharding") is None
        and not isinstance(key, jax.core.Tracer)
        and np.ndim(key) == 0
        and jax.dtypes.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key)
    )
    return math.prod(shape) if plain else 0


_BOUNDS = ("lower", "upper", "minval", "maxval")


def write_entries_at_once() -> None:
    """Lets JAX's cache of programs have whole entries only, as other workers read it.

    JAX writes an entry in place: a reader may see half of it, or what a killed writer
    left, and warns.
    """

    def put(cache, key, value):
        path = cache.path / f"{key}{lru_cache._CACHE_SUFFIX}"
        part = path.with_name(f"{key}-part-{os.getpid()}")
        if not path.exists():
            part.write_bytes(value)
            part.replace(path)

    lru_cache.LRUCache.put = put
