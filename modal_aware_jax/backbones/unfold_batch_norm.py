"""Gives batch norms that were folded into their convolutions real statistics again."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import nnx


class Moments(nnx.Variable):
    """What was measured of a norm's input: kept only while measuring."""


class _Measured(nnx.Module):
    """A norm in evaluation mode that keeps the moments of what it is given."""

    def __init__(self, norm):
        self.norm = norm
        self.count = Moments(jnp.zeros(()))
        self.mean = Moments(jnp.zeros(norm.mean.shape))
        self.var = Moments(jnp.zeros(norm.mean.shape))

    def __call__(self, x, use_running_average=None):
        del use_running_average  # always: the function must not change
        flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
        mean, var, count = flat.mean(0), flat.var(0), len(flat)
        # Two sets' moments joined (Chan, Golub and LeVeque, 1979): nothing cancels.
        share = count / (self.count[...] + count)
        step = mean - self.mean[...]
        spread = (1 - share) * share * step**2
        self.var[...] = (1 - share) * self.var[...] + share * var + spread
        self.mean[...] = self.mean[...] + share * step
        self.count[...] = self.count[...] + count
        return self.norm(x, use_running_average=True)


def unfold_batch_norm(model: nnx.Module, batches: Iterable[jax.Array]) -> None:
    """Measures every batch norm's input once; the model's function stays the same.

    Weights whose norms were folded into the convolutions carry the statistics mean 0
    and variance 1, which no real batch has: in training mode such a network forgets
    all it has learned. Here mean and variance become those measured on `batches`, and
    scale and bias make up for it, so that evaluation mode computes what it did and
    training mode nearly the same:

        scale <- scale sqrt(measured variance + eps) / sqrt(variance + eps)
        bias  <- bias + (measured mean - mean) scale / sqrt(variance + eps)

    Args:
      model: called as `model(images, train=False)`; changed in place.
      batches: arrays of training images [B, H, W, 3], a few hundred images in total,
        prepared as in training. Equal batch sizes compile once.

    >>> from modal_aware_jax.backbones.mobilenet import ConvNorm
    >>> model = ConvNorm(3, 8, 3, rngs=nnx.Rngs(0))
    >>> unfold_batch_norm(model, [jax.random.normal(jax.random.key(0), (2, 8, 8, 3))])
    >>> bool((model.norm.mean[...] != 0).all())
    True
    """
    graphdef, state = nnx.split(_with_measured_norms(nnx.clone(model)))

    @jax.jit
    def measure(state, images):
        copy = nnx.merge(graphdef, state)
        copy(images, train=False)
        return nnx.state(copy)

    empty = True
    for images in batches:
        state, empty = measure(state, jnp.asarray(images)), False
    if empty:
        raise ValueError("unfold_batch_norm: got no batches; give it training images.")
    measured = _of_type(nnx.merge(graphdef, state), _Measured)
    for norm, moments in zip(_of_type(model, nnx.BatchNorm), measured, strict=True):
        _rewrite(norm, moments.mean[...], moments.var[...])


def _rewrite(norm, mean, var):
    factor = norm.scale[...] * jax.lax.rsqrt(norm.var[...] + norm.epsilon)
    norm.bias[...] = norm.bias[...] + (mean - norm.mean[...]) * factor
    norm.scale[...] = factor * jnp.sqrt(var + norm.epsilon)
    norm.mean[...], norm.var[...] = mean, var


def _of_type(model, kind):
    return [m for _, m in nnx.iter_modules(model) if isinstance(m, kind)]


def _with_measured_norms(model):
    for _, module in list(nnx.iter_modules(model)):
        for name, child in list(vars(module).items()):
            if isinstance(child, nnx.BatchNorm) and not isinstance(module, _Measured):
                setattr(module, name, _Measured(child))
    return model
