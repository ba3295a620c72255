"""The modal-aware block inside somebody's small Flax NNX model."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from modal_aware_jax import ModalAwareBlock


class Tagger(nnx.Module):
    """Somebody's small model, with one line of ours in each method."""

    def __init__(self, num_labels, *, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.words = nnx.Linear(5, 6, rngs=rngs)
        self.block = ModalAwareBlock(8, 6, rngs=rngs)
        self.labels = nnx.Linear(8 + 6, num_labels, rngs=rngs)

    def __call__(self, images, words, *, train=False):
        maps = self.conv(images)  # [B, H, W, 8]
        maps = nnx.relu(self.norm(maps, use_running_average=not train))
        words = nnx.relu(self.words(words))  # [B, 6]
        maps, words = self.block(maps, words)
        return self.labels(jnp.concatenate([maps.mean(axis=(1, 2)), words], axis=-1))


def test_an_nnx_model_with_the_block_trains_every_parameter(key):
    image_key, text_key, label_key = jax.random.split(key, 3)
    images = jax.random.normal(image_key, (4, 8, 8, 3))
    words = jax.random.normal(text_key, (4, 5))
    labels = jax.random.bernoulli(label_key, 0.5, (4, 3)).astype(jnp.float32)

    model = Tagger(3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    before = jax.device_get(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    before = jax.tree.map(np.copy, before)

    @nnx.jit
    def update(model, optimizer):
        def loss(model):
            logits = model(images, words, train=True)
            return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    first = update(model, optimizer)
    after = jax.device_get(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)
    assert all(jax.tree.leaves(moved)), moved
    chex.assert_tree_all_finite(after)
    assert float(jnp.abs(model.norm.mean[...]).sum()) > 0
    for _ in range(20):
        last = update(model, optimizer)
    assert last < first


def test_the_block_keeps_shapes_and_dtypes_of_both_modalities():
    block = ModalAwareBlock(8, 6, rngs=nnx.Rngs(0))
    for size in (1, 2, 7):
        image, text = block(jnp.ones((2, size, size + 1, 8)), jnp.ones((2, 6)))
        chex.assert_shape([image, text], [(2, size, size + 1, 8), (2, 6)])
        chex.assert_type([image, text], jnp.float32)
