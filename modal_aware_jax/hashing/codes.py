"""Binary codes: sign, packing into 32-bit words, Hamming distance.

Codes are -1 or +1, [..., K]. A packed code is uint32 [..., Wd], Wd = ceil(K / 32):
bit k sits in word k // 32 at position k % 32 (least significant first), 1 for +1.
The unused bits of the last word are 0, so they never add to a distance.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

WORD_BITS = 32


def num_words(num_bits: int) -> int:
    """Number of 32-bit words that hold `num_bits` bits.

    >>> num_words(48)
    2
    """
    whole = isinstance(num_bits, int | np.integer) and not isinstance(num_bits, bool)
    if not whole or num_bits < 1:
        raise ValueError(
            "num_words: a code has a whole number of bits, at least 1 bit, got "
            f"{num_bits!r}."
        )
    return -(-int(num_bits) // WORD_BITS)


def _as_array(x):
    return x if isinstance(x, jax.Array | np.ndarray) else np.asarray(x)


def binarize(x) -> jax.Array:
    """Sign of relaxed codes; zero counts as +1.

    >>> binarize([0.3, -2.0, 0.0]).tolist()
    [1, -1, 1]

    Args:
      x: [..., K] relaxed codes.

    Returns:
      int8 [..., K], -1 or +1.

    Raises:
      ValueError: `x` holds NaN, or no real numbers. Inside `jit`, where values are
        unknown, NaN becomes +1 without an error.
    """
    x = _as_array(x)
    if x.dtype == bool or x.dtype.kind in "cOSU":
        raise ValueError(
            f"binarize: expected real numbers, got {x.dtype} {list(x.shape)}. Codes of "
            "0 and 1 go to pack as they are."
        )
    if not isinstance(x, jax.core.Tracer) and np.asarray((x != x).any()):
        raise ValueError(
            f"binarize: expected numbers, found NaN in an array of shape {x.shape}. "
            "Look for a diverged model or a damaged input."
        )
    return jnp.where(x < 0, jnp.int8(-1), jnp.int8(1))


@jax.jit
def _pack_bits(bits):
    num_bits = bits.shape[-1]
    words = num_words(num_bits)
    unused = [(0, 0)] * (bits.ndim - 1) + [(0, words * WORD_BITS - num_bits)]
    bits = jnp.pad(bits.astype(jnp.uint32), unused)
    bits = bits.reshape(*bits.shape[:-1], words, WORD_BITS)  # [..., Wd, 32]
    shifted = jax.lax.shift_left(bits, jnp.broadcast_to(_positions(), bits.shape))
    return jnp.sum(shifted, axis=-1, dtype=jnp.uint32)  # [..., Wd]


def _positions():
    return jnp.arange(WORD_BITS, dtype=jnp.uint32)


def pack(codes) -> jax.Array:
    """Packs codes into 32-bit words.

    >>> pack([1, -1, 1]).tolist()
    [5]

    Args:
      codes: [..., K] of -1 and +1; 0 and 1 (or bool) also.

    Returns:
      uint32 [..., Wd].

    Raises:
      ValueError: `codes` holds other values, such as relaxed codes. Inside
        `jit` the values are unknown: there, positive means 1.
    """
    codes = _as_array(codes)
    if codes.ndim == 0 or codes.shape[-1] == 0:
        raise ValueError(
            f"pack: expected codes [..., K] with K >= 1, got shape {codes.shape}."
        )
    if codes.dtype.kind in "OSU":
        raise ValueError(f"pack: expected codes of -1 and +1, got {codes.dtype}.")
    one = codes > 0
    if codes.dtype != bool and not isinstance(codes, jax.core.Tracer):
        signed = ((codes == 1) | (codes == -1)).all()
        if not signed and not ((codes == 1) | (codes == 0)).all():
            raise ValueError(
                "pack: expected codes of -1 and +1 (or of 0 and 1), got other values "
                f"in an array of shape {codes.shape}. Call binarize first."
            )
    return _pack_bits(one)


@functools.partial(jax.jit, static_argnums=1)
def _unpack_bits(packed, num_bits):
    words = packed[..., None]  # [..., Wd, 1]
    shape = (*packed.shape, WORD_BITS)
    bits = jax.lax.shift_right_logical(
        jnp.broadcast_to(words, shape), jnp.broadcast_to(_positions(), shape)
    )
    bits = (bits & jnp.uint32(1)).astype(jnp.int8)
    bits = bits.reshape(*packed.shape[:-1], -1)[..., :num_bits]  # [..., K]
    return 2 * bits - 1


def unpack(packed, num_bits: int) -> jax.Array:
    """Codes of packed words: the inverse of `pack`.

    >>> unpack(pack([1, -1, 1]), 3).tolist()
    [1, -1, 1]

    Args:
      packed: uint32 [..., Wd].
      num_bits: K.

    Returns:
      int8 [..., K], -1 or +1.
    """
    packed = _as_array(packed)
    num_words(num_bits)
    check_packed("unpack", "packed", packed, num_bits)
    return _unpack_bits(packed, num_bits)


def check_packed(function, name, packed, num_bits=None):
    """Raises ValueError unless `packed` is uint32 [..., Wd] for `num_bits` bits."""
    if packed.dtype != np.uint32 or packed.ndim == 0:
        raise ValueError(
            f"{function}: expected {name} to be packed codes, uint32 [..., Wd], got "
            f"{packed.dtype} {list(packed.shape)}. Use pack(binarize(x))."
        )
    if num_bits is not None and packed.shape[-1] != num_words(num_bits):
        raise ValueError(
            f"{function}: {num_bits} bits fill {num_words(num_bits)} words of 32, but "
            f"{name} has {packed.shape[-1]}, shape {list(packed.shape)}."
        )


@jax.jit
def _hamming_distance(query, database):
    different = query[:, None, :] ^ database[None, :, :]  # [Q, N, Wd]
    return jnp.sum(jax.lax.population_count(different), axis=-1, dtype=jnp.int32)


def hamming_distance(query, database) -> jax.Array:
    """Number of differing bits between every query and every database code.

    >>> hamming_distance(pack([[1, 1]]), pack([[1, 1], [1, -1]])).tolist()
    [[0, 1]]

    Args:
      query: uint32 [Q, Wd].
      database: uint32 [N, Wd].

    Returns:
      int32 [Q, N].
    """
    query, database = _as_array(query), _as_array(database)
    check_packed("hamming_distance", "query", query)
    check_packed("hamming_distance", "database", database)
    if query.ndim != 2 or database.ndim != 2 or query.shape[1] != database.shape[1]:
        raise ValueError(
            "hamming_distance: expected query [Q, Wd] and database [N, Wd] of the same "
            f"Wd, got {list(query.shape)} and {list(database.shape)}."
        )
    return _hamming_distance(query, database)
