# %% [markdown]
# # ModalAwareBlock in your own model
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/modal_aware_jax/blob/main/notebooks/use_in_your_model.ipynb)
#
# The block takes image maps [B, H, W, C] and a text vector [B, T] and returns the same
# shapes, so it fits between any two layers where both exist. Once in Flax NNX, once in
# Flax Linen, a minute on a CPU.

# %%
import importlib.util
import subprocess
import sys

REPOSITORY = "https://github.com/OWNER/modal_aware_jax"
if importlib.util.find_spec("modal_aware_jax") is None:
    package = f"modal-aware-jax[train] @ git+{REPOSITORY}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)

# %%
import functools
import os

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import nnx

from modal_aware_jax import (
    KernelNetwork,
    ModalAwareBlock,
    PositionKernel,
    SqueezedChannelAttention,
)
from modal_aware_jax import linen as modal_aware_linen
from modal_aware_jax.blocks.channel_attention import double_sigmoid

# The tests of the package run every notebook on next to nothing.
TINY = "MODAL_AWARE_TINY" in os.environ
STEPS = 20 if TINY else 300

# %% [markdown]
# ## Shapes in, shapes out

# %%
block = ModalAwareBlock(image_features=64, text_features=32, rngs=nnx.Rngs(0))
maps, text = block(jnp.ones((2, 7, 7, 64)), jnp.ones((2, 32)))
print(maps.shape, text.shape)

# %% [markdown]
# Without further arguments this is the paper's literal form. Plain inner products scale
# its features by numbers of any size, and softmax gates, which sum to one, divide them
# by about the number of channels. The recommended form weighs positions by a softmax of
# mean one and channels by gates of 2σ. Both are exactly one at the start: the block
# changes nothing until training makes it.

# %%
attention = functools.partial(
    SqueezedChannelAttention, gate=double_sigmoid, logit_init=nnx.initializers.zeros
)
recommended = functools.partial(
    ModalAwareBlock, kernel_network=PositionKernel, channel_attention=attention
)


def rms(x):
    return float(jnp.sqrt(jnp.mean(x**2)))


maps = jax.random.normal(jax.random.key(0), (8, 7, 7, 64))
text = jax.random.normal(jax.random.key(1), (8, 32))
for name, form in (("literal", ModalAwareBlock), ("recommended", recommended)):
    new_maps, new_text = form(64, 32, rngs=nnx.Rngs(0))(maps, text)
    print(f"{name:12} maps {rms(maps):.3f} -> {rms(new_maps):.3f}", end="   ")
    print(f"text {rms(text):.3f} -> {rms(new_text):.3f}")

# %% [markdown]
# ## A task that needs both
#
# An image with one bright spot and a text that names a corner. Is the spot in that
# corner? Neither half tells: each label is as likely whatever the image, and whatever
# the text.


# %%
def examples(key, count=64, size=8):
    """Images [B, S, S, 1], texts [B, 4], labels [B] of 0 and 1."""
    keys = jax.random.split(key, 4)
    corner = jax.random.randint(keys[0], (count,), 0, 4)
    told = jax.random.randint(keys[1], (count,), 0, 4)
    same = jax.random.bernoulli(keys[2], 0.5, (count,))
    told = jnp.where(same, corner, jnp.where(told == corner, (told + 1) % 4, told))
    rows, columns = (corner // 2) * (size - 2), (corner % 2) * (size - 2)
    grid = jnp.arange(size)
    inside_row = (grid[None] - rows[:, None]) // 2 == 0
    inside_column = (grid[None] - columns[:, None]) // 2 == 0
    spot = (inside_row[:, :, None] & inside_column[:, None, :]).astype(jnp.float32)
    images = spot + 0.1 * jax.random.normal(keys[3], spot.shape)
    return images[..., None], jax.nn.one_hot(told, 4), same.astype(jnp.float32)


images, texts, labels = examples(jax.random.key(0))
print(images.shape, texts.shape, labels[:8])

# %% [markdown]
# ## In NNX


# %%
class Model(nnx.Module):
    """Two small encoders, joined late; `block` may make them aware of each other."""

    def __init__(self, block, *, rngs):
        self.conv = nnx.Conv(1, 32, (3, 3), strides=2, rngs=rngs)
        self.dense = nnx.Linear(4, 32, rngs=rngs)
        self.where = nnx.Param(0.1 * jax.random.normal(rngs.params(), (4, 4, 32)))
        self.block = nnx.data(block(32, 32, rngs=rngs) if block else None)
        self.out = nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, images, texts):
        maps = nnx.relu(self.conv(images) + self.where[...][None])  # [B, 4, 4, 32]
        text = nnx.relu(self.dense(texts))  # [B, 32]
        if self.block is not None:
            maps, text = self.block(maps, text)  # the only new line
        joint = jnp.concatenate([maps.mean(axis=(1, 2)), text], axis=-1)
        return self.out(joint)[:, 0]


def train(block):
    model = Model(block, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)

    @nnx.jit
    def update(model, optimizer, key):
        images, texts, labels = examples(key)

        def loss(model):
            logits = model(images, texts)
            return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    for step in range(STEPS):
        update(model, optimizer, jax.random.key(step))
    images, texts, labels = examples(jax.random.key(10**6), count=2000)
    return float(jnp.mean((model(images, texts) > 0) == (labels > 0)))


print(f"joined late       {train(None):.1%} right")
print(f"modal-aware first {train(recommended):.1%} right")

# %% [markdown]
# Joined late by one linear layer, what image and text say can only be added, and no sum
# tells whether they match: a coin does as well. With the block in between, the text
# picks the positions it matches.
#
# ## In Linen
#
# The same names as keyword arguments, without `rngs`; `init`, `apply` and nesting work
# as always. Run both under `jax.jit`.


# %%
class LinenModel(nn.Module):
    @nn.compact
    def __call__(self, images, texts):
        maps = nn.Conv(32, (3, 3), strides=2)(images)
        where = self.param("where", nn.initializers.normal(0.1), (4, 4, 32))
        maps = nn.relu(maps + where[None])
        text = nn.relu(nn.Dense(32)(texts))
        maps, text = modal_aware_linen.ModalAwareBlock(
            image_features=32,
            text_features=32,
            kernel_network=PositionKernel,
            channel_attention=attention,
        )(maps, text)
        joint = jnp.concatenate([maps.mean(axis=(1, 2)), text], axis=-1)
        return nn.Dense(1)(joint)[:, 0]


model = LinenModel()
variables = jax.jit(model.init)(jax.random.key(0), images, texts)
tx = optax.adam(3e-3)
opt_state = tx.init(variables)


@jax.jit
def update(variables, opt_state, key):
    images, texts, labels = examples(key)

    def loss(variables):
        logits = model.apply(variables, images, texts)
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

    gradients = jax.grad(loss)(variables)
    updates, opt_state = tx.update(gradients, opt_state)
    return optax.apply_updates(variables, updates), opt_state


for step in range(STEPS):
    variables, opt_state = update(variables, opt_state, jax.random.key(step))
many, told, labels = examples(jax.random.key(10**6), count=2000)
right = jnp.mean((jax.jit(model.apply)(variables, many, told) > 0) == (labels > 0))
print(f"Linen, modal-aware {float(right):.1%} right")

# %% [markdown]
# ## Its halves, and its cost
#
# A block's halves can be used alone: `PositionKernel` (which positions) or the literal
# `KernelNetwork` (which positions, how much text), and `SqueezedChannelAttention` or
# the literal `ChannelAttention` (which channels). With T text features the literal
# kernel network has a T x T weight; as an inner product with C channels has rank C at
# most, `rank=C + 1` covers the same functions. The recommended form is smaller still.

# %%
forms = {
    "literal": ModalAwareBlock,
    "low-rank kernel": functools.partial(
        ModalAwareBlock, kernel_network=functools.partial(KernelNetwork, rank=65)
    ),
    "recommended": recommended,
    "its positions only": PositionKernel,
    "its channels only": attention,
}
for name, form in forms.items():
    shapes = nnx.eval_shape(lambda form=form: form(64, 1024, rngs=nnx.Rngs(0)))
    count = sum(x.size for x in jax.tree.leaves(nnx.state(shapes, nnx.Param)))
    print(f"{name:22} {count:10,} weights")
