# %% [markdown]
# # Pictures find sentences, sentences find pictures
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/modal_aware_jax/blob/main/notebooks/match_pictures_and_sentences.ipynb)
#
# Trains two towers on embedded pictures with sentences, measures them both ways, shows
# what they cannot tell apart, and how a graph of patches and words is trained on just
# that: ten minutes on a Colab CPU, less on a GPU.

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
import optax
from flax import nnx
from IPython.display import Image, display

from modal_aware_jax import ResNet18
from modal_aware_jax.backbones.word_reader import WordReader
from modal_aware_jax.blocks.cross_modal_graph import recommended_graph
from modal_aware_jax.data import captioned_shapes, pipeline
from modal_aware_jax.data.text_vectors import represent
from modal_aware_jax.data.word_sequences import WordSequences
from modal_aware_jax.losses.info_nce import info_nce
from modal_aware_jax.models.captioned import CaptionedTowers
from modal_aware_jax.models.cross_modal_graph import CrossModalGraphNetwork
from modal_aware_jax.models.reading_tower import ReadingTower
from modal_aware_jax.models.two_tower import TwoTower
from modal_aware_jax.report.graph import draw_graph, edge_rows, words_and_patches
from modal_aware_jax.retrieval.evaluate_matching import evaluate_matching
from modal_aware_jax.tasks.pair_training import draw_sentence
from modal_aware_jax.training import (
    adam_l2,
    cosine,
    init_state,
    make_update,
    split_model,
)

# The tests of the package run every notebook on next to nothing.
TINY = "MODAL_AWARE_TINY" in os.environ
NUM_IMAGES, SIZE, WIDTH, BATCH, EPOCHS = (
    (64, 32, 4, 16, 1) if TINY else (3200, 64, 16, 100, 8)
)
SENTENCES, FAMILY = 5, captioned_shapes.FAMILY

# %% [markdown]
# ## The data
#
# Pictures of two groups of shapes, with five sentences each. They come in families of
# four whose sentences have the same words: colours, patterns or places are exchanged.
# A bag of words tells the family, not the picture.

# %%
pairs = captioned_shapes.load(num_images=NUM_IMAGES, image_size=SIZE)
parts = {part: np.flatnonzero(pairs.parts == part) for part in ("train", "query")}


def lines(position):
    return pairs.captions[int(position)].split("\n")


figure, axes = plt.subplots(1, 4, figsize=(11, 3.4), dpi=80)
for axis, position in zip(axes, parts["query"], strict=False):
    axis.imshow(pipeline.decode(pairs.images[position]))
    axis.set_xlabel(
        "\n".join(
            " ".join(lines(position)[0].split()[i : i + 5]) for i in (0, 5, 10, 15, 20)
        ),
        fontsize=8,
    )
    axis.set(xticks=[], yticks=[])
figure.tight_layout()
plt.show()

text = WordSequences(pairs, parts["train"])
read = represent(pairs, text)  # the numbers of the words, in their order
print(f"{len(parts['train'])} pictures to train on, {len(parts['query'])} to test with")
print(f"{len(text.known)} words, {text.length} in the longest sentence")

# %% [markdown]
# ## Two towers
#
# One embeds the picture, one the sentence; they never meet before the cosine. A narrow
# ResNet-18 sees, two layers of a transformer read. Each batch has one sentence of a
# picture, drawn anew; InfoNCE makes it the nearest of the batch, and the other way.


# %%
def network(reader_layers):
    @nnx.jit
    def build():
        rngs = nnx.Rngs(0)
        backbone = ResNet18(width=WIDTH, rngs=rngs)
        reader = WordReader(
            text.num_words, text.length, 64, num_layers=reader_layers, rngs=rngs
        )
        towers = TwoTower(
            backbone.upper_features, 64, 128, hidden_features=256, rngs=rngs
        )
        towers.text = ReadingTower(reader, towers.text)
        return CaptionedTowers(backbone, towers)

    return build()


def normalize(images):
    return (jnp.asarray(images, jnp.float32) - 118.0) / 58.0


def loss_fn(model, batch, key):
    sentence = draw_sentence(key, batch["text"], SENTENCES)
    image, words = model.joint(normalize(batch["image"]), sentence, train=True)
    scale = model.towers.temperature.scale()
    return info_nce(image, words[:, 0], scale=scale, groups=batch["index"])


def train(model):
    graphdef, params, stats = split_model(model)
    whole = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": False}
    batches = pipeline.train_batches(
        read, parts["train"], batch_size=BATCH, image_size=SIZE, seed=0, **whole
    )
    batches, steps = iter(batches), len(parts["train"]) // BATCH
    tx = adam_l2(cosine(1e-3, num_steps=EPOCHS * steps, warmup_steps=2))
    update = make_update(graphdef, loss_fn, tx)
    state, start = init_state(params, stats, tx), time.time()
    for epoch in range(EPOCHS):
        for _ in range(steps):
            state, metrics = update(state, next(batches), jax.random.key(0))
        if epoch % 3 == 0 or epoch == EPOCHS - 1:
            loss = float(metrics["loss"])
            print(f"epoch {epoch + 1}: loss {loss:.3f}, {time.time() - start:.0f} s")
    return nnx.merge(graphdef, state.params, state.stats)


model = train(network(reader_layers=2))

# %% [markdown]
# ## Both ways
#
# Every test picture asks all sentences of all test pictures, and every sentence all
# pictures. R@k is the share that finds a right answer among the first k.


# %%
def embeddings(model, positions):
    """Pictures [N, F] and all their sentences [5 N, F]."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def both(state, images, words):
        return nnx.merge(graphdef, state).joint(normalize(images), words, train=False)

    found = []
    for batch in pipeline.eval_batches(
        read, positions, batch_size=BATCH, image_size=SIZE
    ):
        out = both(state, batch["image"], batch["text"])
        found.append([np.asarray(x)[batch["mask"]] for x in out])
    images, texts = (np.concatenate(side) for side in zip(*found, strict=True))
    return images, texts.reshape(-1, texts.shape[-1])


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def in_family(images, texts):
    """How often a sentence's picture is the nearest of its family's four."""
    cosines = unit(texts) @ unit(images).T
    own = np.repeat(np.arange(len(images)), SENTENCES)
    first = own // FAMILY * FAMILY
    four = np.stack([cosines[np.arange(len(own)), first + i] for i in range(FAMILY)])
    return (four.argmax(axis=0) == own - first).mean()


def told(name, images, texts):
    owners = np.repeat(np.arange(len(images)), SENTENCES)
    result = evaluate_matching(images, texts, owners)
    for way in ("image_to_text", "text_to_image"):
        recall = " / ".join(f"{100 * r:.1f}" for r in result[way]["recall"])
        print(f"{name}, {way.replace('_', ' ')}: R@1/5/10 {recall}")
    print(f"{name}: right one of its family {in_family(images, texts):.3f}")


images, texts = embeddings(model, parts["query"])
told("in order", images, texts)
print(f"chance: R@1 {100 / len(images):.1f}, of a family {1 / FAMILY}")

# %% [markdown]
# A sentence searches the test pictures; its own, where it is among the first five, has
# a green frame.

# %%
asked = 1 if TINY else 12
sentence = SENTENCES * asked
cosines = unit(images) @ unit(texts)[sentence]
figure, axes = plt.subplots(1, 5, figsize=(11, 2.7), dpi=80)
for axis, row in zip(axes, np.argsort(-cosines)[:5], strict=True):
    axis.imshow(pipeline.decode(pairs.images[parts["query"][row]]))
    axis.set(xticks=[], yticks=[], title=f"{cosines[row]:.3f}")
    for spine in axis.spines.values():
        spine.set(color="green" if row == asked else "grey", linewidth=4)
figure.suptitle(lines(parts["query"][asked])[0])
figure.tight_layout()
plt.show()

# %% [markdown]
# ## A graph looks again
#
# Where embeddings made apart must hold everything, a graph whose nodes are the patches
# of a picture and the words of a sentence may compare them. It never embeds a gallery
# (each picture would find the sentence that it sees); it scores pairs. Here it reads
# what the towers' own halves give, a map of patches and the reader's tokens, and in
# training it is asked which sentence of a family belongs to which picture. Log 4, that
# is 1.386, is the loss of guessing.


# %%
@functools.cache
def halves(part):
    """Patches [N, M, C], tokens [N, 5, L, D] and their mask, of a part."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def seen(state, images, words):
        model = nnx.merge(graphdef, state)
        maps = model.backbone.lower(normalize(images), train=False)
        tokens, mask = model.towers.text.reader(words.reshape(-1, text.length))
        return maps, tokens, mask

    found = []
    for batch in pipeline.eval_batches(
        read, parts[part], batch_size=BATCH, image_size=SIZE
    ):
        maps, tokens, mask = (
            np.asarray(x) for x in seen(state, batch["image"], batch["text"])
        )
        shape = len(maps), SENTENCES, text.length
        kept = batch["mask"]
        found.append(
            (
                maps[kept],
                tokens.reshape(*shape, -1)[kept],
                mask.reshape(shape)[kept],
            )
        )
    return [np.concatenate(column) for column in zip(*found, strict=True)]


maps, tokens, mask = halves("train")
grid, channels = maps.shape[1:3], maps.shape[3]


@nnx.jit
def build_graph():
    return CrossModalGraphNetwork(
        channels,
        tokens.shape[-1],
        64,
        graph_features=64,
        num_layers=2,
        graph=recommended_graph,
        rngs=nnx.Rngs(1),
    )


graph_def, graph_params = nnx.split(build_graph())
graph_tx = optax.adam(optax.cosine_decay_schedule(1e-3, 2 if TINY else 400))
graph_state = graph_tx.init(graph_params)


def family_scores(params, maps, tokens, mask):
    """Of every picture of a family every sentence: logits [F, 4, 4]."""
    model = nnx.merge(graph_def, params)
    count = len(maps)
    a, b = (np.arange(count)[:, None] * FAMILY + i for i in np.divmod(range(16), 4))
    patches = maps.reshape(count * FAMILY, -1, channels)
    words = tokens.reshape(count * FAMILY, text.length, -1)
    there = mask.reshape(count * FAMILY, text.length)
    scores = model.score_pairs(
        patches[a.ravel()], words[b.ravel()], text_mask=there[b.ravel()]
    )
    return scores.reshape(count, FAMILY, FAMILY)


@jax.jit
def graph_step(params, state, *family):
    def loss(params):
        scores = family_scores(params, *family)
        right = jnp.arange(FAMILY)
        ways = jax.nn.log_softmax(scores), jax.nn.log_softmax(scores, axis=1)
        return -sum(way[:, right, right].mean() for way in ways) / 2

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = graph_tx.update(gradient, state)
    return optax.apply_updates(params, updates), state, value


rng, families = np.random.default_rng(0), len(maps) // FAMILY
in_families = [
    x[: families * FAMILY].reshape(families, FAMILY, *x.shape[1:])
    for x in (maps, tokens, mask)
]
for step in range(2 if TINY else 400):
    some = rng.integers(0, families, 12)[:, None]
    which = rng.integers(0, SENTENCES, (12, FAMILY))
    members = np.arange(FAMILY)
    family = (
        in_families[0][some, members],
        in_families[1][some, members, which],
        in_families[2][some, members, which],
    )
    graph_params, graph_state, value = graph_step(graph_params, graph_state, *family)
    if step % 100 == 0 or step == 399:
        print(f"step {step + 1}: loss {float(value):.3f}")

# %% [markdown]
# Of a family's four pictures, which does the graph give to a sentence? In these minutes
# neither towers nor graph leave chance: the halves were trained to find a family, and
# what tells its members apart is not in them yet. This is how it is measured, on data
# where no bag of words can help.

# %%
score = jax.jit(family_scores)
test = halves("query")
count = len(test[0]) // FAMILY
right = []
for which in range(SENTENCES):
    shown = (
        test[0].reshape(count, FAMILY, *grid, channels),
        test[1][:, which].reshape(count, FAMILY, text.length, -1),
        test[2][:, which].reshape(count, FAMILY, text.length),
    )
    scores = np.asarray(score(graph_params, *shown))
    right.append(scores.argmax(axis=1) == np.arange(FAMILY))
print(f"towers {in_family(images, texts):.3f}, graph {np.mean(right):.3f}, chance 0.25")

# %% [markdown]
# ## The graph, drawn
#
# Lines go from each word to the patches it reads most of, in the mean over the layers;
# below, each word's weights over the picture. `edge_rows` is the same as a table.

# %%
position = parts["query"][asked]
words = text.words(pairs, position)
weights = nnx.merge(graph_def, graph_params).edge_weights(
    test[0][asked].reshape(1, -1, channels), test[1][asked, :1, : len(words)]
)
edges = [np.asarray(layer[0]) for layer in weights]
draw_graph(
    np.asarray(pipeline.decode(pairs.images[position])),
    grid,
    words,
    words_and_patches(edges, grid[0] * grid[1]),
    "graph.png",
    title=lines(position)[0],
)
display(Image("graph.png", width=640))

rows = [row for row in edge_rows(edges, grid, words) if row["reader_kind"] == "word"]
rows = [row for row in rows if row["source_kind"] == "patch"]
for row in sorted(rows, key=lambda row: -row["weight"])[:5]:
    print(row["layer"], row["reader"], "reads patch", row["source"], row["weight"])

# %% [markdown]
# Next: `python -m modal_aware_jax.main --config=configs/captioned_shapes.py` trains the
# same with checkpoints and writes a page; `configs/flickr8k.py` does it on photographs.
