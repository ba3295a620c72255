"""Attention, layer norm and dense layers over tokens, one number at a time."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def dense(x, layer):
    """A row of numbers through a layer."""
    kernel = np.asarray(layer.kernel[...], float)
    bias = np.zeros(kernel.shape[1])
    if layer.bias is not None and layer.bias[...] is not None:
        bias = np.asarray(layer.bias[...], float)
    return [
        sum(x[i] * kernel[i, j] for i in range(kernel.shape[0])) + bias[j]
        for j in range(kernel.shape[1])
    ]


def softmax(scores):
    """Of a list of numbers."""
    top = max(scores)
    powers = [math.exp(s - top) for s in scores]
    return [p / sum(powers) for p in powers]


def attention(queries, context, keep, module):
    """One sample's [N, D] asks [M, D], of which `keep` count."""
    features, heads = len(context[0]), module.num_heads
    d = features // heads
    if not any(keep):
        return np.zeros((len(queries), features))
    q = [dense(x, module.query) for x in queries]
    k = [dense(x, module.key) for x in context]
    v = [dense(x, module.value) for x in context]
    rows = []
    for n in range(len(queries)):
        mixed = [0.0] * features
        for h in range(heads):
            part = range(h * d, (h + 1) * d)
            kept = [m for m in range(len(context)) if keep[m]]
            scores = [sum(q[n][i] * k[m][i] for i in part) / d**0.5 for m in kept]
            for weight, m in zip(softmax(scores), kept, strict=True):
                for i in part:
                    mixed[i] += weight * v[m][i]
        rows.append(dense(mixed, module.out))
    return np.array(rows)


def layer_norm(x, module):
    """Of each row of [N, D]."""
    scale, bias = np.asarray(module.scale[...]), np.asarray(module.bias[...])
    rows = []
    for row in np.asarray(x):
        mean = sum(row) / len(row)
        variance = sum((r - mean) ** 2 for r in row) / len(row)
        rows.append([(r - mean) / math.sqrt(variance + 1e-6) for r in row])
    return np.array(rows) * scale + bias


def mean_of(tokens, keep):
    """Of the rows of [N, D] that count."""
    kept = [t for t, k in zip(tokens, keep, strict=True) if k]
    return np.sum(kept, axis=0) / len(kept) if kept else np.zeros(len(tokens[0]))


def feed_forward(x, inner, outer, guide=None, alike=None):
    """ReLU(x W_1 + y W_3 + b_1) W_2 + b_2 of each row."""
    rows = []
    for n, row in enumerate(x):
        hidden = dense(row, inner)
        if guide is not None:
            hidden = [
                a + b for a, b in zip(hidden, dense(alike[n], guide), strict=True)
            ]
        rows.append(dense([max(0.0, h) for h in hidden], outer))
    return np.array(rows)


def randomised(make, seed=0):
    """The module of `make()` with every parameter drawn, so that none is trivial.

    Its own initialisation is only traced, as compiling it would take seconds.
    """
    rng = np.random.default_rng(seed)
    graphdef, state = nnx.split(nnx.eval_shape(make))
    state = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), x.dtype),
        nnx.to_pure_dict(state),
    )
    return nnx.merge(graphdef, state)


# Small programs that run once: half the time to compile them, the same numbers.
_compiled = functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)


def run(module, *arrays, **arguments):
    """The module on the arrays, compiled once for modules of one structure.

    Results are arrays of NumPy: to compare them makes no further programs.
    """
    graphdef, state = nnx.split(module)
    return jax.device_get(_run(graphdef, nnx.to_pure_dict(state), arrays, arguments))


@_compiled
def _run(graphdef, state, arrays, arguments):
    return nnx.merge(graphdef, state)(*arrays, **arguments)


def gradients(module, *arrays, **arguments):
    """Of the sum of the sines of all results: by parameter and by array."""
    graphdef, state = nnx.split(module)
    state = nnx.to_pure_dict(state)
    return jax.device_get(_gradients(graphdef, state, arrays, arguments))


@_compiled
def _gradients(graphdef, state, arrays, arguments):
    def loss(state, arrays):
        made = nnx.merge(graphdef, state)(*arrays, **arguments)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(made))

    return jax.grad(loss, argnums=(0, 1))(state, arrays)
