"""Search against a stable sort of all distances, and FAISS."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from modal_aware_jax.hashing.codes import num_words
from modal_aware_jax.retrieval import search, search_sharded, top_k
from modal_aware_jax.retrieval.inputs import last_word_mask


def random_codes(rows, num_bits, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**32, (rows, num_words(num_bits)), dtype=np.uint32)
    return codes & last_word_mask(num_bits)


def sorted_search(query, database, k):
    bits = [np.unpackbits(x.view(np.uint8), axis=1) for x in (query, database)]
    distance = (bits[0][:, None] != bits[1]).sum(axis=2)
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distance, order, axis=1), order


def assert_same(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def assert_sorted(query, database, *ks):
    """The search finds, for each k, the first of one stable sort."""
    distance, order = sorted_search(query, database, max(ks))
    for k in ks:
        assert_same(search(query, database, k), (distance[:, :k], order[:, :k]))


# Every length with every number of rows, and with every k: a program a case.
@pytest.mark.parametrize(
    ("num_bits", "rows", "k"),
    [
        *((1, 1, 1), (1, 5, 7), (1, 3001, 5000)),
        *((16, 1, 7), (16, 5, 5000), (16, 3001, 1)),
        *((64, 1, 5000), (64, 5, 1), (64, 3001, 7)),
        *((100, 1, 1), (100, 5, 7), (100, 3001, 5000)),
    ],
)
def test_equals_a_stable_sort(num_bits, rows, k):
    query, database = random_codes(5, num_bits), random_codes(rows, num_bits, 1)
    found = search(query, database, k)
    assert found[0].dtype == np.int32 and found[1].dtype == np.int64
    assert found[0].shape == (5, min(k, rows))
    assert_same(found, sorted_search(query, database, k))


@pytest.mark.parametrize("num_bits", [260, 520, 1000, 4096])
def test_long_codes(num_bits):
    query, database = random_codes(5, num_bits), random_codes(700, num_bits, 1)
    assert_same(search(query, database, 9), sorted_search(query, database, 9))


@pytest.mark.parametrize("distinct", [1, 2, 40])
def test_duplicates_come_in_row_order(distinct):
    database = random_codes(distinct, 64)[np.arange(4000) * 7 % distinct]
    query = random_codes(6, 64, 1)
    assert_sorted(query, database, 1, 10, 60)


@pytest.mark.parametrize(("num_bits", "rows"), [(8, 10_007), (64, 8192), (70, 6200)])
def test_chunks_merge_exactly(num_bits, rows, monkeypatch):
    monkeypatch.setattr(top_k, "chunk_limit", lambda words: 2048)
    monkeypatch.setattr(top_k, "ALL_ROWS", 3000)
    query, database = random_codes(140, num_bits), random_codes(rows, num_bits, 1)
    assert_sorted(query, database, 1, 20, 32, 500)
    assert_sorted(query[:1], database, 9)


@pytest.mark.parametrize("rows", [255, 257, 1025, 4097, 9000])
def test_tiles_that_are_not_full(rows):
    """The last tile has groups without a row, with fewer rows, and ties between all."""
    assert_sorted(random_codes(5, 3), random_codes(rows, 3, 1), 1, 3, 50)


@pytest.mark.parametrize("k", [1, 50, 3001])
def test_the_accelerator_path_gives_the_same(k, monkeypatch):
    query, database = random_codes(5, 20), random_codes(3001, 20, 1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert_same(search(query, database, k), sorted_search(query, database, k))
    monkeypatch.setattr(top_k, "CHUNK_ROWS", 1024)
    assert_same(search(query, database, k), sorted_search(query, database, k))


def test_memory_map_and_jax_arrays(tmp_path):
    database = random_codes(5000, 64)
    database.tofile(tmp_path / "codes")
    mapped = np.memmap(tmp_path / "codes", np.uint32, "r", shape=(5000, 2))
    query = random_codes(8, 64, 1)
    expected = sorted_search(query, database, 3)
    assert_same(search(query, mapped, 3), expected)
    assert_same(search(jax.numpy.array(query), jax.numpy.array(database), 3), expected)


def test_distances_equal_faiss():
    faiss = pytest.importorskip("faiss")
    query, database = random_codes(40, 64), random_codes(20_000, 64, 1)
    flat = faiss.IndexBinaryFlat(64)
    flat.add(database.view(np.uint8))
    distance, _ = flat.search(query.view(np.uint8), 30)
    np.testing.assert_array_equal(search(query, database, 30)[0], distance)


def test_errors():
    codes = random_codes(4, 64)
    for k in (0, -1, 1.5, True, None, "3", np.nan, np.inf, [1]):
        with pytest.raises(ValueError, match="search: expected k"):
            search(codes, codes, k)
    with pytest.raises(ValueError, match="the database is empty"):
        search(codes, codes[:0], 1)
    with pytest.raises(ValueError, match="the codes have no words"):
        search(codes[:, :0], codes[:, :0], 1)
    with pytest.raises(ValueError, match="search: expected database to be packed"):
        search(codes, codes.astype(np.int64), 1)


def test_no_queries():
    codes = random_codes(4, 64)
    assert search(codes[:0], codes, 2)[1].shape == (0, 2)


SHARDED = """
import json, sys
import jax, numpy as np
from modal_aware_jax.retrieval import HammingIndex, search, search_sharded
assert jax.device_count() == 8
mesh = jax.make_mesh((8,), ("rows",))
rng = np.random.default_rng(0)
same = []
for rows, bits in ((3, 32), (1000, 8), (2001, 64)):
    top = 2 ** min(bits, 32)
    codes = rng.integers(0, top, (rows, -(-bits // 32)), dtype=np.uint32)
    for k in (1, 20, rows):
        a, b = search(codes[:9], codes, k), search_sharded(codes[:9], codes, k, mesh)
        same.append(all(np.array_equal(x, y) for x, y in zip(a, b)))
index = HammingIndex(64)
index.add(codes, ids=rng.permutation(len(codes)) + 5)
a, b = index.search(codes[:9], 10), index.search(codes[:9], 10, mesh=mesh)
same.append(all(np.array_equal(x, y) for x, y in zip(a, b)))
print(json.dumps(same))
"""


def test_eight_devices_give_the_same_answer():
    flags = os.environ.get("XLA_FLAGS", "")
    flags = f"{flags} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [True] * 10


def test_sharded_needs_one_axis():
    mesh = jax.make_mesh((1, 1), ("a", "b"))
    codes = random_codes(4, 64)
    with pytest.raises(ValueError, match="a mesh of one axis"):
        search_sharded(codes, codes, 1, mesh)
