"""The 1x1 rule against XLA's own convolution, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from modal_aware_jax.cpu.pointwise import pointwise_conv


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_equals_the_native_convolution(size, strides):
    x = jax.random.normal(jax.random.key(0), (3, size, size + 1, 6))
    kernel = jax.random.normal(jax.random.key(1), (1, 1, 6, 4))
    numbers = ("NHWC", "HWIO", "NHWC")

    def value_and_grads(conv):
        def scalar(x, kernel):
            y = conv(x, kernel, strides, "VALID", dimension_numbers=numbers)
            return jnp.sum(jnp.sin(y)), y

        return jax.value_and_grad(scalar, (0, 1), has_aux=True)(x, kernel)

    ours, native = map(value_and_grads, (pointwise_conv, lax.conv_general_dilated))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(native), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
