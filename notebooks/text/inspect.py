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
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from IPython.display import Image, display

from modal_aware_jax import MultimodalHashing, ResNet18
from modal_aware_jax.backbones.text_vector import StandardText
from modal_aware_jax.blocks.modal_aware import PassThrough
from modal_aware_jax.build import BLOCKS
from modal_aware_jax.data import pipeline, protocol, shapes
from modal_aware_jax.hashing.encode import encode
from modal_aware_jax.losses.triplet import triplet_ranking
from modal_aware_jax.models.attention import network_attention
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
# image and text at the end only. At the start the blocks change nothing, so both begin
# as the same function. A minute each on two free cores, which is short: the README has
# comparisons of networks that were trained to the end.

# %%
pairs = shapes.load(num_pairs=NUM_PAIRS, image_size=SIZE)
split = protocol.split(
    len(pairs), num_queries=NUM_QUERIES, num_train=NUM_TRAIN, num_validation=0, seed=0
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
        return MultimodalHashing(
            backbone,
            words,
            BITS,
            text_widths=(256, 64),
            block=block,
            text_vector=StandardText,
            rngs=rngs,
        )

    graphdef, params, stats = split_model(build())
    steps_per_epoch = len(split.train) // BATCH
    tx = adam_l2(cosine(2e-3, num_steps=EPOCHS * steps_per_epoch, warmup_steps=2))
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


models = {
    "modal-aware": train(BLOCKS["modal_aware"]),
    "concat": train(BLOCKS["concat"]),
}

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
# ## How much the kernel network moves
#
# Each block shares out weight among the positions of a picture by their similarity with
# the text. The weights of one picture average one; at the start of training all are
# one, which changes nothing. The text vector passes through as it is. Block 1 has 4 x 4
# positions in these pictures, block 2 has 2 x 2. Beside each histogram: the same
# positions with the tags of another pair.

# %%
network = models["modal-aware"]


@jax.jit
def attention(images, text):
    """Weights of positions and gates of image channels, in both blocks."""
    return network_attention(network, normalize(images), text)


batch = next(
    iter(
        pipeline.eval_batches(
            pairs, split.query[:200], batch_size=min(200, NUM_QUERIES), image_size=SIZE
        )
    )
)
told_another = np.roll(batch["text"], 1, axis=0)
own, another = (
    [np.asarray(block.positions) for block in attention(batch["image"], text)]
    for text in (batch["text"], told_another)
)
figure, axes = plt.subplots(1, 4, figsize=(12, 3), dpi=58)
for block in (0, 1):
    weights, retold = own[block].ravel(), another[block].ravel()
    left, right = axes[2 * block : 2 * block + 2]
    left.hist(weights, bins=60)
    left.set(xlabel=f"block {block + 1}: weight of a position", ylabel="positions")
    left.axvline(1, color="black", linewidth=1)
    right.scatter(weights, retold, s=3, alpha=0.4)
    right.set(xlabel="with its own tags", ylabel="with another's tags")
    print(
        f"block {block + 1}: weights {weights.min():.2f} to {weights.max():.2f},",
        end="",
    )
    print(f" deviation {weights.std():.2f};", end=" ")
    with np.errstate(invalid="ignore"):  # the weight of a single position is always 1
        agree = np.corrcoef(weights, retold)[0, 1]
    print(f"correlation between own and another's tags {agree:.2f}")
figure.tight_layout()
plt.show()

# %% [markdown]
# Most weights stay near one, some go to a tenth and some to several times one. Other
# tags give other weights, in block 2 entirely others: the text directs them.
#
# ## Where the kernel network looks
#
# The five pictures among these whose map in block 2 changes most with other tags; the
# others change less. For each block first with a pair's own tags, then with another's.
# Below each the place that the tags tell, and their first words.

# %%
changes = np.abs(own[1] - another[1]).max(axis=(1, 2))
shown = np.argsort(-changes)[:5]
captions = [pairs.captions[int(i)] for i in split.query[: len(changes)]]
told_place = {
    place: batch["labels"][
        :, [name.startswith(place) for name in pairs.label_names]
    ].any(axis=1)
    for place in ("coast", "hills")
}
places = [
    next(
        (place.upper() for place in told_place if told_place[place][index]), "no place"
    )
    for index in range(len(changes))
]
figure, axes = plt.subplots(
    5, len(shown), figsize=(9, 10.4), dpi=58, layout="constrained"
)
for axis, index in zip(axes[0], shown, strict=True):
    axis.imshow(batch["image"][index])
for block in (0, 1):
    rows = axes[1 + 2 * block : 3 + 2 * block]
    maps = np.log2(np.stack([own[block][shown], another[block][shown]]))
    largest = np.abs(maps).max() or 1.0
    for told, row in enumerate(rows):
        row[0].set_ylabel(f"block {block + 1}\n{('own', 'other')[told]} tags")
        for axis, index, weights in zip(row, shown, maps[told], strict=True):
            axis.imshow(batch["image"][index].mean(axis=-1), cmap="gray")
            drawn = axis.imshow(
                weights,
                cmap="inferno",
                alpha=0.65,
                vmin=-largest,
                vmax=largest,
                extent=(0, SIZE, SIZE, 0),
            )
            words = captions[index - told].split()[:3]
            axis.set_xlabel("\n".join([places[index - told], *words]), fontsize=8)
    figure.colorbar(drawn, ax=rows, shrink=0.6, label="log2 of the weight")
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# The maps do not outline objects. They go with the place: below, the mean maps of all
# pairs whose tags tell one.

# %%
figure, axes = plt.subplots(1, 4, figsize=(9, 2.4), dpi=66, layout="constrained")
for column, (block, place) in enumerate((b, p) for b in (0, 1) for p in told_place):
    mean = own[block][told_place[place]].mean(axis=0)
    drawn = axes[column].imshow(mean, cmap="inferno", vmin=0.5, vmax=1.8)
    axes[column].set(title=f"block {block + 1}: {place}", xticks=[], yticks=[])
figure.colorbar(drawn, ax=axes, label="mean weight")
plt.show()

# %% [markdown]
# ## Which channels the attention opens
#
# A gate of one leaves a channel as it is; gates lie between zero and two. Each row is a
# label: the mean gate of block 2's channels over the pairs that have it, less the mean
# over all pairs.


# %%
@jax.jit
def attended(images, text):
    """What block 2's attention reads: image maps [B, h, w, C] and text [B, T]."""
    text = network.text.wide(text)
    maps = network.backbone.lower(normalize(images), train=False)
    maps, text = network.block1(maps, text)
    maps = network.backbone.upper(maps, train=False)
    return network.block2.kernel_network(maps, network.text.narrow(text))


def channel_gates(images, text):
    """Gates of the image channels [B, C] and of the text's [B, T]."""
    found = network.block2.channel_attention.gates(*attended(images, text))
    return dict(zip(("image", "text"), map(np.asarray, found), strict=True))


labels = batch["labels"].astype(bool)
gates = channel_gates(batch["image"], batch["text"])
retold = channel_gates(batch["image"], told_another)
redrawn = channel_gates(np.roll(batch["image"], 1, axis=0), batch["text"])
figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), dpi=60, layout="constrained")
for axis, (kind, values) in zip(axes, gates.items(), strict=True):
    moves = np.stack(
        [
            values[has].mean(0) - values.mean(0) if has.any() else 0 * values[0]
            for has in labels.T
        ]
    )
    order = np.argsort(-np.abs(moves).max(0))[:40]
    largest = np.abs(moves).max() or 1.0
    drawn = axis.imshow(
        moves[:, order], cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto"
    )
    axis.set(xlabel=f"{kind} channel, those that move most first", yticks=[])
    figure.colorbar(drawn, ax=axis, label="gate, difference from the mean")
axes[0].set_yticks(range(len(pairs.label_names)), pairs.label_names, fontsize=8)
plt.show()
for kind, values in gates.items():
    tags, pixels = (abs(values - other[kind]).mean() for other in (retold, redrawn))
    print(
        f"gates of {kind} channels {values.min():.2f} to {values.max():.2f};", end=" "
    )
    print(f"another's tags move them by {tags:.3f}, another's picture by {pixels:.3f}")
maps, text = attended(batch["image"], batch["text"])
for kind, read in (("image", maps.mean(axis=(1, 2))), ("text", text)):
    print(
        f"{kind} features that the attention reads: {(read**2).mean() ** 0.5:.3f} rms"
    )

# %% [markdown]
# Day and night, which are in the pictures alone, move the gates most, and the text's
# further than the image's: the picture directs the text. Another's tags move them less
# than another's picture. The attention reads the text as it leaves its layers, tens of
# times smaller than the image.
#
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
figure, axes = plt.subplots(1 + has_tsne, 2, figsize=(9, 4 + 4 * has_tsne), dpi=52)
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
# (weights of one), its attention (gates of one), or both, without training anew.


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
trained = relaxed_of(network, split.query)[0] < 0
for name, model in rows.items():
    flipped = (relaxed_of(model, split.query)[0] < 0) != trained
    print(f"{name:20} MAP {score(model)['map_expected']:.3f},", end=" ")
    print(f"{flipped.sum(axis=1).mean():.1f} of {BITS} bits of a query changed")

# %% [markdown]
# After this short training the finished codes owe the blocks little: fewer than one bit
# of 32 changes without them, and MAP in the third decimal. `concat` above was trained
# without blocks, which is another question; its distance of a hundredth, with one seed,
# is small too. The README's table has both halves on photographs, with intervals.
