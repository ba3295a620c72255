# %% [markdown]
# # Classify posts: one class from a picture and its words
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/modal_aware_jax/blob/main/notebooks/classify_posts.ipynb)
#
# Trains SG-MFT, similarity-guided fusion of words and image positions, on embedded
# posts, beside either modality alone, and looks at what it reads where: minutes on a
# Colab CPU.

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
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from modal_aware_jax import ResNet18
from modal_aware_jax.blocks.similarity_interaction import (
    SimilarityInteraction,
    element_similarity,
)
from modal_aware_jax.classification import (
    accuracy,
    bootstrap_interval,
    macro_f1,
    mcnemar_exact,
)
from modal_aware_jax.data import pipeline, protocol, shapes
from modal_aware_jax.data.text_vectors import represent, text_encoder
from modal_aware_jax.fusion import ImageAlone, SimilarityFusion, TextAlone
from modal_aware_jax.losses.cross_entropy import softmax_cross_entropy
from modal_aware_jax.models.classifier import (
    DenseLayers,
    NoInteraction,
    TokenClassifier,
)
from modal_aware_jax.models.token_network import TokenNetwork
from modal_aware_jax.training import (
    adam_l2,
    cosine,
    init_state,
    make_update,
    split_model,
)

# The tests of the package run every notebook on next to nothing.
TINY = "MODAL_AWARE_TINY" in os.environ
NUM_POSTS, NUM_TEST, NUM_TRAIN = (120, 20, 60) if TINY else (2000, 400, 1600)
SIZE, WIDTH, BATCH, EPOCHS = (32, 4, 20, 1) if TINY else (48, 8, 50, 6)
FEATURES, HEADS = (16, 2) if TINY else (64, 8)

# %% [markdown]
# ## The posts
#
# A picture, some words, and one class: where and when the scene is set. The words tell
# one half (*coast* or *hills*), the picture the other (day or night), and both are
# noisy: words are missing or wrong, things are cut and covered.

# %%
posts = shapes.load(num_pairs=NUM_POSTS, image_size=SIZE, one_class=True)
names = posts.label_names
classes = posts.labels.argmax(axis=1)

figure, axes = plt.subplots(1, 5, figsize=(11, 2.7), dpi=80)
for position, axis in enumerate(axes):
    axis.imshow(pipeline.decode(posts.images[position]))
    axis.set_title(posts.captions[position].replace(" ", "\n", 2), fontsize=8)
    axis.set_xlabel(names[classes[position]], fontsize=9)
    axis.set(xticks=[], yticks=[])
figure.tight_layout()
plt.show()

split = protocol.split(
    len(posts), num_queries=NUM_TEST, num_train=NUM_TRAIN, num_validation=0, seed=0
)
train, test = split.train, split.query
share = np.bincount(classes[test]).max() / len(test)
print(
    f"{len(train)} posts to train on, {len(test)} to test with, {len(names)} classes;"
)
print(f"always the most frequent class is right about {share:.2f} of them")

# %% [markdown]
# ## Words and positions as tokens
#
# Each word is a vector, made of the words that training posts have together; each
# position of the last map is one too. (On real posts the word pieces of a sentence
# model take the words' place: `configs/posts.py:source=folder`, and with
# `text=fine_tuned` that model is trained along.)

# %%
words = text_encoder("word_tokens", posts, train)
seen = represent(posts, words)
print(f"a text: {seen.text.shape[1]} words at most, {seen.text.shape[2]} features each")


def network(interaction, fusion):
    """A backbone, and a classifier of its positions and the words."""
    rngs = nnx.Rngs(0)
    trunk = ResNet18(width=WIDTH, rngs=rngs)
    classifier = TokenClassifier(
        seen.num_text_features,
        trunk.upper_features,
        len(names),
        features=FEATURES,
        num_heads=HEADS,
        interaction=interaction,
        fusion=fusion,
        head=functools.partial(
            DenseLayers, features=FEATURES, num_layers=2, dropout_rate=0.3
        ),
        dropout_rate=0.3,
        rngs=rngs,
    )
    return TokenNetwork(trunk, classifier)


METHODS = {
    "SG-MFT": (SimilarityInteraction, SimilarityFusion),
    "image alone": (NoInteraction, ImageAlone),
    "text alone": (NoInteraction, TextAlone),
}

# %% [markdown]
# ## Training
#
# Three networks, the same loop: cross-entropy, Adam, six epochs.


# %%
def normalize(images):
    return (jnp.asarray(images, jnp.float32) - 118.0) / 58.0


def loss_fn(model, batch, key):
    outputs = model.joint(
        normalize(batch["image"]),
        batch["text"],
        train=True,
        rngs=nnx.Rngs(dropout=key),
    )
    logits = model.head(outputs)
    return softmax_cross_entropy(logits, batch["labels"].argmax(axis=1))


def trained(interaction, fusion):
    """The parts of a trained network, as `nnx.merge` takes them."""
    make = nnx.jit(functools.partial(network, interaction, fusion))
    graphdef, params, stats = split_model(make())
    batches = iter(
        pipeline.train_batches(seen, train, batch_size=BATCH, image_size=SIZE, seed=0)
    )
    steps = EPOCHS * (len(train) // BATCH)
    tx = adam_l2(cosine(2e-3, num_steps=steps, warmup_steps=min(10, steps // 2)))
    update = make_update(graphdef, loss_fn, tx)
    state, key = init_state(params, stats, tx), jax.random.key(0)
    for _ in range(steps):
        state, metrics = update(state, next(batches), key)
    print(f"  last loss {float(metrics['loss']):.2f}", end="")
    return graphdef, state.params, state.stats


def batches_of(positions):
    options = {"batch_size": BATCH, "image_size": SIZE}
    return pipeline.eval_batches(seen, positions, **options)


def logits_of(parts, positions, change=lambda batch: {}):
    """Logits [N, C] of some posts; `change(batch)` says which rows lack a modality."""

    @jax.jit
    def logits(params, stats, image, text, present):
        model = nnx.merge(parts[0], params, stats)
        outputs = model.joint(normalize(image), text, train=False, present=present)
        return model.head(outputs)

    rows = [
        logits(*parts[1:], batch["image"], batch["text"], change(batch))
        for batch in batches_of(positions)
    ]
    return np.concatenate(rows)[: len(positions)]


networks, right = {}, {}
for name, (interaction, fusion) in METHODS.items():
    start = time.time()
    networks[name] = trained(interaction, fusion)
    said = logits_of(networks[name], test).argmax(axis=1)
    right[name] = said == classes[test]
    found = accuracy(classes[test], said), macro_f1(classes[test], said, len(names))
    print(f", {name}: accuracy {found[0]:.3f}, macro-F1 {found[1]:.3f}", end="")
    print(f" ({time.time() - start:.0f} s)")

# %% [markdown]
# Are these differences more than chance? Post by post: an interval of the lead by
# paired bootstrap, and McNemar's test of the posts that only one of two is right about.

# %%
for name in ("image alone", "text alone"):
    difference = right["SG-MFT"].astype(float) - right[name]
    lead = bootstrap_interval(np.mean, difference)
    p = mcnemar_exact(right["SG-MFT"], right[name]).p_value
    print(f"SG-MFT ahead of {name}: {lead.value:+.3f}", end="")
    print(f" ({lead.low:+.3f} to {lead.high:+.3f}), McNemar's p {p:.2g}")

# %% [markdown]
# ## Which classes are taken for which

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 4), dpi=80)
for axis, (name, parts) in zip(axes, networks.items(), strict=True):
    said = logits_of(parts, test).argmax(axis=1)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (classes[test], said), 1)
    axis.imshow(counts, cmap="Blues")
    for i, j in np.ndindex(counts.shape):
        dark = counts[i, j] > counts.max() / 2
        color = "white" if dark else "black"
        axis.text(j, i, counts[i, j], ha="center", va="center", color=color)
    axis.set_title(name)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
figure.tight_layout()
plt.show()

# %% [markdown]
# ## What a word has of the picture
#
# The element similarity P^e of the interaction: for each word a share of every
# position. And the modality similarity P^m, which says how far text and image are mixed
# at all: by the paper's softmax over D features it is 1/D on average, nearly pure
# self-attention (`sigmoid_similarity` and `mean_one_similarity` are others to take).

# %%
graphdef, params, stats = networks["SG-MFT"]


@jax.jit
def similarities(params, stats, image, text):
    model = nnx.merge(graphdef, params, stats)
    classifier = model.classifier
    maps = model.backbone(normalize(image), train=False)["conv5_2"]
    places = classifier.image_dense(maps.reshape(len(maps), -1, maps.shape[-1]))
    tokens = classifier.text_dense(text["tokens"])
    share = classifier.interaction.shares(tokens, places, text["mask"])
    alike = element_similarity(tokens, places)
    return alike.reshape(*alike.shape[:2], *maps.shape[1:3]), share


batch = next(iter(batches_of(test[:BATCH])))
alike, share = similarities(params, stats, batch["image"], batch["text"])
print(f"P^m: {float(share.mean()):.4f} on average, 1/D is {1 / FEATURES:.4f}")

row = int(np.argmax(batch["text"]["mask"].sum(axis=1) >= 3))
shown = words.words(posts, test[row])[:4]
figure, axes = plt.subplots(1, 5, figsize=(11, 2.5), dpi=80, squeeze=False)
axes[0, 0].imshow(batch["image"][row])
axes[0, 0].set_title(names[classes[test[row]]], fontsize=9)
for axis, word, weights in zip(axes[0, 1:], shown, alike[row], strict=False):
    axis.imshow(batch["image"][row])
    corners = (-0.5, SIZE - 0.5, SIZE - 0.5, -0.5)
    axis.imshow(weights, alpha=0.6, cmap="inferno", extent=corners)
    axis.set_title(word, fontsize=9)
for axis in axes[0]:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## A post without its picture, or without its words
#
# What is missing is masked, not replaced: the network reads what is there.

# %%
for kind in ("image", "text"):

    def without(batch, kind=kind):
        return {kind: np.zeros(len(batch["image"]), bool)}

    said = logits_of(networks["SG-MFT"], test, without).argmax(axis=1)
    print(f"without its {kind}: accuracy {accuracy(classes[test], said):.3f}")

# %% [markdown]
# ## Surest and wrong

# %%
logits = logits_of(networks["SG-MFT"], test)
probabilities = np.asarray(jax.nn.softmax(logits, axis=1))
said, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
wrong = np.flatnonzero(said != classes[test])
wrong = wrong[np.argsort(-sure[wrong])][:5]
figure, axes = plt.subplots(1, 5, figsize=(11, 3), dpi=80)
for axis in axes:
    axis.axis("off")
for axis, row in zip(axes, wrong, strict=False):
    position = test[row]
    axis.imshow(pipeline.decode(posts.images[position]))
    truth = names[classes[position]]
    axis.set_title(f"{names[said[row]]} ({sure[row]:.2f})\nis {truth}", fontsize=8)
    caption = posts.captions[position].replace(" ", "\n", 2)
    axis.text(0.5, -0.05, caption, transform=axis.transAxes, ha="center", va="top")
figure.tight_layout()
plt.show()

# %% [markdown]
# Next: `python -m modal_aware_jax.main --config=configs/posts.py` trains the same with
# validation, checkpoints and a report, `--mode=predict` gives the classes of new posts,
# and `python -m modal_aware_jax.compare` sets methods side by side.
