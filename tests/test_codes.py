"""Codes: sign, packing and distance against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_aware_jax.hashing.codes import (
    binarize,
    hamming_distance,
    num_words,
    pack,
    unpack,
)

LENGTHS = [1, 2, 31, 32, 33, 48, 64, 65, 127, 300, 4096]


def random_codes(*shape, seed=0):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), shape)


def packed_by_loop(code):
    words = [0] * -(-len(code) // 32)
    for k, bit in enumerate(code):
        if bit > 0:
            words[k // 32] += 1 << k % 32
    return words


def test_zero_and_negative_zero_are_plus_one():
    codes = binarize(jnp.array([[-0.5, 0.0, -0.0, 2.0]]))
    assert codes.dtype == jnp.int8
    assert codes.tolist() == [[-1, 1, 1, 1]]


@pytest.mark.parametrize("x", [[1.0, np.nan], np.array([[np.nan]])])
def test_nan_is_an_error(x):
    with pytest.raises(ValueError, match="binarize: .*found NaN"):
        binarize(x)


@pytest.mark.parametrize("x", [[True, False], ["a"], [1j], [None]])
def test_signs_of_real_numbers_only(x):
    with pytest.raises(ValueError, match="binarize: expected real numbers"):
        binarize(x)


@pytest.mark.parametrize("num_bits", [None, 2.0, "2", True, 0, -3])
def test_whole_numbers_of_bits_only(num_bits):
    for function in (num_words, lambda k: unpack(np.zeros((1, 1), np.uint32), k)):
        with pytest.raises(ValueError, match="whole number of bits, at least 1 bit"):
            function(num_bits)


def test_tiny_float64_keeps_its_sign():
    assert binarize(np.array([-1e-300, 1e-300])).tolist() == [-1, 1]


@pytest.mark.parametrize("num_bits", LENGTHS)
def test_pack_equals_a_loop_over_bits(num_bits):
    codes = random_codes(3, num_bits)
    packed = pack(codes)
    assert packed.dtype == jnp.uint32
    assert packed.shape == (3, num_words(num_bits))
    assert packed.tolist() == [packed_by_loop(code) for code in codes]


def test_hand_value_least_significant_bit_first():
    code = -np.ones(40)
    code[[0, 1, 33]] = 1
    assert pack(code).tolist() == [3, 2]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=80), st.integers(1, 3))
def test_round_trip(bits, rows):
    codes = np.where(np.tile(bits, (rows, 1)), 1, -1)
    assert np.array_equal(unpack(pack(codes), len(bits)), codes)


def test_all_ways_to_write_a_code_pack_alike():
    codes = random_codes(4, 37)
    for other in (codes > 0, (codes > 0).astype(int), codes * 1.0, jnp.array(codes)):
        assert np.array_equal(pack(other), pack(codes))


def test_leading_axes_and_jit():
    codes = random_codes(2, 3, 50)
    packed = jax.jit(pack)(codes)
    assert packed.shape == (2, 3, 2)
    assert np.array_equal(packed[1, 2], pack(codes[1, 2]))
    assert np.array_equal(jax.jit(unpack, static_argnums=1)(packed, 50), codes)
    assert np.array_equal(jax.jit(binarize)(codes * 0.1), codes)


@pytest.mark.parametrize("codes", [[0.3, -1.0], [-1, 0, 1], [2, 1], [0, -1]])
def test_pack_refuses_what_is_no_code(codes):
    with pytest.raises(ValueError, match="pack: expected codes of -1 and .1"):
        pack(codes)


@pytest.mark.parametrize("num_bits", LENGTHS)
def test_distance_equals_a_loop_over_bits(num_bits):
    query, database = random_codes(3, num_bits), random_codes(4, num_bits, seed=1)
    distance = hamming_distance(pack(query), pack(database))
    assert distance.dtype == jnp.int32
    expected = [[int(np.sum(q != d)) for d in database] for q in query]
    assert distance.tolist() == expected


def test_distance_reaches_all_bits():
    ones = pack(np.ones((1, 300)))
    assert hamming_distance(ones, pack(-np.ones((1, 300)))).tolist() == [[300]]


def test_errors_name_what_arrived():
    with pytest.raises(ValueError, match=r"unpack: 70 bits fill 3 words .* has 2"):
        unpack(pack(random_codes(2, 64)), 70)
    with pytest.raises(ValueError, match="hamming_distance: .*uint32.*got int8"):
        hamming_distance(random_codes(2, 32), pack(random_codes(2, 32)))
    with pytest.raises(ValueError, match=r"same Wd, got \[2, 1\] and \[2, 2\]"):
        hamming_distance(pack(random_codes(2, 32)), pack(random_codes(2, 64)))
    with pytest.raises(ValueError, match="at least 1 bit"):
        num_words(0)
