"""What conftest does to random arrays and to JAX's cache leaves results as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import lru_cache

CALLS = {
    "normal": [((3, 5),), ((), jnp.bfloat16)],
    "truncated_normal": [(-2, 2, (2, 3, 4))],
    "uniform": [((7,), jnp.float32, -1.0, 3)],
}


@pytest.mark.parametrize("name", CALLS)
def test_the_numbers_of_a_longer_row_are_those_of_the_shape(name, key):
    shared = getattr(jax.random, name)
    for arguments in CALLS[name]:
        alone, cut = shared.__wrapped__(key, *arguments), shared(key, *arguments)
        assert (cut.shape, cut.dtype) == (alone.shape, alone.dtype)
        np.testing.assert_array_equal(cut, alone)


def test_programs_keep_their_own_numbers(key):
    draw = jax.jit(lambda key: jax.random.normal(key, (3, 5)))
    np.testing.assert_array_equal(draw(key), jax.random.normal(key, (3, 5)))
    keys = jax.random.split(key, 2)
    rows = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
    np.testing.assert_array_equal(rows[1], jax.random.uniform(keys[1], (2,)))


def test_an_entry_of_the_cache_is_there_as_a_whole_and_stays(tmp_path):
    cache = lru_cache.LRUCache(str(tmp_path), max_size=-1)
    assert cache.get("program") is None
    cache.put("program", b"first")
    cache.put("program", b"second")
    assert cache.get("program") == b"first"
    assert len(list(tmp_path.iterdir())) == 1  # no half-written file is left
