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
    head = TaughtHashHead(2, 1, num_labels=2, features=2, rngs=nnx.Rngs(0))
    head.labels.kernel[...] = jnp.array([[np.log(3), 0.0], [0.0, -np.log(4)]])
    head.hidden.kernel[...] = jnp.array([[1.0, -1.0], [0.0, 2.0]])
    head.code.dense.kernel[...] = jnp.array([[2.0], [3.0]])
    head.direct.dense.kernel[...] = jnp.array([[5.0], [7.0]])
    joint = jnp.array([[1.0, 1.0], [-1.0, 0.0]])
    # Probabilities 3/4 and 1/5; 1/4 and 1/2: hidden 3/4 and 0; 1/4 and 3/4.
    np.testing.assert_allclose(head(joint), [[1.5], [2.75]], rtol=1e-6)
    np.testing.assert_array_equal(head.direct(joint), [[12.0], [-5.0]])


def test_a_taught_head_leaves_what_it_reads_alone():
    head = TaughtHashHead(2, 3, num_labels=5, features=4, rngs=nnx.Rngs(0))
    joint = jnp.ones((1, 2))
    assert not jax.grad(lambda x: head(x).sum())(joint).any()
    assert not jax.grad(lambda x: head.of_labels(x).sum())(jnp.ones((1, 5))).any()
    assert jax.grad(lambda x: head.direct(x).sum())(joint).any()
    with pytest.raises(ValueError, match=r"TaughtHashHead expects \[B, 2\]"):
        head(jnp.ones((1, 3)))
