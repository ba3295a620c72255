# %% [markdown]
# # What the modal-aware blocks do
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/modal_aware_jax/blob/main/notebooks/inspect.ipynb)
#
# Trains the network with its blocks and without them, then looks inside: where the
# kernel network looks in a picture, which channels the attention opens, how the codes
# lie, and what changes when the blocks are taken away.

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
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from IPython.display import Image, display

from modal_aware_jax import (
    KernelNetwork,
    ModalAwareBlock,
    MultimodalHashing,
    ResNet18,
    SqueezedChannelAttention,
)
from modal_aware_jax.blocks.channel_attention import mean_one_softmax
from modal_aware_jax.blocks.kernel_network import bounded_residual, position_scores
from modal_aware_jax.blocks.modal_aware import PassThrough
from modal_aware_jax.data import pipeline, protocol, shapes
from modal_aware_jax.hashing.encode import encode
from modal_aware_jax.losses.triplet import triplet_ranking
from modal_aware_jax.report.code_space import pca, tsne
from modal_aware_jax.report.curves import draw_precision_recall
from modal_aware_jax.retrieval import evaluate
from modal_aware_jax.training import (
    adam_l2,
    cosine,
    init_state,
    make_update,
    split_model,
)

# The tests of the package run every notebook on next to nothing.
TINY = "MODAL_AWARE_TINY" in os.environ
NUM_PAIRS, NUM_QUERIES, NUM_TRAIN = (160, 20, 60) if TINY else (2400, 300, 1800)
SIZE, WIDTH, BATCH, EPOCHS = (32, 4, 20, 1) if TINY else (64, 16, 50, 6)
BITS = 32

# %% [markdown]
# ## Two networks
#
# The same but for the blocks: `modal-aware` has the recommended form, `concat` joins
# image and text at the end only. A minute each on two cores, which is short: the
# README has comparisons of networks that were trained to the end.

# %%
pairs = shapes.load(num_pairs=NUM_PAIRS, image_size=SIZE)
split = protocol.split(
    len(pairs), num_queries=NUM_QUERIES, num_train=NUM_TRAIN, num_validation=0, seed=0
)


def low_rank_kernel(image_features, text_features, *, rngs):
    rank = min(image_features + 1, text_features)
    return KernelNetwork(
        image_features,
        text_features,
        rank=rank,
        similarity=bounded_residual,
        rngs=rngs,
    )


modal_aware = functools.partial(
    ModalAwareBlock,
    kernel_network=low_rank_kernel,
    channel_attention=functools.partial(
        SqueezedChannelAttention, gate=mean_one_softmax
    ),
)


def normalize(images):
    return (jnp.asarray(images, jnp.float32) - 118.0) / 58.0


def loss_fn(model, batch, key):
    relaxed = model(normalize(batch["image"]), batch["text"], train=True)
    return triplet_ranking(jnp.tanh(relaxed), batch["labels"])


def train(block):
    """A trained network with these blocks."""

    @nnx.jit
    def build():
        rngs = nnx.Rngs(0)
        backbone = ResNet18(width=WIDTH, rngs=rngs)
        words = len(pairs.vocabulary)
        widths = (256, 64)
        return MultimodalHashing(
            backbone, words, BITS, text_widths=widths, block=block, rngs=rngs
        )

    graphdef, params, stats = split_model(build())
    steps_per_epoch = len(split.train) // BATCH
    tx = adam_l2(cosine(1e-3, num_steps=EPOCHS * steps_per_epoch, warmup_steps=2))
    update = make_update(graphdef, loss_fn, tx)
    state = init_state(params, stats, tx)
    batches = iter(
        pipeline.train_batches(
            pairs, split.train, batch_size=BATCH, image_size=SIZE, seed=0
        )
    )
    for _ in range(EPOCHS * steps_per_epoch):
        state, metrics = update(state, next(batches), jax.random.key(0))
    print(f"last loss {float(metrics['loss']):.3f}")
    return nnx.merge(graphdef, state.params, state.stats)


models = {"modal-aware": train(modal_aware), "concat": train(PassThrough)}

# %% [markdown]
# ## Retrieval with and without


# %%
def relaxed_of(model, positions, collection=pairs):
    """Relaxed bits [N, K] of some pairs, and their packed codes."""
    kept = []
    graphdef, state = nnx.split(model)

    @jax.jit
    def relaxed(state, images, text):
        return nnx.merge(graphdef, state)(normalize(images), text, train=False)

    def bits(batch):
        kept.append(np.asarray(relaxed(state, batch["image"], batch["text"])))
        return kept[-1]

    batches = pipeline.eval_batches(
        collection, positions, batch_size=BATCH, image_size=SIZE
    )
    codes = encode(bits, batches)[0]
    return np.concatenate(kept)[: len(positions)], codes


def score(model):
    parts = split.query, split.database[:1200]  # enough to see differences
    codes = [relaxed_of(model, part)[1] for part in parts]
    labels = [pairs.labels[part] for part in parts]
    return evaluate(*codes, *labels, num_bits=BITS)


results = {name: score(model) for name, model in models.items()}
for name, result in results.items():
    print(f"{name:12} MAP {result['map_expected']:.3f}")
draw_precision_recall(results, "precision_recall.png")
display(Image("precision_recall.png", width=480))

# %% [markdown]
# ## Where the kernel network looks
#
# In block 1 every position of the picture is weighted by its similarity with the text,
# between 0 and 2, by 1 where they have nothing to do with each other. The map has one
# position in 16 pixels; moved over the picture in steps of four pixels it is drawn
# finer. The second row has the tags of another pair: where the map
# changes, it is the text that directs it.

# %%
STRIDE, STEP = 16, 4
network = models["modal-aware"]
kernel_network = network.block1.kernel_network


@jax.jit
def position_weights(images, text):
    """Weights [B, h, w] of the kernel network of block 1."""
    maps = network.backbone.lower(normalize(images), train=False)
    query = kernel_network.image_query(network.text.wide(text))
    scores = position_scores(maps, kernel_network.image_key, query)
    return kernel_network.similarity(scores, kernel_network.image_features)


def fine_weights(image, text):
    """The same for one picture on a grid of STEP pixels."""
    half = STRIDE // 2
    padded = np.pad(image, ((half, half), (half, half), (0, 0)), mode="edge")
    height, width = (side // STRIDE for side in image.shape[:2])
    fine = np.zeros((height, STRIDE // STEP, width, STRIDE // STEP), np.float32)
    offsets = range(0, STRIDE, STEP)
    windows = [
        padded[y : y + image.shape[0], x : x + image.shape[1]]
        for y in offsets
        for x in offsets
    ]
    texts = np.repeat(text[None].astype(np.float32), len(windows), axis=0)
    weights = np.asarray(position_weights(np.stack(windows), texts))
    for number, found in enumerate(weights):
        row, column = divmod(number, len(offsets))
        fine[:, row, :, column] = found[:height, :width]
    return fine.reshape(height * len(offsets), width * len(offsets))


shown = split.query[:5]
others = np.roll(shown, 1)
figure, axes = plt.subplots(
    3, len(shown), figsize=(10, 7), dpi=66, layout="constrained"
)
drawn = {}
for column, position in enumerate(shown):
    image = np.asarray(pipeline.decode(pairs.images[int(position)]))
    axes[0, column].imshow(image)
    for row, told in ((1, position), (2, others[column])):
        drawn[row, column] = image, fine_weights(image, pairs.text[told])
        axes[row, column].set_xlabel(
            "\n".join(pairs.captions[int(told)].split()[:4]), fontsize=8
        )
low = min(weights.min() for _, weights in drawn.values())
high = max(weights.max() for _, weights in drawn.values())
for (row, column), (image, weights) in drawn.items():
    axis = axes[row, column]
    axis.imshow(image.mean(axis=-1), cmap="gray")
    picture = axis.imshow(
        weights,
        cmap="inferno",
        alpha=0.6,
        vmin=low,
        vmax=high,
        interpolation="bilinear",
        extent=(0, image.shape[1], image.shape[0], 0),
    )
for row, title in enumerate(("picture", "own tags", "another's tags")):
    axes[row, 0].set_ylabel(title)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
figure.colorbar(picture, ax=axes, shrink=0.5, label="weight of the position")
plt.show()

# %% [markdown]
# ## How much the weights move
#
# Weights of exactly one would be a kernel network that does nothing.

# %%
batch = next(
    iter(
        pipeline.eval_batches(
            pairs, split.query[:200], batch_size=min(200, NUM_QUERIES), image_size=SIZE
        )
    )
)
own = np.asarray(position_weights(batch["image"], batch["text"]))
another = np.asarray(position_weights(batch["image"], np.roll(batch["text"], 1, 0)))
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), dpi=70)
axes[0].hist(own.ravel(), bins=60)
axes[0].set(xlabel="weight of a position", ylabel="positions")
axes[0].axvline(1, color="black", linewidth=1)
axes[1].scatter(own.ravel()[::3], another.ravel()[::3], s=3, alpha=0.5)
axes[1].set(xlabel="with its own tags", ylabel="with another's tags")
figure.tight_layout()
plt.show()
agree = np.corrcoef(own.ravel(), another.ravel())[0, 1]
print(f"weights {own.mean():.2f} +- {own.std():.2f};", end=" ")
print(f"correlation between own and another's tags {agree:.2f}")

# %% [markdown]
# ## Which channels the attention opens
#
# A gate of one leaves a channel as it is. Each row is a label: the mean gate of block
# 2's image channels over the pairs that have it, less the mean over all pairs. Labels
# that only the text tells move the image's channels too.


# %%
@jax.jit
def channel_gates(images, text):
    """Gates [B, C] of the image channels in block 2."""
    text = network.text.wide(text)
    maps = network.backbone.lower(normalize(images), train=False)
    maps, text = network.block1(maps, text)
    maps = network.backbone.upper(maps, train=False)
    maps, text = network.block2.kernel_network(maps, network.text.narrow(text))
    return network.block2.channel_attention.gates(maps, text)[0]


gates = np.asarray(channel_gates(batch["image"], batch["text"]))
labels = batch["labels"].astype(bool)
moves = np.stack(
    [
        gates[has].mean(0) - gates.mean(0) if has.any() else 0 * gates[0]
        for has in labels.T
    ]
)
order = np.argsort(-np.abs(moves).max(0))[:40]
largest = np.abs(moves).max()
figure, axis = plt.subplots(figsize=(9, 4.6), dpi=70)
picture = axis.imshow(
    moves[:, order], cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto"
)
axis.set_yticks(range(len(pairs.label_names)), pairs.label_names, fontsize=8)
axis.set_xlabel("image channel, those that move most first")
figure.colorbar(picture, label="gate, difference from the mean")
figure.tight_layout()
plt.show()
print(f"gates of block 2: {gates.min():.2f} to {gates.max():.2f}")

# %% [markdown]
# ## The space of codes
#
# Relaxed codes of the queries, in the plane of their two largest principal components
# and by t-SNE. The colours are the four labels that need both modalities: tags tell
# the place, pictures the light.

# %%
COLOURS = {
    "coast-day": "#56B4E9",
    "coast-night": "#0072B2",
    "hills-day": "#E69F00",
    "hills-night": "#D55E00",
}


has_tsne = importlib.util.find_spec("sklearn") is not None
figure, axes = plt.subplots(1 + has_tsne, 2, figsize=(9, 4 + 4 * has_tsne), dpi=60)
axes = np.reshape(axes, (-1, 2))
for column, (name, model) in enumerate(models.items()):
    codes = np.tanh(relaxed_of(model, split.query)[0])
    planes = [(f"{name}: PCA", pca(codes))]
    if has_tsne:
        planes.append((f"{name}: t-SNE", tsne(codes)))
    for axis, (title, plane) in zip(axes[:, column], planes, strict=True):
        none = np.ones(len(plane), bool)
        for label, colour in COLOURS.items():
            here = pairs.labels[split.query][:, pairs.label_names.index(label)] > 0
            none &= ~here
            axis.scatter(*plane[here].T, s=9, color=colour, label=label)
        axis.scatter(*plane[none].T, s=5, color="lightgrey", label="no place", zorder=0)
        axis.set(title=title, xticks=[], yticks=[])
axes[0, 0].legend(fontsize=8)
figure.tight_layout()
plt.show()

# %% [markdown]
# ## What the kernel network changes
#
# The trained network with parts of its blocks replaced: its kernel networks taken out
# (weights of one), or the blocks out altogether, without training anew. A network
# trained without them can do better than these; `concat` above is that one.


# %%
def without(*, kernel=True, attention=True):
    model = nnx.clone(network)
    for name in ("block1", "block2"):
        block = getattr(model, name)
        if not kernel and not attention:
            setattr(model, name, PassThrough(1, 1))
        elif not kernel:
            setattr(model, name, block.channel_attention)
        elif not attention:
            setattr(model, name, block.kernel_network)
    return model


rows = {
    "as trained": network,
    "kernel networks out": without(kernel=False),
    "attention out": without(attention=False),
    "both out": without(kernel=False, attention=False),
}
for name, model in rows.items():
    print(f"{name:22} MAP {score(model)['map_expected']:.3f}")
