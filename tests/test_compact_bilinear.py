"""Compact bilinear pooling against double loops over the outer product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from modal_aware_jax.fusion import CompactBilinear, PooledCompactBilinear
from modal_aware_jax.fusion.compact_bilinear import (
    Sketch,
    compact_bilinear,
    count_sketch,
    l2_normalize,
    pooled_compact_bilinear,
    signed_sqrt,
)

fused_by = jax.jit(compact_bilinear, static_argnums=6)


def tables(a_features, b_features, features, seed=0):
    rng = np.random.default_rng(seed)
    return [
        table
        for n in (a_features, b_features)
        for table in (rng.integers(0, features, n), rng.choice([-1, 1], n))
    ]


def loop(a, b, a_index, a_sign, b_index, b_sign, features):
    """One row: the outer product, term by term into its bucket."""
    buckets = np.zeros(features)
    for i, j in np.ndindex(len(a), len(b)):
        bucket = (int(a_index[i]) + int(b_index[j])) % features
        buckets[bucket] += float(a_sign[i]) * float(b_sign[j]) * a[i] * b[j]
    return buckets


@pytest.mark.parametrize("features", [1, 2, 7, 16, 125])
def test_equals_the_sketch_of_the_outer_product(features):
    rng = np.random.default_rng(features)
    a, b = rng.normal(size=(3, 6)), rng.normal(size=(3, 5))
    hashes = tables(6, 5, features, seed=features)
    expected = [loop(*rows, *hashes, features) for rows in zip(a, b, strict=True)]
    np.testing.assert_allclose(fused_by(a, b, *hashes, features), expected, atol=1e-5)
    np.testing.assert_allclose(
        compact_bilinear(a, b, *hashes, features), expected, atol=1e-5
    )


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize(
    "index, sign",
    [("int8", "float64"), ("uint8", "int8"), ("int64", "int64"), ("float32", "int32")],
)
def test_tables_of_any_dtype(index, sign, array):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(1, 4)), rng.normal(size=(1, 3))
    h, s, g, t = tables(4, 3, 8)
    expected = loop(a[0], b[0], h, s, g, t, 8)
    if array is jnp.asarray:
        index, sign = index.replace("64", "32"), sign.replace("64", "32")
    h, g = array(h.astype(index)), array(g.astype(index))
    s, t = array(s.astype(sign)), array(t.astype(sign))
    fused = fused_by(jnp.asarray(a), jnp.asarray(b), h, s, g, t, 8)
    np.testing.assert_allclose(fused[0], expected, atol=1e-5)
    assert fused.dtype == jnp.float32


def test_count_sketch_by_hand_and_over_leading_axes():
    index, sign = np.array([1, 3, 1]), np.array([1, -1, -1])
    x = np.array([2.0, 5.0, 7.0])
    np.testing.assert_array_equal(count_sketch(x, index, sign, 4), [0, -5, 0, -5])
    maps = np.broadcast_to(x, (2, 3, 4, 3))
    sketched = count_sketch(maps, index, sign, 4)
    np.testing.assert_array_equal(sketched, np.full((2, 3, 4, 1), 1) * [0, -5, 0, -5])


def test_buckets_that_are_not_there_are_left_out():
    x, sign = jnp.array([[1.0, 2.0, 3.0]]), jnp.ones(3)
    sketch = count_sketch(x, jnp.array([-1, 0, 4]), sign, 4)
    np.testing.assert_array_equal(sketch, [[2.0, 0.0, 0.0, 0.0]])


def test_pooling_sums_over_positions():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2, 3, 4)), rng.normal(size=(2, 2, 3, 5))
    hashes = tables(4, 5, 9)
    expected = np.zeros((2, 9))
    for n, h, w in np.ndindex(2, 2, 3):
        expected[n] += loop(a[n, h, w], b[n, h, w], *hashes, 9)
    fused = pooled_compact_bilinear(a, b, *hashes, 9)
    np.testing.assert_allclose(fused, expected, atol=1e-5)


def test_inner_products_estimate_the_bilinear_kernel():
    # E⟨φ(a, b), φ(c, d)⟩ = ⟨a, c⟩⟨b, d⟩ over the tables.
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 16)), rng.normal(size=(2, 16))
    b[1] = b[0]
    a[1] = a[0] + 0.3 * a[1]
    truth = (a[0] @ a[1]) * (b[0] @ b[1])
    estimates = []
    for seed in range(20):
        fused = np.asarray(fused_by(a, b, *tables(16, 16, 512, seed=seed), 512))
        estimates.append(fused[0] @ fused[1])
    np.testing.assert_allclose(np.mean(estimates), truth, rtol=0.1)


@pytest.mark.parametrize("features", [8, 9])
def test_gradient_equals_finite_differences(features):
    rng = np.random.default_rng(0)
    hashes = tables(6, 5, features)
    weight = rng.normal(size=(2, features))
    with jax.enable_x64(True):
        a = jnp.asarray(rng.normal(size=(2, 6)))
        b = jnp.asarray(rng.normal(size=(2, 5)))
        # No bucket at the square root's kink.
        assert np.abs(compact_bilinear(a, b, *hashes, features)).min() > 1e-3

        @jax.jit
        def raw(a, b):
            return jnp.sum(weight * compact_bilinear(a, b, *hashes, features))

        @jax.jit
        def normalized(a, b):
            fused = compact_bilinear(a, b, *hashes, features)
            return jnp.sum(weight * l2_normalize(signed_sqrt(fused)))

        check_grads(raw, (a, b), order=1, modes=["rev", "fwd"])
        check_grads(normalized, (a, b), order=1, modes=["rev"], eps=1e-6)


def test_signed_sqrt_and_l2_normalize():
    x = jnp.array([-9.0, -0.25, 0.0, 4.0])
    np.testing.assert_array_equal(signed_sqrt(x), [-3, -0.5, 0, 2])
    gradient = jax.grad(lambda x: signed_sqrt(x).sum())(x)
    np.testing.assert_allclose(gradient, [1 / 6, 1, 0, 1 / 4])
    rows = jnp.array([[3.0, 4.0], [0.0, 0.0], [1e-15, 0.0]])
    np.testing.assert_allclose(
        l2_normalize(rows), [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6
    )
    assert signed_sqrt(np.array([-9, 4])).tolist() == [-3, 2]


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e12])
def test_extremes_stay_finite(scale):
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.normal(size=(2, 4)) * scale, jnp.float32)
    b = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
    module = CompactBilinear(4, 3, 16, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(module)
    fuse = jax.jit(lambda a, b: nnx.merge(graphdef, state)(a, b))
    fused, gradients = jax.value_and_grad(lambda a, b: fuse(a, b).sum(), (0, 1))(a, b)
    assert np.isfinite(fused) and all(np.isfinite(g).all() for g in gradients)
    norms = np.linalg.norm(fuse(a, b), axis=1)
    np.testing.assert_allclose(norms, np.full(2, 0 if scale == 0 else 1), atol=1e-5)


def test_bfloat16_goes_through_a_float32_transform():
    a, b, hashes = np.ones((1, 4)), np.ones((1, 3)), tables(4, 3, 16)
    low = [jnp.asarray(x, jnp.bfloat16) for x in (a, b)]
    fused = fused_by(*low, *hashes, 16)
    assert fused.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        fused.astype(jnp.float32), fused_by(a, b, *hashes, 16), atol=1e-2
    )


def test_module_is_the_function_then_sqrt_then_unit_length():
    module = CompactBilinear(6, 5, 32, rngs=nnx.Rngs(3))
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.normal(size=(2, 6))), jnp.asarray(rng.normal(size=(2, 5)))
    hashes = [
        np.asarray(t[...])
        for t in (module.a_index, module.a_sign, module.b_index, module.b_sign)
    ]
    for row, fused in enumerate(np.asarray(module(a, b))):
        expected = loop(np.asarray(a[row]), np.asarray(b[row]), *hashes, 32)
        expected = np.sign(expected) * np.sqrt(np.abs(expected))
        np.testing.assert_allclose(
            fused, expected / np.linalg.norm(expected), atol=2e-3
        )


def test_tables_are_saved_never_trained_and_differ_by_seed():
    module = CompactBilinear(64, 32, 1000, rngs=nnx.Rngs(0))
    assert not jax.tree.leaves(nnx.state(module, nnx.Param))
    assert len(jax.tree.leaves(nnx.state(module, Sketch))) == 4
    index, sign = np.asarray(module.a_index[...]), np.asarray(module.a_sign[...])
    assert index.min() >= 0 and index.max() < 1000 and len(set(index)) > 50
    assert set(sign) == {-1.0, 1.0}
    other = CompactBilinear(64, 32, 1000, rngs=nnx.Rngs(1))
    assert (np.asarray(other.a_index[...]) != index).any()


def test_pooled_module_takes_maps_or_a_vector():
    module = PooledCompactBilinear(4, 3, 16, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.normal(size=(2, 2, 2, 4)))
    b = jnp.asarray(rng.normal(size=(2, 3)))
    everywhere = jnp.broadcast_to(b[:, None, None, :], (2, 2, 2, 3))
    np.testing.assert_allclose(module(a, b), module(a, everywhere), atol=2e-3)


def test_no_double_precision_reaches_a_tpu():
    module = CompactBilinear(512, 512, 8000, rngs=nnx.Rngs(0))
    shape = jax.ShapeDtypeStruct((100, 512), jnp.float32)
    grad = jax.jit(jax.grad(lambda a, b: module(a, b).sum(), argnums=(0, 1)))
    program = jax.export.export(grad, platforms=["tpu"])(shape, shape).mlir_module()
    assert "complex<f32>" in program
    assert "f64" not in program and "complex<f64>" not in program


def test_whole_numbers_and_truths_are_fused_as_floats():
    h, s, g, t = tables(4, 3, 8)
    a, b = np.array([[3, -7, 2, 5]]), np.array([[7, 1, -4]])
    found = compact_bilinear(a, b, h, s, g, t, 8)
    np.testing.assert_allclose(found[0], loop(a[0], b[0], h, s, g, t, 8), atol=1e-4)
    for kind in (bool, np.uint8):
        found = count_sketch(np.array([1, 1, 1], kind), [2, 0, 0], [-1, 1, 1], 3)
        assert found.tolist() == [2, 0, -1]


def test_long_float16_vectors_keep_their_direction():
    x = np.full((1, 400), 60, np.float16)  # a sum of squares of 1,440,000
    found = l2_normalize(jnp.asarray(x))
    assert found.dtype == jnp.float16
    np.testing.assert_allclose(found, np.full((1, 400), 1 / 20), rtol=1e-3)


def test_wrong_shapes_are_named():
    h, s, g, t = tables(4, 3, 8)
    a, b = np.ones((2, 4)), np.ones((2, 3))
    with pytest.raises(ValueError, match=r"compact_bilinear.*\(2, 4\) and \(1, 3\)"):
        compact_bilinear(a, b[:1], h, s, g, t, 8)
    with pytest.raises(ValueError, match=r"count_sketch.*\(2, 3\), \(4,\)"):
        compact_bilinear(b, b, h, s, g, t, 8)
    with pytest.raises(ValueError, match=r"maps \[B, H, W, Da\]"):
        pooled_compact_bilinear(a, b, h, s, g, t, 8)
    module = CompactBilinear(4, 3, 8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"CompactBilinear.*\(2, 3\) and \(2, 4\)"):
        module(jnp.asarray(b), jnp.asarray(a))
    pooled = PooledCompactBilinear(4, 3, 8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="PooledCompactBilinear"):
        pooled(jnp.asarray(a), jnp.asarray(b))
