# %% [markdown]
# # Training on a TPU or GPU: MIR-Flickr 25k
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/modal_aware_jax/blob/main/notebooks/tpu_training.ipynb)
#
# In Colab choose *Runtime, Change runtime type* and a TPU or GPU. Without MIR-Flickr,
# and without an accelerator, the same cells train on the embedded pictures (as they did
# for the outputs below).

# %%
import glob
import importlib.util
import shutil
import subprocess
import sys

REPOSITORY = "https://github.com/OWNER/modal_aware_jax"
if importlib.util.find_spec("modal_aware_jax") is None:
    package = f"modal-aware-jax[train,hub] @ git+{REPOSITORY}"
    packages = [package]
    # A newer JAX needs its accelerator's libraries of the same version.
    if shutil.which("nvidia-smi"):
        packages.append("jax[cuda12]")
    elif glob.glob("/dev/accel*") or glob.glob("/dev/vfio/*"):
        packages.append("jax[tpu]")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *packages], check=True
    )

# %%
import os
import time

import jax
import numpy as np
from flax import nnx
from IPython.display import Image, display
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from modal_aware_jax.build import experiment, photograph_arguments, photograph_settings
from modal_aware_jax.data import pipeline
from modal_aware_jax.hashing.encode import encode
from modal_aware_jax.report.curves import draw_precision_recall
from modal_aware_jax.retrieval import evaluate
from modal_aware_jax.training import init_state, make_update, split_model
from modal_aware_jax.training.loop import fit

# The tests of the package run every notebook on next to nothing.
TINY = "MODAL_AWARE_TINY" in os.environ
devices = jax.devices()
ACCELERATOR = devices[0].platform != "cpu"
print(f"{len(devices)} x {devices[0].device_kind.split()[0]}, jax {jax.__version__}")

# %% [markdown]
# ## The data
#
# Get `mirflickr25k.zip` and `mirflickr25k_annotations_v080.zip` from the collection's
# own page, https://press.liacs.nl/mirflickr/, and name the folder they lie in (on
# Colab a folder of the mounted Drive, for example). The first call prepares them once.
#
# The config starts as that of `configs/flickr.py:backbone=resnet18`; what differs is
# set here and in the next cell.

# %%
DATA = os.environ.get("MIRFLICKR", "")  # the folder with the archives
config = ConfigDict(
    photograph_settings(
        photograph_arguments("backbone=resnet18"),
        source="flickr25k",
        options={"num_labels": 24, "on_problem": "skip"},
        queries={"num_queries": 2000},
    )
)
config.data.dir = DATA
if not DATA:
    config.data.source = "shapes"
    config.data.options = ConfigDict(
        {"num_pairs": 200 if TINY else 1600, "image_size": 32 if TINY else 64}
    )
    sizes = (40, 100, 20) if TINY else (200, 1200, 100)
    config.data.num_queries, config.data.num_train, config.data.num_validation = sizes

# %% [markdown]
# ## What the device can take
#
# On an accelerator: 224 pixels, a batch of 512 (divided over the devices) and bfloat16
# for the products; weights, statistics, heads, distances and the loss stay float32. The
# backbone starts from ImageNet's weights and moves slowly. On a CPU everything is
# small, and the backbone starts from nothing.

# %%
if ACCELERATOR and DATA:
    SIZE, BATCH, EPOCHS = 224, 512, 30
    config.model.dtype = "bfloat16"
    config.backbone.weights = "hf-hub:timm/resnet18.tv_in1k"  # from huggingface.co
else:
    SIZE, BATCH, EPOCHS = (32, 20, 2) if TINY else (64, 50, 4)
    config.backbone.options = ConfigDict({"width": 4 if TINY else 16})
    config.backbone.update(weights="", frozen_blocks=0)
    config.optimizer.backbone_learning_rate = config.optimizer.learning_rate
    config.model.update(text_widths=(256, 64), image_features=128, hidden_features=128)
BATCH -= BATCH % len(devices)
config.data.image_size = SIZE
config.training.update(batch_size=BATCH, num_epochs=EPOCHS)
WORKERS = max(0, (os.cpu_count() or 1) - 2) if ACCELERATOR else 0

run = experiment(config)
pairs, split = run.collection, run.split
print(f"{pairs.name}: {len(pairs):,} pairs, {len(pairs.vocabulary):,} words,", end=" ")
print(f"{pairs.num_labels} labels; {len(split.train):,} pairs to train on")
for part in ("block1", "image_vector", "text_vector", "hidden"):
    print(f"{part:12} {type(getattr(run.model, part)).__name__}")

# %% [markdown]
# Beside backbone, text layers and heads: the blocks in their recommended form, and what
# all methods of the README's table share, a layer of the image's own, a standardised
# text and a hidden layer. The loss is theirs too: triplet ranking and a label head,
# with dropped words.
#
# ## One program for all devices
#
# The batch is split over the devices, the state is on each of them. The compiler does
# the rest: batch norms use the whole batch, and triplets are formed across devices.

# %%
mesh = Mesh(np.array(devices), ("data",))
on_each = NamedSharding(mesh, PartitionSpec())
by_rows = NamedSharding(mesh, PartitionSpec("data"))

graphdef, params, stats = split_model(run.model, run.is_trained)
steps_per_epoch = len(split.train) // BATCH
tx = run.make_optimizer(steps_per_epoch)
update = make_update(graphdef, run.loss, tx)
state = jax.device_put(init_state(params, stats, tx), on_each)

# %% [markdown]
# ## Training
#
# `fit` validates after every epoch, keeps checkpoints in the workdir and goes on from
# the last one when the cell is run again, for example after Colab has taken the
# machine away. For that, let WORKDIR lie on the mounted Drive.


# %%
@jax.jit
def relaxed(variables, batch):
    return run.output(nnx.merge(graphdef, *variables), batch)


def codes_of(state, positions):
    def bits(batch):
        arrays = {name: batch[name] for name in ("image", "text")}
        return relaxed((state.params, state.stats), jax.device_put(arrays, by_rows))

    batches = pipeline.eval_batches(
        pairs, positions, batch_size=BATCH, image_size=SIZE, workers=WORKERS
    )
    return encode(bits, batches)[0]


def score(state, query, database):
    return evaluate(
        codes_of(state, query),
        codes_of(state, database),
        pairs.labels[query],
        pairs.labels[database],
        num_bits=run.num_bits,
    )


def validate(state):
    searched = np.setdiff1d(split.database, split.validation)[:2000]
    return {"map": score(state, split.validation, searched)["map_expected"]}


WORKDIR = os.environ.get("WORKDIR", "runs/tpu_training")
batches = pipeline.train_batches(
    pairs, split.train, batch_size=BATCH, image_size=SIZE, seed=0, workers=WORKERS
)
start = time.time()
fitted = fit(
    update,
    state,
    batches,
    workdir=WORKDIR,
    key=jax.random.key(0),
    num_epochs=EPOCHS,
    steps_per_epoch=steps_per_epoch,
    validate=validate,
    ids=pairs.ids,
    place=lambda batch: jax.device_put(batch, by_rows),
)
for row in fitted.history:
    print(f"epoch {row['epoch']:2}: loss {row['loss']:.3f}", end=", ")
    print(f"validation MAP {row['validation_map']:.3f}")
seconds = time.time() - start
print(f"{seconds:.0f} s with compilation and validation,", end=" ")
print(f"{EPOCHS * steps_per_epoch * BATCH / seconds:.0f} images/s over all")

# %% [markdown]
# ## The test queries, once

# %%
results = score(fitted.state, split.query, split.database)
print(f"MAP {results['map_expected']:.4f} at {run.num_bits} bits,", end=" ")
print(f"{results['num_queries']:,} queries in {results['num_database']:,} pairs")
draw_precision_recall({"modal-aware": results}, "precision_recall.png")
display(Image("precision_recall.png", width=480))

# %% [markdown]
# The command line does the same from a config, with every loss, method and ablation:
#
#     python -m modal_aware_jax.main --config=configs/flickr.py \
#         --config.data.dir=FOLDER --workdir=runs/flickr
