"""A child of test_devices.py: one training on one, on eight and on 4 x 2 devices."""

import sys

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh
from test_multimodal_hashing import TinyBackbone

from modal_aware_jax.backbones import mobilenet, resnet
from modal_aware_jax.cpu import chunks, small_maps, strided, winograd
from modal_aware_jax.losses.expected_ap import expected_average_precision_loss
from modal_aware_jax.losses.triplet import triplet_ranking
from modal_aware_jax.models import MultimodalHashing
from modal_aware_jax.training import devices
from modal_aware_jax.training.update import init_state, make_update, split_model

WIDE, BATCH = 32, 16


class Backbone(TinyBackbone):
    """With batch norm, and a depthwise convolution: the rules that look at a batch."""

    def __init__(self, *, rngs):
        options = {"dtype": None, "rngs": rngs}
        self.first = resnet.ConvNorm(3, 4, 3, 2, **options)
        self.middle = mobilenet.ConvNorm(4, 4, 3, groups=4, **options)
        self.second = resnet.ConvNorm(4, 6, 3, 2, **options)

    def lower(self, images, *, train):
        return self.middle(nnx.relu(self.first(images, train=train)), train=train)

    def upper(self, maps, *, train):
        return nnx.relu(self.second(maps, train=train))


def loss_fn(model, batch, key):
    text = batch["text"] * jax.random.bernoulli(key, 0.9, batch["text"].shape)
    relaxed = model(batch["image"], text, train=True)
    h, labels = jax.numpy.tanh(relaxed), batch["labels"]
    ranked = expected_average_precision_loss(h, labels)
    return triplet_ranking(h, labels) + ranked


def batches(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {
            "image": rng.normal(size=(BATCH, 16, 16, 3)).astype(np.float32),
            "text": (rng.random((BATCH, 9)) < 0.4).astype(np.float32),
            "labels": (rng.random((BATCH, 3)) < 0.4).astype(np.uint8),
        }


def train(mesh):
    """State after three steps, losses, and a call that gives the step's program."""
    rngs = nnx.Rngs(0)
    model = MultimodalHashing(
        Backbone(rngs=rngs), 9, 8, text_widths=(WIDE, 8), rngs=rngs
    )
    # The literal gates leave tiny features: scale up what they would hide.
    model.head.dense.kernel[...] = model.head.dense.kernel[...] * 100
    tx = optax.sgd(0.1, momentum=0.9)
    graphdef, params, stats = split_model(model)
    state = init_state(params, stats, tx)
    where = devices.state_shardings(state, mesh, WIDE)
    shardings = where, devices.by_rows(mesh)
    update = make_update(graphdef, loss_fn, tx, shardings=shardings)
    state, key, losses = devices.put(state, where), devices.key_of(5, mesh), []
    for batch in batches(3):
        batch = devices.put_batch(batch, mesh)
        state, metrics = update(state, batch, key)
        losses.append(float(metrics["loss"]))
    return state, losses, lambda: update.lower(state, batch, key).compile().as_text()


def convolve(mesh):
    """Two convolutions in chunks: value, gradients, and the program."""
    small_maps.MIN_FEATURES = 4
    chunks.CHUNK = 64

    def loss(kernels, images):
        maps = winograd.winograd_conv(images, kernels[0], (1, 1), "SAME")
        maps = strided.strided_conv(maps, kernels[1], (2, 2), "SAME")
        return (maps**2).mean()

    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(2, 3, 3, 4, 4)).astype(np.float32)
    images = {"x": rng.normal(size=(BATCH, 8, 8, 4)).astype(np.float32)}
    images = devices.put_batch(images, mesh)["x"]
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(kernels, images)
    step = step.compile()
    value, gradients = step(kernels, images)
    return [np.asarray(array) for array in (value, *gradients)], step.as_text()


if __name__ == "__main__":
    one = Mesh(
        np.array(jax.devices()[:1]).reshape(1, 1),
        (devices.DATA, devices.TENSOR),
        axis_types=(AxisType.Auto,) * 2,
    )
    results = {}
    for name, mesh in {
        "one": one,
        "eight": devices.device_mesh(),
        "tensor": devices.device_mesh(2),
    }.items():
        state, losses, program = train(mesh)
        for path, leaf in jax.tree.leaves_with_path(state):
            label = jax.tree_util.keystr(path, simple=True, separator=".")
            results[f"{name}/{label}"] = np.asarray(leaf)
            shape = leaf.sharding.shard_shape(leaf.shape)
            results[f"{name}-shard/{label}"] = np.array(shape)
        results[f"{name}-losses"] = np.array(losses)
        if name == "eight":
            results["program"] = np.array(program())
    arrays, program = convolve(devices.device_mesh())
    results |= {f"convolved/{k}": array for k, array in enumerate(arrays)}
    results["convolving"] = np.array(program)
    arrays, _ = convolve(one)
    results |= {f"convolved-one/{k}": array for k, array in enumerate(arrays)}
    np.savez(sys.argv[1], **results)
