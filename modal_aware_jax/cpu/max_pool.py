"""3x3 max pooling with stride 2, and a gradient that is not slow on CPU.

XLA's CPU backend scatters the gradient of `reduce_window` window by window, one value
at a time. Here the maximum is taken along the rows first and then along the columns,
each naming the winner of its three; the gradient goes the same way back, and every
step is a sum of shifted maps (`benchmarks/cpu_rules.py`). Other platforms keep the
native gradient.
"""

import itertools

import jax
import jax.numpy as jnp
from jax import lax

from modal_aware_jax.cpu.taps import spread, tap

# Window, strides and padding of the two steps.
ALONG_ROWS = (1, 3), (1, 2), ((0, 0), (1, 1))
ALONG_COLUMNS = (3, 1), (2, 1), ((1, 1), (0, 0))


def max_pool(x: jax.Array) -> jax.Array:
    """The largest of each 3x3 window, one pixel of -inf around the map, stride 2.

    Where values tie, the gradient goes to the first in reading order, as in PyTorch
    and in XLA's own gradient.

    Args:
      x: maps [B, H, W, C].

    Returns:
      Maps [B, h, w, C], h = ceil(H / 2) and w = ceil(W / 2).

    >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> max_pool(x)[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    return _max_pool(x)


def _native(x):
    return lax.reduce_window(
        x,
        x.dtype.type(-jnp.inf),
        lax.max,
        (1, 3, 3, 1),
        (1, 2, 2, 1),
        ((0, 0), (1, 1), (1, 1), (0, 0)),
    )


_max_pool = jax.custom_vjp(_native)


def _forward(x):
    return _native(x), x


def _backward(x, g):
    return (lax.platform_dependent(x, g, cpu=_hand_to_winners, default=_hand_natively),)


def _hand_natively(x, g):
    return jax.vjp(_native, x)[1](g)[0]


def _hand_to_winners(x, g):
    # The winners are found anew, not by equality with the forward maximum: XLA may have
    # computed x twice, rounded otherwise, and where nothing is equal no one gets g.
    row_max, column = lax.optimization_barrier(_largest(x, ALONG_ROWS))
    _, row = _largest(row_max, ALONG_COLUMNS)
    row = lax.optimization_barrier(row)
    g = _hand_back(row, g, row_max.shape, ALONG_COLUMNS)
    return _hand_back(column, g, x.shape, ALONG_ROWS)


def _largest(x, geometry):
    """Maximum and winner (0, 1 or 2, the first of equals) of windows of three."""
    first, *others = _offsets(geometry)
    best = tap(x, first, *geometry, fill=-jnp.inf)
    winner = jnp.zeros(best.shape, jnp.int8)
    for k, offset in enumerate(others, start=1):
        other = tap(x, offset, *geometry, fill=-jnp.inf)
        winner = jnp.where(other > best, jnp.int8(k), winner)
        best = jnp.maximum(other, best)
    return best, winner


def _hand_back(winner, g, shape, geometry):
    """The gradient of such maxima for maps of a shape."""
    _, strides, padding = geometry
    return sum(
        spread(jnp.where(winner == k, g, 0), offset, shape, strides, padding)
        for k, offset in enumerate(_offsets(geometry))
    )


def _offsets(geometry):
    return itertools.product(*map(range, geometry[0]))


_max_pool.defvjp(_forward, _backward)
