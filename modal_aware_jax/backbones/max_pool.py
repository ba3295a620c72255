"""3x3 max pooling with stride 2, and a gradient that is not slow on CPU.

XLA's CPU backend scatters the gradient of `reduce_window` window by window, one value
at a time. Here the maximum is taken along the rows first and then along the columns,
each naming the winner of its three; the gradient goes the same way back, and every
step is a sum of shifted maps (`benchmarks/cpu_rules.py`). Other platforms keep the
native gradient.
"""

import jax
import jax.numpy as jnp
from jax import lax

ROWS, COLUMNS = 1, 2  # axes of [B, H, W, C]


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
    row_max, column = lax.optimization_barrier(_largest_of_three(x, COLUMNS))
    _, row = _largest_of_three(row_max, ROWS)
    g = _hand_back(lax.optimization_barrier(row), g, ROWS, x.shape[ROWS])
    return _hand_back(column, g, COLUMNS, x.shape[COLUMNS])


def _largest_of_three(x, axis):
    """Maximum and winner (0, 1 or 2, the first of equals) of windows along an axis."""
    size, low = x.shape[axis], x.dtype.type(-jnp.inf)
    last = (size + 1) // 2 * 2 - 2  # where the last window has its middle

    def met(k):
        """What element k of each window is: x shifted by 1 - k, every other one."""
        borders = [(0, 0, 0)] * x.ndim
        borders[axis] = (1 - k, last + k - size, 0)
        return lax.slice_in_dim(lax.pad(x, low, borders), 0, None, 2, axis)

    best = met(0)
    winner = jnp.zeros(best.shape, jnp.int8)
    for k in (1, 2):
        other = met(k)
        winner = jnp.where(other > best, jnp.int8(k), winner)
        best = jnp.maximum(other, best)
    return best, winner


def _hand_back(winner, g, axis, size):
    """The gradient of windows' maxima along an axis, at the axis's `size` positions.

    Position 2r is the middle of window r; position 2r + 1 is its last, and the first of
    window r + 1.
    """

    def received(k, away):
        """What element k hands over, from the window `away` windows further on."""
        won = jnp.where(winner == k, g, 0)
        borders = [(0, 0, 0)] * g.ndim
        borders[axis] = (-away, away, 0)
        return lax.pad(won, won.dtype.type(0), borders)

    even, odd = received(1, 0), received(2, 0) + received(0, 1)
    both = jnp.stack([even, odd], axis + 1)
    joined = both.reshape(*g.shape[:axis], -1, *g.shape[axis + 1 :])
    return lax.slice_in_dim(joined, 0, size, 1, axis)


_max_pool.defvjp(_forward, _backward)
