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
import functools
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from IPython.display import Image, display
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from modal_aware_jax import (
    KernelNetwork,
    ModalAwareBlock,
    MultimodalHashing,
    ResNet18,
    SqueezedChannelAttention,
)
from modal_aware_jax.backbones.pretrained import load_resnet18
from modal_aware_jax.blocks.channel_attention import mean_one_softmax
from modal_aware_jax.blocks.kernel_network import bounded_residual
from modal_aware_jax.data import flickr25k, pipeline, protocol, shapes
from modal_aware_jax.hashing.encode import encode
from modal_aware_jax.losses.triplet import triplet_ranking_chunked
from modal_aware_jax.report.curves import draw_precision_recall
from modal_aware_jax.retrieval import evaluate
from modal_aware_jax.training import (
    adam_l2,
    by_prefix,
    cosine,
    init_state,
    make_update,
    split_model,
)
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

# %%
DATA = os.environ.get("MIRFLICKR", "")  # the folder with the archives
if DATA:
    pairs = flickr25k.load(DATA, on_problem="skip")
    sizes = {"num_queries": 2000, "num_train": 10_000, "num_validation": 1000}
else:
    num_pairs = 200 if TINY else 1600
    pairs = shapes.load(num_pairs=num_pairs, image_size=32 if TINY else 64)
    sizes = {"num_queries": 40, "num_train": 100, "num_validation": 20}
    if not TINY:
        sizes = {"num_queries": 200, "num_train": 1200, "num_validation": 100}
split = protocol.split(len(pairs), seed=0, **sizes)
print(f"{pairs.name}: {len(pairs):,} pairs, {len(pairs.vocabulary):,} words,", end=" ")
print(f"{pairs.num_labels} labels; {len(split.train):,} pairs to train on")

# %% [markdown]
# ## What the device can take
#
# On an accelerator: 224 pixels, a batch of 512 (divided over the devices) and bfloat16
# for the products; weights, statistics, distances and the loss stay float32. On a CPU
# everything is small.

# %%
if ACCELERATOR and DATA:
    SIZE, WIDTH, BATCH, EPOCHS, DTYPE = 224, 64, 512, 30, jnp.bfloat16
elif TINY:
    SIZE, WIDTH, BATCH, EPOCHS, DTYPE = 32, 4, 20, 2, None
else:
    SIZE, WIDTH, BATCH, EPOCHS, DTYPE = 64, 16, 50, 4, None
BITS = 64
BATCH -= BATCH % len(devices)
WORKERS = max(0, (os.cpu_count() or 1) - 2) if ACCELERATOR else 0


def low_rank_kernel(image_features, text_features, *, rngs):
    return KernelNetwork(
        image_features,
        text_features,
        rank=min(image_features + 1, text_features),
        similarity=bounded_residual,
        dtype=DTYPE,
        rngs=rngs,
    )


block = functools.partial(
    ModalAwareBlock,
    kernel_network=low_rank_kernel,
    channel_attention=functools.partial(
        SqueezedChannelAttention, gate=mean_one_softmax, dtype=DTYPE
    ),
)


@nnx.jit
def build():
    rngs = nnx.Rngs(0)
    return MultimodalHashing(
        ResNet18(width=WIDTH, dtype=DTYPE, rngs=rngs),
        pairs.num_text_features,
        BITS,
        text_widths=(1024, 512) if WIDTH == 64 else (256, 64),
        block=block,
        dtype=DTYPE,
        rngs=rngs,
    )


model = build()
if WIDTH == 64:  # ImageNet's weights, from huggingface.co
    load_resnet18(model.backbone, "hf-hub:timm/resnet18.tv_in1k")
graphdef, params, stats = split_model(model)

# %% [markdown]
# ## One program for all devices
#
# The batch is split over the devices, the state is on each of them. The compiler does
# the rest: batch norms use the whole batch, and triplets are formed across devices.

# %%
mesh = Mesh(np.array(devices), ("data",))
on_each = NamedSharding(mesh, PartitionSpec())
by_rows = NamedSharding(mesh, PartitionSpec("data"))

MEAN, DEVIATION = (np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225]))


def normalize(images):
    images = jnp.asarray(images, jnp.float32) / 255
    return (images - MEAN.reshape(1, 1, 1, 3)) / DEVIATION.reshape(1, 1, 1, 3)


def loss_fn(model, batch, key):
    relaxed = model(normalize(batch["image"]), batch["text"], train=True)
    relaxed = jnp.asarray(relaxed, jnp.float32)
    return triplet_ranking_chunked(jnp.tanh(relaxed), batch["labels"])


steps_per_epoch = len(split.train) // BATCH
num_steps = EPOCHS * steps_per_epoch


def adam(rate):
    return adam_l2(cosine(rate, num_steps=num_steps, warmup_steps=num_steps // 20))


fresh = 1.0 if WIDTH == 64 else 10.0  # a backbone from ImageNet moves slowly
tx = by_prefix({"backbone": adam(1e-4 * fresh), "": adam(1e-3)})
update = make_update(graphdef, loss_fn, tx)
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
    model = nnx.merge(graphdef, *variables)
    bits = model(normalize(batch["image"]), batch["text"], train=False)
    return jnp.asarray(bits, jnp.float32)


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
        num_bits=BITS,
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
print(f"{num_steps * BATCH / seconds:.0f} images/s over all")

# %% [markdown]
# ## The test queries, once

# %%
results = score(fitted.state, split.query, split.database)
print(f"MAP {results['map_expected']:.4f} at {BITS} bits,", end=" ")
print(f"{results['num_queries']:,} queries in {results['num_database']:,} pairs")
draw_precision_recall({"modal-aware": results}, "precision_recall.png")
display(Image("precision_recall.png", width=480))

# %% [markdown]
# The command line does the same from a config, with every loss, method and ablation:
#
#     python -m modal_aware_jax.main --config=configs/flickr.py \
#         --config.data.dir=FOLDER --workdir=runs/flickr
