"""The rule for rows against the product over the axes as they are."""

import jax
import numpy as np
import pytest
from flax import nnx

from modal_aware_jax.backbones.token_dense import token_dense


@pytest.mark.parametrize("shape", [(6,), (3, 6), (3, 5, 6), (3, 2, 5, 6)])
def test_a_dense_layer_of_tokens_equals_flax_s_own(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    ours = token_dense(6, 4, rngs=nnx.Rngs(1))
    flax_s = nnx.Linear(6, 4, rngs=nnx.Rngs(1))

    def value_and_grads(layer):
        def loss(layer, x):
            y = layer(x)
            return jax.numpy.sum(jax.numpy.sin(y)), y

        (_, y), grads = nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True)(layer, x)
        return y, jax.tree.leaves(grads)

    ours, expected = value_and_grads(ours), value_and_grads(flax_s)
    np.testing.assert_array_equal(ours[0], expected[0])
    for a, b in zip(ours[1], expected[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)


def test_types_are_flax_s():
    layer = token_dense(
        6, 4, dtype=jax.numpy.bfloat16, use_bias=False, rngs=nnx.Rngs(0)
    )
    assert layer(jax.numpy.ones((2, 3, 6))).dtype == jax.numpy.bfloat16
    assert layer.bias is None
