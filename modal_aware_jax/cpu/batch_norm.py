"""Batch norm whose training mode reads memory less often on CPU.

Left to autodiff, XLA's CPU backend spends several passes over the maps on the
statistics and their gradients, and sums each channel down the whole batch, out of the
processor's cache. Here two sums share one pass and begin along the rows: three times as
fast on maps larger than the cache, no faster on small ones (`benchmarks/cpu_rules.py`).
Other platforms keep Flax's form.
"""

import functools
import operator

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


class BatchNorm(nnx.BatchNorm):
    """`nnx.BatchNorm` for maps [B, H, W, C]: the same variables and numbers.

    The rule applies in training mode on CPU, without mask and named axis. Unlike
    Flax's variance E[x^2] - E[x]^2 it does not cancel where the mean is large.

    >>> norm = BatchNorm(8, rngs=nnx.Rngs(0))
    >>> norm(jnp.ones((2, 4, 4, 8)), use_running_average=False).shape
    (2, 4, 4, 8)
    """

    def __call__(self, x, use_running_average=None, *, mask=None):
        evaluate = use_running_average
        if evaluate is None:
            evaluate = self.use_running_average
        usual = self.axis == -1 and self.use_scale and self.use_bias
        local = mask is None and self.axis_name is None
        on_cpu = jax.default_backend() == "cpu"
        if evaluate or x.ndim != 4 or not (usual and local and on_cpu):
            return super().__call__(x, use_running_average, mask=mask)
        y, mean, var = batch_norm(x, self.scale[...], self.bias[...], self.epsilon)
        keep = self.momentum
        self.mean[...] = keep * self.mean[...] + (1 - keep) * mean
        self.var[...] = keep * self.var[...] + (1 - keep) * var
        return y.astype(self.dtype or jnp.result_type(x, self.scale[...]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float):
    """scale (x - mean) / sqrt(var + epsilon) + bias, by the batch's own moments.

    Args:
      x: maps [B, H, W, C].
      scale, bias: [C].
      epsilon: keeps the root away from zero.

    Returns:
      The maps [B, H, W, C], at least in float32, their mean [C] and their biased
      variance [C]. The last two are for the running averages: no gradient flows
      through them.

    >>> scale, bias = jnp.ones(3), jnp.zeros(3)
    >>> y, mean, var = batch_norm(jnp.ones((2, 4, 4, 3)), scale, bias, 1e-5)
    >>> mean.tolist(), var.tolist()
    ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, var = _moments(wide)
    inverse = lax.rsqrt(var + epsilon)
    y = (wide - _channels(mean)) * _channels(inverse * scale) + _channels(bias)
    return (y, mean, var), (x, scale, bias, mean, inverse)


def _backward(epsilon, residuals, cotangents):
    x, scale, bias, mean, inverse = residuals
    g, _, _ = cotangents
    centred = x.astype(g.dtype) - _channels(mean)
    sum_g, sum_gx = (s.sum((0, 1)) for s in _row_sums(g, g * centred))
    count = x.size // x.shape[-1]
    # The gradient less what moves mean and variance: those two parts have no effect.
    slope = sum_gx * inverse**2 / count
    dx = g - _channels(sum_g / count) - centred * _channels(slope)
    dx = dx * _channels(inverse * scale)
    return (
        dx.astype(x.dtype),
        (sum_gx * inverse).astype(scale.dtype),
        sum_g.astype(bias.dtype),
    )


batch_norm.defvjp(_forward, _backward)


def _channels(v):
    return v[None, None, None]  # [1, 1, 1, C]


def _row_sums(a, b):
    """Sums of two [B, H, W, C] along W in one pass, [B, H, C] each."""
    zero = a.dtype.type(0)
    return lax.reduce(
        (a, b), (zero, zero), lambda p, q: tuple(map(operator.add, p, q)), (2,)
    )


def _moments(x):
    """Mean and variance [C] of x [B, H, W, C]: those of the rows, joined.

    Distances from each row's first pixel keep the squares small, so that nothing
    cancels where the mean is large, and need no pass of their own.
    """
    first, width = x[:, :, :1], x.shape[2]
    away = x - first
    sums, squares = _row_sums(away, away**2)  # [B, H, C]
    shift = sums / width
    within = squares / width - shift**2
    row_mean = first[:, :, 0] + shift
    mean = row_mean.mean((0, 1), keepdims=True)
    between = (row_mean - mean) ** 2
    var = (within + between).mean((0, 1))
    return mean[0, 0], jnp.maximum(var, 0)
