"""3x3 max pooling with stride 2, and a gradient that is not slow on CPU.

XLA's CPU backend scatters the gradient of `reduce_window` window by window, one value
at a time. Here every output position names the winner of its window, and the input's
four phases (even or odd row and column) collect from one, two or four of them
(`benchmarks/cpu_rules.py`). Other platforms keep the native gradient.
"""

import itertools

import jax
import jax.numpy as jnp
from jax import lax

from modal_aware_jax.backbones.taps import tap

WINDOW, STRIDES, PADDING = (3, 3), (2, 2), ((1, 1), (1, 1))
# (element of the window, windows away) that an even and an odd input position meet.
MEETS = [(1, 0)], [(2, 0), (0, 1)]


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
        (1, *WINDOW, 1),
        (1, *STRIDES, 1),
        ((0, 0), *PADDING, (0, 0)),
    )


_max_pool = jax.custom_vjp(_native)


def _forward(x):
    y = _native(x)
    return y, (x, y)


def _backward(residuals, g):
    return (
        lax.platform_dependent(
            *residuals, g, cpu=_hand_to_winners, default=_native_gradient
        ),
    )


def _native_gradient(x, y, g):
    return jax.vjp(_native, x)[1](g)[0]


def _hand_to_winners(x, y, g):
    offsets = list(itertools.product(*map(range, WINDOW)))
    winner = jnp.full(y.shape, len(offsets), jnp.int8)
    for k, offset in reversed(list(enumerate(offsets))):  # the first is written last
        seen = tap(x, offset, WINDOW, STRIDES, PADDING, fill=-jnp.inf)
        winner = jnp.where(seen == y, jnp.int8(k), winner)
    winner = lax.optimization_barrier(winner)  # computed once, not in every sum

    def received(k, down, right):
        """What window element k hands over, from windows `down` and `right` of here."""
        won = jnp.where(winner == k, g, 0)
        borders = ((0, 0, 0), (-down, down, 0), (-right, right, 0), (0, 0, 0))
        return lax.pad(won, won.dtype.type(0), borders)

    # Row 2r of the input lies in the middle of window r; row 2r + 1 is the last of
    # window r and the first of window r + 1. The same for columns: four phases.
    phases = [
        [
            sum(
                received(WINDOW[1] * i + j, down, right)
                for i, down in rows
                for j, right in columns
            )
            for columns in MEETS
        ]
        for rows in MEETS
    ]
    rows = jnp.stack([jnp.stack(row, axis=3) for row in phases], axis=2)
    b, h, _, w, _, c = rows.shape  # [B, h, 2, w, 2, C]
    return rows.reshape(b, 2 * h, 2 * w, c)[:, : x.shape[1], : x.shape[2]]


_max_pool.defvjp(_forward, _backward)
