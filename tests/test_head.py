"""The hash head by hand, and its refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modal_aware_jax import HashHead
from modal_aware_jax.hashing.head import TaughtHashHead


def test_is_an_affine_map_without_squashing():
    head = HashHead(2, 3, rngs=nnx.Rngs(0))
    head.dense.kernel[...] = jnp.array([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
    head.dense.bias[...] = jnp.array([0.5, 0.0, 0.0])
    np.testing.assert_array_equal(head(jnp.array([[30.0, 4.0]])), [[30.5, 4.0, 56.0]])


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="num_bits >= 1, got 0"):
        HashHead(2, 0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"\[B, 2\], got \(1, 3\)"):
        HashHead(2, 4, rngs=nnx.Rngs(0))(jnp.ones((1, 3)))


def test_a_taught_head_by_hand():
    head = TaughtHashHead(2, 1, features=2, rngs=nnx.Rngs(0))
    head.hidden.kernel[...] = jnp.array([[1.0, -1.0], [0.0, 0.0]])
    head.code.dense.kernel[...] = jnp.array([[2.0], [3.0]])
    head.direct.dense.kernel[...] = jnp.array([[5.0], [7.0]])
    joint = jnp.array([[4.0, 1.0], [-4.0, 1.0]])
    np.testing.assert_array_equal(head(joint), [[8.0], [12.0]])
    np.testing.assert_array_equal(head.direct(joint), [[27.0], [-13.0]])


def test_a_taught_head_leaves_what_it_reads_alone():
    head, joint = TaughtHashHead(2, 3, features=4, rngs=nnx.Rngs(0)), jnp.ones((1, 2))
    assert not jax.grad(lambda x: head(x).sum())(joint).any()
    assert jax.grad(lambda x: head.direct(x).sum())(joint).any()
    with pytest.raises(ValueError, match=r"TaughtHashHead expects \[B, 2\]"):
        head(jnp.ones((1, 3)))
