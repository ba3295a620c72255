"""Compact bilinear pooling: the outer product of two vectors, hashed to a few thousand.

Source: Gao et al., "Compact Bilinear Pooling" (arXiv:1511.06062), Tensor Sketch; for
two modalities Fukui et al., "Multimodal Compact Bilinear Pooling" (arXiv:1606.01847).

A count sketch adds feature i, with sign s_i, to bucket h_i. The sketch of an outer
product a ⊗ b with hash h_i + g_j is the circular convolution of the sketches of a and
b: in Fourier space, a product.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.fusion.concat import check_vectors


def count_sketch(
    x: jax.Array, index: jax.Array, sign: jax.Array, features: int
) -> jax.Array:
    """Hashes [..., D] features into [..., features] buckets.

    Args:
      x: [..., D].
      index: [D] the bucket of each feature, whole numbers in [0, features). Under `jit`
        nothing can be raised: a feature whose bucket is beyond them is left out.
      sign: [D] ±1.
      features: number of buckets.

    Returns:
      [..., features] in x's dtype; float32 where that has no sign.

    Example:
      >>> x, index, sign = jnp.ones((1, 3)), jnp.array([2, 0, 2]), jnp.array([1, -1, 1])
      >>> count_sketch(x, index, sign, 4).tolist()
      [[-1.0, 0.0, 2.0, 0.0]]
    """
    x, index, sign = jnp.asarray(x), jnp.asarray(index), jnp.asarray(sign)
    if x.ndim < 1 or not x.shape[-1:] == index.shape == sign.shape:
        raise ValueError(
            f"count_sketch: expected x [..., D], index [D] and sign [D], got "
            f"{x.shape}, {index.shape} and {sign.shape}."
        )
    if jnp.issubdtype(x.dtype, jnp.unsignedinteger) or x.dtype == bool:
        x = x.astype(jnp.float32)
    signed = x * jnp.expand_dims(sign.astype(x.dtype), range(x.ndim - 1))  # [..., D]
    buckets = jnp.zeros((*x.shape[:-1], features), x.dtype)
    index = index.astype(jnp.int32)
    index = jnp.where(index < 0, features, index)  # else they count from the end
    return buckets.at[..., index].add(signed)


def compact_bilinear(
    a: jax.Array,
    b: jax.Array,
    a_index: jax.Array,
    a_sign: jax.Array,
    b_index: jax.Array,
    b_sign: jax.Array,
    features: int,
) -> jax.Array:
    """Count sketch of the outer product of [B, Da] and [B, Db]: [B, features].

    Bucket n holds Σ a_i s_i b_j t_j over h_i + g_j ≡ n (mod features). This is the raw
    convolution; `CompactBilinear` adds signed square root and L2 normalisation.

    Args:
      a: [B, Da].
      b: [B, Db].
      a_index: [Da] h, in [0, features).
      a_sign: [Da] s, ±1.
      b_index: [Db] g, in [0, features).
      b_sign: [Db] t, ±1.
      features: number of buckets.

    Returns:
      [B, features], floats.

    Example:
      >>> a, b = jnp.array([[2.0]]), jnp.array([[3.0]])
      >>> one, three = jnp.array([1]), jnp.array([3])
      >>> fused = compact_bilinear(a, b, three, one, three, -one, 4)
      >>> [round(x) for x in fused[0].tolist()]
      [0, 0, -6, 0]
    """
    if jnp.shape(a)[:-1] != jnp.shape(b)[:-1]:
        raise ValueError(
            f"compact_bilinear: expected a [B, Da] and b [B, Db] of the same batch, "
            f"got {jnp.shape(a)} and {jnp.shape(b)}."
        )
    spectrum = _spectrum(a, a_index, a_sign, features)
    spectrum = spectrum * _spectrum(b, b_index, b_sign, features)
    fused = jnp.fft.irfft(spectrum, n=features)
    return fused.astype(_real_dtype(a, b))


def _real_dtype(*arrays):
    """Theirs; float32 of whole numbers, which the FFT's noise would cut."""
    dtype = jnp.result_type(*arrays)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32


def _check_positions(caller, maps):
    if not jnp.shape(maps)[1] * jnp.shape(maps)[2]:
        raise ValueError(
            f"{caller}: the maps {jnp.shape(maps)} have no positions. Give larger "
            "images."
        )


def pooled_compact_bilinear(
    a: jax.Array,
    b: jax.Array,
    a_index: jax.Array,
    a_sign: jax.Array,
    b_index: jax.Array,
    b_sign: jax.Array,
    features: int,
) -> jax.Array:
    """Sum of `compact_bilinear` over the positions of two maps: [B, features].

    The transform back is linear, so positions are summed before it: one inverse FFT an
    item, not one a position. With a map twice (and two sets of tables) this is the
    pooling of arXiv:1511.06062.

    Args:
      a: [B, H, W, Da].
      b: [B, H, W, Db].
      a_index: as in `compact_bilinear`, with the other tables.
      a_sign: [Da].
      b_index: [Db].
      b_sign: [Db].
      features: number of buckets.

    Returns:
      [B, features].

    Example:
      >>> a, b = jnp.full((1, 2, 2, 1), 2.0), jnp.full((1, 2, 2, 1), 3.0)
      >>> one, three = jnp.array([1]), jnp.array([3])
      >>> fused = pooled_compact_bilinear(a, b, three, one, three, one, 4)
      >>> [round(x) for x in fused[0].tolist()]
      [0, 0, 24, 0]
    """
    if jnp.ndim(a) != 4 or jnp.ndim(b) != 4 or jnp.shape(a)[:3] != jnp.shape(b)[:3]:
        raise ValueError(
            f"pooled_compact_bilinear: expected maps [B, H, W, Da] and "
            f"[B, H, W, Db], got {jnp.shape(a)} and {jnp.shape(b)}."
        )
    _check_positions("pooled_compact_bilinear", a)
    spectrum = _spectrum(a, a_index, a_sign, features)  # [B, H, W, features // 2 + 1]
    spectrum = spectrum * _spectrum(b, b_index, b_sign, features)
    fused = jnp.fft.irfft(spectrum.sum(axis=(1, 2)), n=features)
    return fused.astype(_real_dtype(a, b))


def _spectrum(x, index, sign, features):
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # rfft refuses bfloat16
    return jnp.fft.rfft(count_sketch(x, index, sign, features))


def signed_sqrt(x: jax.Array) -> jax.Array:
    """sgn(x) √|x|, with gradient 0 at 0 in place of infinity.

    Example:
      >>> signed_sqrt(jnp.array([-4.0, 0.0, 9.0])).tolist()
      [-2.0, 0.0, 3.0]
    """
    x = jnp.asarray(x) * 1.0  # whole numbers have no root among them
    magnitude = jnp.abs(x)
    nonzero = magnitude >= jnp.finfo(x.dtype).tiny
    root = jnp.sqrt(jnp.where(nonzero, magnitude, 1.0))
    return jnp.where(nonzero, jnp.sign(x) * root, 0.0)


def l2_normalize(x: jax.Array) -> jax.Array:
    """x / ‖x‖ along the last axis; a zero vector stays zero, with finite gradient.

    Example:
      >>> l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]])).round(3).tolist()
      [[0.6..., 0.8...], [0.0, 0.0]]
    """
    # The squares of a few hundred float16 overflow.
    wide = jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
    squared = jnp.sum(jnp.square(wide), axis=-1, keepdims=True)
    nonzero = squared >= jnp.finfo(squared.dtype).tiny
    # Not rsqrt: its derivative holds ‖x‖⁻³, which overflows for small x.
    unit = wide / jnp.sqrt(jnp.where(nonzero, squared, 1.0))
    return unit.astype(_real_dtype(x))


@nnx.register_variable_name("hash_tables")
class Sketch(nnx.Variable):
    """Fixed random hash: saved in checkpoints, never trained."""


def sketch_tables(in_features: int, features: int, rngs: nnx.Rngs):
    """Random tables of a count sketch: bucket int32 [D] and sign float32 [D].

    Example:
      >>> index, sign = sketch_tables(512, 8000, nnx.Rngs(0))
      >>> index.shape, sign.shape
      ((512,), (512,))
    """
    index = jax.random.randint(rngs.params(), (in_features,), 0, features)
    sign = jax.random.rademacher(rngs.params(), (in_features,), jnp.float32)
    return Sketch(index), Sketch(sign)


class CompactBilinear(nnx.Module):
    """Fuses [B, Da] with [B, Db] into unit vectors [B, features].

    `compact_bilinear`, then signed square root, then L2 normalisation. Meant for
    Da · Db well above `features`: a bucket that no pair of features falls into holds
    the rounding noise of the FFT, which the square root enlarges.

    Args:
      a_features: Da.
      b_features: Db.
      features: width of the result; 8,000 to 16,000 in the papers.
      rngs: source of the hash tables.

    Example:
      >>> a, b = jnp.ones((4, 512)), jnp.ones((4, 300))
      >>> CompactBilinear(512, 300, 8000, rngs=nnx.Rngs(0))(a, b).shape
      (4, 8000)
    """

    def __init__(
        self, a_features: int, b_features: int, features: int, *, rngs: nnx.Rngs
    ):
        self.a_features = a_features
        self.b_features = b_features
        self.features = features
        self.a_index, self.a_sign = sketch_tables(a_features, features, rngs)
        self.b_index, self.b_sign = sketch_tables(b_features, features, rngs)

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Fuses a [B, Da] with b [B, Db] into unit vectors [B, features]."""
        check_vectors("CompactBilinear", self.a_features, self.b_features, a, b)
        fused = compact_bilinear(a, b, *self.tables(), self.features)
        return l2_normalize(signed_sqrt(fused))

    def tables(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Bucket and sign of each feature of a, [Da] twice, and of b, [Db] twice."""
        tables = self.a_index, self.a_sign, self.b_index, self.b_sign
        return tuple(table[...] for table in tables)


class PooledCompactBilinear(nnx.Module):
    """Fuses maps [B, H, W, Da] and [B, H, W, Db] into unit vectors [B, features].

    `pooled_compact_bilinear`, then signed square root, then L2 normalisation. A vector
    [B, Db] in place of the second map stands at every position; as the outer product is
    linear in each factor, that is `CompactBilinear` on the sum of the first map.

    Args:
      a_features: Da.
      b_features: Db.
      features: width of the result.
      rngs: source of the hash tables.

    Example:
      >>> a, b = jnp.ones((4, 3, 3, 32)), jnp.ones((4, 300))
      >>> PooledCompactBilinear(32, 300, 1000, rngs=nnx.Rngs(0))(a, b).shape
      (4, 1000)
    """

    def __init__(
        self, a_features: int, b_features: int, features: int, *, rngs: nnx.Rngs
    ):
        self.features = features
        self.fuse = CompactBilinear(a_features, b_features, features, rngs=rngs)

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Fuses a [B, H, W, Da] with b [B, H, W, Db] or [B, Db]: [B, features]."""
        if a.ndim != 4 or b.ndim not in (2, 4):
            raise ValueError(
                f"PooledCompactBilinear expects maps [B, H, W, {self.fuse.a_features}] "
                f"and maps [B, H, W, {self.fuse.b_features}] or vectors "
                f"[B, {self.fuse.b_features}], got {a.shape} and {b.shape}."
            )
        _check_positions("PooledCompactBilinear", a)
        if b.ndim == 2:
            return self.fuse(a.sum(axis=(1, 2)), b)
        fused = pooled_compact_bilinear(a, b, *self.fuse.tables(), self.features)
        return l2_normalize(signed_sqrt(fused))
