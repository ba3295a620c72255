"""The CPU rules compute what the native operations and their autodiff compute."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from modal_aware_jax.backbones import resnet
from modal_aware_jax.backbones.mobilenet import MobileNetV2
from modal_aware_jax.backbones.resnet import ResNet18
from modal_aware_jax.cpu import chunks, in_turn
from modal_aware_jax.cpu.batch_norm import BatchNorm, batch_norm
from modal_aware_jax.cpu.depthwise import depthwise_conv
from modal_aware_jax.cpu.max_pool import max_pool
from modal_aware_jax.cpu.small_maps import small_map_conv
from modal_aware_jax.cpu.strided import strided_conv
from modal_aware_jax.cpu.winograd import winograd_conv
from modal_aware_jax.training.update import split_model

NHWC = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.jit, static_argnums=0)
def values_and_gradients(f, *arrays):
    """f(*arrays), then its gradients for one random cotangent."""
    y, vjp = jax.vjp(f, *arrays)
    g = jax.random.normal(jax.random.key(7), y.shape, y.dtype)
    return y, *vjp(g)


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)


def assert_same(ours, theirs, tolerance=2e-6):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max() + 1e-7)


def depthwise_by_loops(x, kernel, stride, padding):
    (top, bottom), (left, right) = padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    h = (x.shape[1] - 3) // stride + 1
    w = (x.shape[2] - 3) // stride + 1
    y = np.zeros((len(x), h, w, x.shape[-1]))
    for r, c in np.ndindex(h, w):
        window = x[:, r * stride : r * stride + 3, c * stride : c * stride + 3]
        y[:, r, c] = (window * kernel[:, :, 0]).sum((1, 2))
    return y


def test_depthwise_equals_loops():
    x, kernel = normal(2, 5, 6, 3), normal(3, 3, 1, 3)
    y = depthwise_conv(x, kernel, (2, 2), [(1, 1), (1, 1)], feature_group_count=3)
    expected = depthwise_by_loops(x, kernel, 2, [(1, 1), (1, 1)])
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(1, 1), (1, 1)]])
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (3, 3)])
def test_depthwise_equals_native_and_its_gradients(stride, padding, size):
    x, kernel = normal(3, *size, 4), normal(3, 3, 1, 4)
    arguments = {"feature_group_count": 4, "dimension_numbers": NHWC}
    ours, theirs = (
        values_and_gradients(
            lambda x, k, f=f: f(x, k, (stride, stride), padding, **arguments), x, kernel
        )
        for f in (depthwise_conv, lax.conv_general_dilated)
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 5)])
def test_depthwise_on_maps_smaller_than_its_kernel(size):
    x, kernel = normal(3, *size, 4), normal(3, 3, 1, 4)
    arguments = {"feature_group_count": 4, "dimension_numbers": NHWC}
    ours, theirs = (
        values_and_gradients(
            lambda x, k, f=f: f(x, k, (2, 2), "SAME", **arguments), x, kernel
        )
        for f in (depthwise_conv, lax.conv_general_dilated)
    )
    assert_same(ours, theirs)


def test_depthwise_in_bfloat16_is_as_exact_as_bfloat16():
    x, kernel = normal(2, 6, 6, 4), normal(3, 3, 1, 4)
    f = functools.partial(
        depthwise_conv, strides=(1, 1), padding="SAME", feature_group_count=4
    )
    exact = values_and_gradients(
        f, *(a.astype(jnp.bfloat16).astype(np.float32) for a in (x, kernel))
    )[0]
    half = f(*(a.astype(jnp.bfloat16) for a in (x, kernel)))
    assert half.dtype == jnp.bfloat16
    assert_same([half], [exact.astype(jnp.bfloat16)])


def test_convolutions_that_are_not_depthwise_pass_through():
    x, kernel = normal(2, 6, 6, 4), normal(3, 3, 4, 5)
    arguments = {"dimension_numbers": NHWC, "out_sharding": None}
    ours = depthwise_conv(x, kernel, (1, 1), "SAME", **arguments)
    assert_same(
        [ours], [lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **arguments)]
    )
    grouped = {"feature_group_count": 4, "dimension_numbers": NHWC}
    dilated = {**grouped, "rhs_dilation": (2, 2)}
    kernel = normal(3, 3, 1, 4)
    ours = depthwise_conv(x, kernel, (1, 1), "SAME", **dilated)
    assert_same(
        [ours], [lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **dilated)]
    )


def test_nnx_conv_takes_the_rule():
    conv, native = (
        nnx.Conv(6, 6, (3, 3), strides=2, feature_group_count=6, rngs=nnx.Rngs(0), **k)
        for k in ({"conv_general_dilated": depthwise_conv}, {})
    )
    x = normal(2, 9, 8, 6)
    assert_same([conv(x)], [native(x)])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(2, 2), (1, 1), (2, 7), (4, 4), (5, 6)])
def test_small_maps_equal_native_and_its_gradients(stride, size):
    x, kernel = normal(3, *size, 4), normal(3, 3, 4, 5)
    arguments = {"dimension_numbers": NHWC, "out_sharding": None}
    padding = [(1, 1), (1, 1)]
    ours, theirs = (
        values_and_gradients(
            lambda x, k, f=f: f(x, k, (stride, stride), padding, **arguments), x, kernel
        )
        for f in (small_map_conv, lax.conv_general_dilated)
    )
    assert_same(ours, theirs)


def compiled(f, *arrays):
    """The names of the operations in f's jaxpr."""
    return str(jax.make_jaxpr(f)(*arrays))


def test_only_small_maps_leave_the_native_convolution():
    def conv(x, kernel):
        return small_map_conv(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC)

    kernel = normal(3, 3, 4, 5)
    assert "concatenate" in compiled(conv, normal(1, 2, 9, 4), kernel)
    assert "concatenate" not in compiled(conv, normal(1, 3, 9, 4), kernel)
    pointwise = normal(1, 1, 4, 5)
    assert "concatenate" not in compiled(conv, normal(1, 1, 1, 4), pointwise)


def conv_by_loops(x, kernel):
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.empty((*x.shape[:3], kernel.shape[-1]))
    for r, c in np.ndindex(x.shape[1:3]):
        window = padded[:, r : r + 3, c : c + 3].reshape(len(x), -1)
        y[:, r, c] = window @ kernel.reshape(-1, kernel.shape[-1])
    return y


@pytest.mark.parametrize("size", [(4, 4), (5, 8), (7, 7)])
def test_winograd_equals_loops_in_float64(size):
    x, kernel = normal(2, *size, 64), normal(3, 3, 64, 70)
    y = winograd_conv(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC)
    exact = conv_by_loops(x, kernel)
    np.testing.assert_allclose(y, exact, atol=2e-6 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("size", "chunk"),
    [((4, 4), 2500), ((5, 8), 2500), ((7, 7), 2500), ((5, 8), 2**18)],
)
def test_winograd_equals_native_and_its_gradients(size, chunk, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", chunk)
    x, kernel = normal(6, *size, 64), normal(3, 3, 64, 70)
    arguments = {"dimension_numbers": NHWC, "out_sharding": None}
    ours, theirs = (
        values_and_gradients(
            lambda x, k, f=f: f(x, k, (1, 1), [(1, 1), (1, 1)], **arguments), x, kernel
        )
        for f in (winograd_conv, lax.conv_general_dilated)
    )
    assert_same(ours, theirs, 4e-6)


def test_only_wide_float32_convolutions_of_larger_maps_take_winograds_way():
    def taken(x, kernel, strides=(1, 1), padding="SAME", **options):
        def conv(x, kernel):
            return winograd_conv(
                x, kernel, strides, padding, dimension_numbers=NHWC, **options
            )

        return "dot_general" in compiled(conv, x, kernel)

    x, kernel = normal(1, 5, 5, 64), normal(3, 3, 64, 64)
    assert taken(x, kernel)
    assert taken(x, kernel, padding=((1, 1), (1, 1)))
    assert not taken(x, kernel, padding="VALID")
    assert not taken(x, kernel, strides=(2, 2))
    assert not taken(x, kernel, rhs_dilation=(2, 2))
    assert not taken(x, kernel, precision=lax.Precision.HIGHEST)
    assert not taken(x, normal(3, 3, 64, 63))
    assert not taken(x, normal(3, 3, 32, 64), feature_group_count=2)
    assert not taken(normal(1, 9, 9, 64), normal(5, 5, 64, 64))
    assert not taken(normal(1, 3, 5, 64), kernel)
    assert not taken(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))


@pytest.mark.parametrize("convolve", [winograd_conv, strided_conv])
def test_an_unknown_batch_keeps_the_native_convolution(convolve):
    kernel = normal(3, 3, 64, 64)
    stride = 1 if convolve is winograd_conv else 2
    conv = jax.jit(
        lambda x: convolve(x, kernel, (stride,) * 2, "SAME", dimension_numbers=NHWC)
    )
    symbolic = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 6, 5, 64"), "float32")
    exported = jax.export.export(conv, platforms=("cpu", "cuda"))(symbolic)
    x = normal(3, 6, 5, 64)
    assert_same([exported.call(x)], [conv(x)])


@pytest.mark.parametrize(
    ("size", "chunk"), [((6, 6), 2500), ((5, 8), 2500), ((5, 8), 2**18)]
)
@pytest.mark.parametrize("width", [1, 2, 3])
def test_strided_equals_native_and_its_gradients(width, size, chunk, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", chunk)
    x, kernel = normal(6, *size, 64), normal(width, width, 64, 70)
    arguments = {"dimension_numbers": NHWC, "out_sharding": None}
    ours, theirs = (
        values_and_gradients(
            lambda x, k, f=f: f(x, k, (2, 1), "SAME", **arguments), x, kernel
        )
        for f in (strided_conv, lax.conv_general_dilated)
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("batch, samples", [(1, 1), (7, 7), (12, 3), (12, 5), (64, 10)])
def test_chunks_hold_every_sample_once_and_are_not_too_long(batch, samples):
    x = np.arange(batch * 2).reshape(batch, 2)
    (split,) = chunks.in_chunks(chunks.CHUNK // samples, x)
    parts = [np.asarray(chunks.chunk(split, i)) for i in range(split.shape[1])]
    assert max(map(len, parts)) <= samples
    assert sorted(np.concatenate(parts).tolist()) == x.tolist()
    again = jnp.zeros_like(split)
    for i, part in enumerate(parts):
        again = chunks.put_chunk(again, part, i)
    np.testing.assert_array_equal(again.reshape(x.shape), x)


def pool_by_loops(x):
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    h, w = (x.shape[1] - 1) // 2, (x.shape[2] - 1) // 2
    y = np.empty((len(x), h, w, x.shape[3]), x.dtype)
    for r, c in np.ndindex(h, w):
        y[:, r, c] = x[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max((1, 2))
    return y


SIZES = [(8, 8), (7, 10), (5, 5), (1, 1), (2, 3)]


@pytest.mark.parametrize("size", SIZES)
def test_max_pool_equals_loops(size):
    x = normal(2, *size, 3) - 5  # a padding of zeros would win everywhere
    np.testing.assert_array_equal(max_pool(x), pool_by_loops(x))


@pytest.mark.parametrize("size", SIZES)
def test_max_pool_gradient_equals_reduce_windows_also_where_values_tie(size):
    def native(x):
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding
        )

    rectified = np.maximum(normal(2, *size, 3), 0)  # windows of zeros only
    for x in (normal(2, *size, 3), rectified, np.zeros_like(rectified)):
        assert_same(
            values_and_gradients(max_pool, x), values_and_gradients(native, x), 1e-6
        )


def test_max_pool_hands_on_all_of_the_gradient_inside_a_network(
    optimized_programs, monkeypatch
):
    """Compiled together, what comes before may be computed again, rounded otherwise.

    The gradient of every weight is the native pool's, batch norm and ReLU before it.
    The network ends with the stage after the pool.
    """

    def gradients():
        @functools.partial(jax.jit, compiler_options=optimized_programs)
        @jax.grad
        def gradient(params, stats):
            model = nnx.merge(graphdef, params, stats)
            return (model.lower(x, train=True) * g).sum()

        return gradient(params, stats)

    x = normal(50, 32, 32, 3)
    model = ResNet18(width=4, rngs=nnx.Rngs(0))
    model.stages = nnx.List(model.stages[:1])
    g = normal(50, 8, 8, 4)
    graphdef, params, stats = split_model(model)
    ours = jax.tree.leaves(gradients())
    monkeypatch.setattr(
        resnet,
        "max_pool",
        lambda x: nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
    )
    assert_same(ours, jax.tree.leaves(gradients()), 1e-3)


def plain_batch_norm(x, scale, bias):
    mean, var = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
    y = (x - mean) * lax.rsqrt(var + 1e-5)
    return y * scale[None, None, None] + bias[None, None, None]


@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (4, 1, 2, 3), (1, 8, 1, 3)])
def test_batch_norm_equals_autodiff(shape):
    x, scale, bias = normal(*shape), normal(3), normal(3) + 1
    ours = values_and_gradients(lambda *a: batch_norm(*a, 1e-5)[0], x, scale, bias)
    theirs = values_and_gradients(plain_batch_norm, x, scale, bias)
    assert_same(ours, theirs, 2e-5)


def test_batch_norm_does_not_cancel():
    x = normal(8, 6, 6, 3) * 0.01 + 1000.0
    _, mean, var = jax.jit(lambda x: batch_norm(x, jnp.ones(3), jnp.ones(3), 1e-5))(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-2)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_module_equals_flaxs(dtype, train):
    x = normal(4, 5, 6, 3) * 2 + 1
    modules = [
        kind(3, momentum=0.9, dtype=dtype, rngs=nnx.Rngs(0))
        for kind in (BatchNorm, nnx.BatchNorm)
    ]
    ours, theirs = (m(x, use_running_average=not train) for m in modules)
    assert_same([ours], [theirs], 1e-2 if dtype else 1e-5)
    states = [jax.tree.leaves(nnx.to_pure_dict(nnx.state(m))) for m in modules]
    assert_same(*states, 1e-2 if dtype else 1e-5)


def test_batch_norm_module_takes_masks_and_vectors_as_flaxs():
    x = normal(4, 3)
    ours, theirs = (
        kind(3, rngs=nnx.Rngs(0))(x, use_running_average=False)
        for kind in (BatchNorm, nnx.BatchNorm)
    )
    assert_same([ours], [theirs])
    x, mask = normal(4, 2, 2, 3), np.array([1, 1, 0, 1], bool)[:, None, None, None]
    ours, theirs = (
        kind(3, rngs=nnx.Rngs(0))(x, use_running_average=False, mask=mask)
        for kind in (BatchNorm, nnx.BatchNorm)
    )
    assert_same([ours], [theirs])


@pytest.mark.parametrize("batch", [1, 7, 12])
def test_in_turn_is_the_whole_batch_at_once(monkeypatch, batch):
    monkeypatch.setattr(in_turn, "NUMBERS", 2 * 60)  # two images for each core
    monkeypatch.setattr(in_turn, "num_cores", lambda: 1)
    sizes = []

    def network(images):
        sizes.append(len(images))
        return jnp.einsum("bhwc,hd->bdc", images, kernel)

    images, kernel = normal(batch, 5, 4, 3), normal(5, 2)
    expected = np.einsum("bhwc,hd->bdc", images, kernel)
    np.testing.assert_allclose(
        in_turn.in_turn(network, images), expected, rtol=1e-5, atol=1e-5
    )
    assert min(sizes) == {1: 1, 7: 1, 12: 2}[batch]


def test_a_network_in_turn_keeps_its_maps_and_gradients(monkeypatch):
    """The first three blocks of MobileNetV2, image by image."""
    model = nnx.eval_shape(lambda: MobileNetV2(num_lower_blocks=3, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    state = jax.tree.map(lambda leaf: normal(*leaf.shape) ** 2, state)
    images, seen = normal(4, 16, 16, 3), []

    def lower(images):
        return nnx.merge(graphdef, state).lower(images, train=False)

    for numbers in 2**19, 1:
        monkeypatch.setattr(in_turn, "NUMBERS", numbers)
        seen.append(values_and_gradients(lambda images: lower(images), images))
    assert_same(*seen)
