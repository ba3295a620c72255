"""What the CPU rules of `modal_aware_jax/cpu` bring, in one alternating run.

    JAX_PLATFORMS=cpu python benchmarks/cpu_rules.py [--rounds=5] [--network]

Every row times forward plus backward, compiled, at shapes that MobileNetV2 (192
pixels, batch 100) and ResNet-18 (64 and 224 pixels) meet. The two sides take turns; the
table has each one's fastest round and their ratio. `--clock=cpu` counts the process's
CPU time instead of the wall's, for machines that do other work. `--network` adds whole
gradients of both networks and MobileNetV2's maps without them.
"""

import argparse
import functools
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from modal_aware_jax.backbones import mobilenet, resnet
from modal_aware_jax.cpu import batch_norm as batch_norm_rule
from modal_aware_jax.cpu import depthwise, max_pool, rows, small_maps, strided, winograd

NHWC = ("NHWC", "HWIO", "NHWC")


def normal(*shape):
    generator = np.random.default_rng(sum(shape))
    return jnp.asarray(generator.normal(size=shape), jnp.float32)


def gradient(f):
    """Forward and backward of f as one compiled function of (cotangent, *arrays)."""

    def both(g, *arrays):
        y, vjp = jax.vjp(f, *arrays)
        return y, vjp(g)

    return jax.jit(both)


def depthwise_pair(batch, size, channels, stride):
    def conv(f, x, kernel):
        return f(
            x,
            kernel,
            (stride, stride),
            "SAME",
            feature_group_count=channels,
            dimension_numbers=NHWC,
        )

    arrays = normal(batch, size, size, channels), normal(3, 3, 1, channels)
    plain = functools.partial(conv, lax.conv_general_dilated)
    return plain, functools.partial(conv, depthwise.depthwise_conv), arrays


def conv_pair(rule, batch, size, in_features, features, stride):
    def conv(f, x, kernel):
        padding = [(1, 1), (1, 1)]
        return f(x, kernel, (stride, stride), padding, dimension_numbers=NHWC)

    arrays = normal(batch, size, size, in_features), normal(3, 3, in_features, features)
    plain = functools.partial(conv, lax.conv_general_dilated)
    return plain, functools.partial(conv, rule), arrays


small_map_pair = functools.partial(conv_pair, small_maps.small_map_conv)
strided_pair = functools.partial(conv_pair, strided.strided_conv)
winograd_pair = functools.partial(conv_pair, winograd.winograd_conv)


def rows_pair(batch, tokens, features, outputs):
    def dense(f, x, kernel):
        return f(x, kernel, (((2,), (0,)), ((), ())))

    arrays = normal(batch, tokens, features), normal(features, outputs)
    plain = functools.partial(dense, lax.dot_general)
    return plain, functools.partial(dense, rows.dot_of_rows), arrays


def max_pool_pair(batch, size, channels):
    def plain(x):
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding
        )

    return plain, max_pool.max_pool, (normal(batch, size, size, channels),)


def batch_norm_pair(batch, size, channels):
    def train(kind, x, scale, bias):
        norm = kind(channels, rngs=nnx.Rngs(0))
        norm.scale[...], norm.bias[...] = scale, bias
        return jax.nn.relu(norm(x, use_running_average=False))

    arrays = normal(batch, size, size, channels), normal(channels), normal(channels)
    return (
        functools.partial(train, nnx.BatchNorm),
        functools.partial(train, batch_norm_rule.BatchNorm),
        arrays,
    )


ROWS = {
    "depthwise 100x12x12x576": (depthwise_pair, 100, 12, 576, 1),
    "depthwise 100x12x12x576, stride 2": (depthwise_pair, 100, 12, 576, 2),
    "depthwise 100x6x6x960": (depthwise_pair, 100, 6, 960, 1),
    "3x3 16x2x2x512": (small_map_pair, 16, 2, 512, 512, 1),
    "3x3 16x4x4x256 to 512, stride 2": (small_map_pair, 16, 4, 256, 512, 2),
    "3x3 16x56x56x64": (winograd_pair, 16, 56, 64, 64, 1),
    "3x3 16x28x28x128": (winograd_pair, 16, 28, 128, 128, 1),
    "3x3 16x14x14x256": (winograd_pair, 16, 14, 256, 256, 1),
    "3x3 16x7x7x512": (winograd_pair, 16, 7, 512, 512, 1),
    "3x3 16x4x4x512": (winograd_pair, 16, 4, 512, 512, 1),
    "3x3 1x14x14x256": (winograd_pair, 1, 14, 256, 256, 1),
    "3x3 64x56x56x64": (winograd_pair, 64, 56, 64, 64, 1),
    "3x3 64x56x56x64 to 128, stride 2": (strided_pair, 64, 56, 64, 128, 2),
    "3x3 16x56x56x64 to 128, stride 2": (strided_pair, 16, 56, 64, 128, 2),
    "rows 20x64x512 to 512": (rows_pair, 20, 64, 512, 512),
    "rows 20x64x512 to 2048": (rows_pair, 20, 64, 512, 2048),
    "rows 20x64x2048 to 512": (rows_pair, 20, 64, 2048, 512),
    "rows 32x144x64 to 384": (rows_pair, 32, 144, 64, 384),
    "max pool 8x112x112x64": (max_pool_pair, 8, 112, 64),
    "max pool 16x32x32x64": (max_pool_pair, 16, 32, 64),
    "batch norm 8x56x56x64": (batch_norm_pair, 8, 56, 64),
    "batch norm 16x16x16x64": (batch_norm_pair, 16, 16, 64),
    "batch norm 100x12x12x576": (batch_norm_pair, 100, 12, 576),
}


def plain_max_pool(x):
    return nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def without_rules():
    """Replaces every rule by the native operation while a network is built and run."""
    stack = mock.patch.multiple(
        resnet,
        winograd_conv=lax.conv_general_dilated,
        max_pool=plain_max_pool,
        BatchNorm=nnx.BatchNorm,
    )
    other = mock.patch.multiple(
        mobilenet,
        depthwise_conv=lax.conv_general_dilated,
        pointwise_conv=lax.conv_general_dilated,
        in_turn=lambda network, images: network(images),
        BatchNorm=nnx.BatchNorm,
    )
    return stack, other


def network_of(kind):
    """maps(params, images, train) of a network, and its parameters."""
    model = nnx.jit(lambda: kind(rngs=nnx.Rngs(0)))()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    def maps(params, images, train):
        return nnx.merge(graphdef, params, rest)(images, train=train)

    return maps, params


def network_gradient(kind):
    maps, params = network_of(kind)

    def loss(params, images):
        return sum((m**2).mean() for m in maps(params, images, True).values())

    return jax.jit(jax.grad(loss)), params


def network_maps(kind):
    maps, params = network_of(kind)
    return jax.jit(lambda params, images: maps(params, images, False)), params


def network_pair(program, kind, batch, size):
    """The two compiled programs and their arguments."""
    images = normal(batch, size, size, 3)
    fast, params = program(kind)
    jax.block_until_ready(fast(params, images))
    patches = without_rules()
    with patches[0], patches[1]:
        plain, _ = program(kind)
        jax.block_until_ready(plain(params, images))  # compiled while patched
    return plain, fast, (params, images)


NETWORKS = {
    "ResNet-18 gradient, 64 pixels, batch 16": (
        network_gradient,
        resnet.ResNet18,
        16,
        64,
    ),
    "ResNet-18 gradient, 224 pixels, batch 16": (
        network_gradient,
        resnet.ResNet18,
        16,
        224,
    ),
    "ResNet-18 gradient, 224 pixels, batch 64": (
        network_gradient,
        resnet.ResNet18,
        64,
        224,
    ),
    "MobileNetV2 gradient, 128 pixels, batch 8": (
        network_gradient,
        mobilenet.MobileNetV2,
        8,
        128,
    ),
    "MobileNetV2 maps, 160 pixels, batch 64": (
        network_maps,
        mobilenet.MobileNetV2,
        64,
        160,
    ),
}


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def report(name, plain, fast, arrays, options):
    clock = CLOCKS[options.clock]

    def seconds(f):
        start = clock()
        jax.block_until_ready(f(*arrays))
        return clock() - start

    seconds(plain), seconds(fast)  # compile
    times = [(seconds(plain), seconds(fast)) for _ in range(options.rounds)]
    a, b = (min(column) * 1e3 for column in zip(*times, strict=True))
    print(f"| {name} | {a:.1f} | {b:.1f} | {a / b:.1f}x |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--only", default="", help="rows with this in their name")
    options = parser.parse_args()
    print("| forward and backward, ms | native | rule | ratio |\n|---|---|---|---|")
    for name, (pair, *shape) in ROWS.items():
        if options.only not in name:
            continue
        plain, fast, arrays = pair(*shape)
        g = normal(*jax.eval_shape(plain, *arrays).shape)
        report(name, gradient(plain), gradient(fast), (g, *arrays), options)
    for name, network in NETWORKS.items() if options.network else ():
        if options.only not in name:
            continue
        report(name, *network_pair(*network), options)


if __name__ == "__main__":
    main()
