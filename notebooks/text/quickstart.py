# %% [markdown]
# # Quickstart: one code from a picture and its tags
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/modal_aware_jax/blob/main/notebooks/quickstart.ipynb)
#
# Trains a small network on an embedded collection, evaluates its codes and searches
# with them: five minutes on a Colab CPU, less on a GPU.

# %%
import importlib.util
import subprocess
import sys

REPOSITORY = "https://github.com/OWNER/modal_aware_jax"
if importlib.util.find_spec("modal_aware_jax") is None:
    package = f"modal-aware-jax[train] @ git+{REPOSITORY}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)

# %%
import dataclasses
import functools
import os
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from IPython.display import Image, display

from modal_aware_jax import (
    ModalAwareBlock,
    MultimodalHashing,
    PositionKernel,
    ResNet18,
    SqueezedChannelAttention,
)
from modal_aware_jax.backbones.text_vector import StandardText
from modal_aware_jax.blocks.channel_attention import double_sigmoid
from modal_aware_jax.data import pipeline, protocol, shapes
from modal_aware_jax.hashing.encode import encode
from modal_aware_jax.losses.triplet import triplet_ranking
from modal_aware_jax.report import result_picture
from modal_aware_jax.report.curves import draw_precision_recall
from modal_aware_jax.retrieval import evaluate, search
from modal_aware_jax.training import (
    adam_l2,
    cosine,
    init_state,
    make_update,
    split_model,
)

# The tests of the package run every notebook on next to nothing.
TINY = "MODAL_AWARE_TINY" in os.environ
NUM_PAIRS, NUM_QUERIES, NUM_TRAIN = (160, 20, 60) if TINY else (4000, 500, 3000)
SIZE, WIDTH, BATCH, EPOCHS = (32, 4, 20, 1) if TINY else (64, 16, 100, 6)
BITS = 32

# %% [markdown]
# ## The data
#
# Pictures with tags. Some labels are visible in the picture only (striped), some are in
# the tags only (birthday), and some need both: the tags tell *coast* or *hills*, the
# picture tells day or night. So neither modality alone can be enough.

# %%
pairs = shapes.load(num_pairs=NUM_PAIRS, image_size=SIZE)


def label_names(position):
    return [pairs.label_names[i] for i in np.flatnonzero(pairs.labels[position])]


figure, axes = plt.subplots(1, 5, figsize=(11, 2.9), dpi=80)
for position, axis in enumerate(axes):
    axis.imshow(pipeline.decode(pairs.images[position]))
    axis.set_title(pairs.captions[position].replace(" ", "\n", 2), fontsize=8)
    axis.set_xlabel("\n".join(label_names(position)), fontsize=8)
    axis.set(xticks=[], yticks=[])
figure.tight_layout()
plt.show()

split = protocol.split(
    len(pairs), num_queries=NUM_QUERIES, num_train=NUM_TRAIN, num_validation=0, seed=0
)
print(f"{len(split.query)} queries, {len(split.database)} in the database,")
print(f"{len(split.train)} of them to train on; {len(pairs.vocabulary)} words")

# %% [markdown]
# ## The network
#
# ResNet-18 in two halves, a bag of words through two layers, and a modal-aware block
# beside each half. The block is the recommended form: weights of positions and gates of
# channels that are one at the start, so that training begins with a network that only
# joins image and text at the end. There the text is standardised: it comes out of its
# layers much smaller than the image.

# %%
block = functools.partial(
    ModalAwareBlock,
    kernel_network=PositionKernel,
    channel_attention=functools.partial(
        SqueezedChannelAttention, gate=double_sigmoid, logit_init=nnx.initializers.zeros
    ),
)


@nnx.jit
def build():
    rngs = nnx.Rngs(0)
    return MultimodalHashing(
        ResNet18(width=WIDTH, rngs=rngs),
        len(pairs.vocabulary),
        BITS,
        text_widths=(256, 64),
        block=block,
        text_vector=StandardText,
        rngs=rngs,
    )


graphdef, params, stats = split_model(build())
count = sum(x.size for x in jax.tree.leaves(params))
print(f"{count:,} weights on {jax.devices()[0].device_kind.split()[0]}")

# %% [markdown]
# ## Training
#
# The update is a pure function under `jax.jit`, the loop is in plain sight. (The
# command line's loop, `modal_aware_jax.training.loop.fit`, also validates, keeps
# checkpoints and goes on after a crash.)


# %%
def normalize(images):
    return (jnp.asarray(images, jnp.float32) - 118.0) / 58.0


def loss_fn(model, batch, key):
    relaxed = model(normalize(batch["image"]), batch["text"], train=True)
    return triplet_ranking(jnp.tanh(relaxed), batch["labels"])


batches = iter(
    pipeline.train_batches(
        pairs, split.train, batch_size=BATCH, image_size=SIZE, seed=0
    )
)
steps_per_epoch = len(split.train) // BATCH
tx = adam_l2(cosine(1e-3, num_steps=EPOCHS * steps_per_epoch, warmup_steps=2))
update = make_update(graphdef, loss_fn, tx)
state, key = init_state(params, stats, tx), jax.random.key(0)

start, losses = time.time(), []
for epoch in range(EPOCHS):
    for _ in range(steps_per_epoch):
        state, metrics = update(state, next(batches), key)
        losses.append(metrics["loss"])
    mean = float(jnp.stack(losses[-steps_per_epoch:]).mean())
    print(f"epoch {epoch + 1}: loss {mean:.3f}, {time.time() - start:.0f} s")

# %% [markdown]
# ## Evaluation
#
# Every pair becomes 32 bits. A database item is relevant to a query when they share a
# label. Hamming distances tie all the time: `map_expected` is the exact mean over all
# orders inside ties.


# %%
@jax.jit
def relaxed(params, stats, batch):
    model = nnx.merge(graphdef, params, stats)
    return model(normalize(batch["image"]), batch["text"], train=False)


def codes_of(collection, positions):
    """Packed codes of some pairs."""

    def bits(batch):
        arrays = {name: batch[name] for name in ("image", "text")}
        return relaxed(state.params, state.stats, arrays)

    batches = pipeline.eval_batches(
        collection, positions, batch_size=BATCH, image_size=SIZE
    )
    return encode(bits, batches)[0]


query, database = codes_of(pairs, split.query), codes_of(pairs, split.database)
labels = pairs.labels[split.query], pairs.labels[split.database]
results = evaluate(query, database, *labels, num_bits=BITS)
chance = (labels[0] @ labels[1].T > 0).mean()
print(f"MAP {results['map_expected']:.3f}; a random ranking has about {chance:.3f}")
print(f"precision among the 10 nearest: {results['precision_at'][10]:.3f}")

draw_precision_recall({"modal-aware": results}, "precision_recall.png")
display(Image("precision_recall.png", width=480))

# %% [markdown]
# ## Search
#
# A picture with its tags against the database, by popcount.

# %%
position = split.query[3]


def shown(i):
    return pairs.images[int(i)], pairs.captions[int(i)], label_names(i)


distances, ids = search(codes_of(pairs, [position]), database, 5)
found = split.database[ids[0]]
relevant = (pairs.labels[found] & pairs.labels[position]).any(axis=1)
rows = [
    (*shown(i), int(d), bool(r))
    for i, d, r in zip(found, distances[0], relevant, strict=True)
]
display(Image(str(result_picture(shown(position), rows, "search.png"))))

# %% [markdown]
# The same picture with other tags has another code: it is the pair that is searched.

# %%
text = np.zeros_like(pairs.text)
words = ["birthday", "cake", "party"]
text[position, [pairs.vocabulary.index(word) for word in words]] = 1
retold = dataclasses.replace(pairs, text=text)
distances, ids = search(codes_of(retold, [position]), database, 5)
found = split.database[ids[0]]
rows = [(*shown(i), int(d), None) for i, d in zip(found, distances[0], strict=True)]
asked = pairs.images[int(position)], " ".join(words), []
display(Image(str(result_picture(asked, rows, "retold.png"))))

# %% [markdown]
# Next: `use_in_your_model` puts the block into your own network, `inspect` looks
# inside, `tpu_training` trains on photographs with an accelerator.
