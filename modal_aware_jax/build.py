"""From a config to the parts of an experiment: names become constructors here.

Nothing else reads a config; what is built holds plain values and functions.
"""

import dataclasses
import difflib
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from modal_aware_jax.backbones import pretrained
from modal_aware_jax.backbones.mobilenet import MobileNetV2
from modal_aware_jax.backbones.resnet import ResNet18
from modal_aware_jax.blocks.channel_attention import (
    ChannelAttention,
    SqueezedChannelAttention,
    mean_one_softmax,
)
from modal_aware_jax.blocks.kernel_network import KernelNetwork, bounded_residual
from modal_aware_jax.blocks.modal_aware import ModalAwareBlock, PassThrough
from modal_aware_jax.data import (
    flickr25k,
    folder,
    iapr_tc12,
    nus_wide,
    protocol,
    shapes,
)
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.prepare import default_prepared_dir
from modal_aware_jax.hashing.hidden import HiddenLayer, NoHiddenLayer
from modal_aware_jax.losses.contrastive import contrastive
from modal_aware_jax.losses.pairwise import dpsh, dsh, hashnet
from modal_aware_jax.losses.triplet import triplet_ranking
from modal_aware_jax.models.multimodal_hashing import MultimodalHashing
from modal_aware_jax.models.unimodal import ImageHashing, TextHashing
from modal_aware_jax.training import optimizer


def _shapes(directory, **options):
    del directory  # nothing to read
    return shapes.load(**options)


SOURCES = {
    "flickr25k": flickr25k.load,
    "folder": folder.load,
    "iapr_tc12": iapr_tc12.load,
    "nus_wide": nus_wide.load,
    "shapes": _shapes,
}


class BackboneKind(NamedTuple):
    """What a config's backbone name stands for.

    Attributes:
      constructor: of the module.
      load: fills it with public weights.
      mean, deviation: of the images those weights expect, of each colour in 0..1.
      block_of: the number of the block that a parameter's path lies in, from the stem.
      num_lower_blocks: how many blocks `lower` has.
    """

    constructor: Callable
    load: Callable
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    block_of: Callable[[tuple], int]
    num_lower_blocks: int


def _resnet_block(path):
    return 0 if path[0] == "stem" else 1 + 2 * int(path[1]) + int(path[2])


BACKBONES = {
    "resnet18": BackboneKind(
        ResNet18,
        pretrained.load_resnet18,
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        _resnet_block,
        num_lower_blocks=7,
    ),
    "mobilenet_v2": BackboneKind(
        MobileNetV2,
        pretrained.load_mobilenet_v2,
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
        lambda path: int(path[1]),
        num_lower_blocks=14,
    ),
}

LOSSES = {
    "triplet_ranking": lambda u, y, **kw: triplet_ranking(jnp.tanh(u), y, **kw),
    "contrastive": lambda u, y, **kw: contrastive(jnp.tanh(u), y, **kw),
    "dpsh": dpsh,
    "dsh": dsh,
    "hashnet": hashnet,
}


def _low_rank_kernel(image_features, text_features, **options):
    """The same functions as the literal kernel network's, with fewer weights."""
    rank = min(image_features + 1, text_features)
    return KernelNetwork(image_features, text_features, rank=rank, **options)


_bounded_kernel = functools.partial(_low_rank_kernel, similarity=bounded_residual)
_mean_one_attention = functools.partial(SqueezedChannelAttention, gate=mean_one_softmax)


def _block(kernel_network, channel_attention):
    return functools.partial(
        ModalAwareBlock,
        kernel_network=kernel_network,
        channel_attention=channel_attention,
    )


# The blocks of MultimodalHashing by method: the paper's literal form, the same with
# the exactly equivalent low-rank kernel, the recommended form and what it is without
# one half, and no blocks at all.
BLOCKS = {
    "modal_aware": _block(_bounded_kernel, _mean_one_attention),
    "modal_aware_paper": _block(KernelNetwork, ChannelAttention),
    "modal_aware_low_rank": _block(_low_rank_kernel, ChannelAttention),
    "modal_aware_squeezed": _block(_low_rank_kernel, SqueezedChannelAttention),
    "no_kernel": _mean_one_attention,
    "no_attention": _bounded_kernel,
    "concat": PassThrough,
}
METHODS = (*BLOCKS, "image", "text")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a mode needs, in plain values and functions.

    Attributes:
      name: what the tables call it.
      config: the config as plain JSON, kept with the run.
      collection, split: the pairs and their parts.
      model: freshly initialised, with pretrained weights where asked for.
      is_trained, is_lower: whether the parameter of a path is trained; whether it
        belongs to the backbone's lower half.
      loss: `loss(model, batch, key)` -> scalar.
      relaxed: `relaxed(model, batch)` -> relaxed bits [B, K], in evaluation mode.
      make_optimizer: number of steps an epoch -> optax transformation.
      The other fields are the config's values of the same names.
    """

    name: str
    config: dict
    seed: int
    collection: Collection
    split: protocol.Split
    model: nnx.Module
    is_trained: Callable
    is_lower: Callable
    loss: Callable
    relaxed: Callable
    make_optimizer: Callable
    normalize: Callable
    num_bits: int
    image_size: int
    num_epochs: int
    batch_size: int
    cached_maps: bool
    cache_dir: pathlib.Path
    checkpoint_steps: int | None
    validation_database: int | None
    workers: int


def choose(kind: str, table: dict, name: str) -> Any:
    """The entry of a table, or a ValueError that names the nearest one."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(table)}.")


def collection(config) -> Collection:
    """Reads (and on first use prepares) the pairs of `config.data`."""
    load = choose("data source", SOURCES, config.source)
    return load(config.get("dir", ""), **config.get("options", {}))


def find_weights(name: str, data_dir: str) -> pathlib.Path | str:
    """A weights file as given, or in a folder `weights` beside or above the data."""
    if name.startswith("hf-hub:"):
        return name
    given = pathlib.Path(name).expanduser()
    places = [given]
    if not given.is_absolute():
        above = pathlib.Path(os.path.abspath(os.path.expanduser(data_dir)))
        for folder_above in (above, *above.parents):
            places += [folder_above / given, folder_above / "weights" / given]
    for place in places:
        if place.is_file():
            return place
    raise ValueError(
        f"The weights {name} were not found: neither as given nor in the data folder, "
        "a folder above it, or a folder `weights` in one of these. Name the file with "
        "--config.backbone.weights=FILE, or train from scratch with "
        "--config.backbone.weights=''."
    )


def backbone(config, data_dir: str, rngs: nnx.Rngs) -> nnx.Module:
    """The image backbone of `config.backbone`, with its weights where given."""
    kind = choose("backbone", BACKBONES, config.name)
    module = kind.constructor(**config.options, rngs=rngs)
    if config.weights:
        kind.load(module, find_weights(config.weights, data_dir))
    return module


def model(config, pairs: Collection) -> nnx.Module:
    """The network of `config.model`, for the text of a collection."""
    rngs = nnx.Rngs(config.seed)
    method, bits = config.model.method, config.model.num_bits
    widths = tuple(config.model.text_widths)
    hidden = NoHiddenLayer
    if config.model.hidden_features:
        hidden = functools.partial(HiddenLayer, features=config.model.hidden_features)
    heads = {
        "hidden": hidden,
        "num_labels": pairs.num_labels if config.loss.label_weight else None,
    }
    if method not in METHODS:
        choose("method", dict.fromkeys(METHODS), method)
    if method == "text":
        return TextHashing(
            pairs.num_text_features, bits, text_widths=widths, rngs=rngs, **heads
        )
    trunk = backbone(config.backbone, config.data.get("dir", ""), rngs)
    if method == "image":
        return ImageHashing(trunk, bits, rngs=rngs, **heads)
    return MultimodalHashing(
        trunk,
        pairs.num_text_features,
        bits,
        text_widths=widths,
        block=BLOCKS[method],
        rngs=rngs,
        **heads,
    )


def normalizer(mean, deviation) -> Callable:
    """uint8 images [B, H, W, 3] -> float32 as the backbone's weights expect them."""
    mean, deviation = np.float32(mean) * 255, np.float32(deviation) * 255

    def normalize(images):
        images = jnp.asarray(images, jnp.float32)
        return (images - mean.reshape(1, 1, 1, 3)) / deviation.reshape(1, 1, 1, 3)

    return normalize


def drop_words(key: jax.Array, text: jax.Array, rate: float) -> jax.Array:
    """Drops each word of bags [B, T] with a probability: tags are often missing."""
    return text * jax.random.bernoulli(key, 1.0 - rate, text.shape)


def crop_maps(key: jax.Array, maps: jax.Array, size: int) -> jax.Array:
    """A random window of cached maps, the same for the batch: [B, s, s, C].

    For a frozen lower half this is what a random crop of the photograph is, at a part
    of the work.
    """
    height, width = maps.shape[1:3]
    if not 0 < size <= min(height, width):
        raise ValueError(
            f"config.training.map_crop is {size}, but the cached maps are "
            f"{height}x{width}. Take a smaller crop, or 0 for none."
        )
    rows, columns = jax.random.split(key)
    top = jax.random.randint(rows, (), 0, height - size + 1)
    left = jax.random.randint(columns, (), 0, width - size + 1)
    corner, window = (0, top, left, 0), (len(maps), size, size, maps.shape[-1])
    return jax.lax.dynamic_slice(maps, corner, window)


def make_optimizer(config, num_epochs: int, steps_per_epoch: int):
    """Adam with coupled L2; the backbone has a learning rate of its own.

    A warm-up longer than half of a short run is cut to that half.
    """
    num_steps = num_epochs * steps_per_epoch
    warmup_steps = min(config.warmup_steps, num_steps // 2)

    def schedule(rate):
        if config.schedule == "step":
            return optimizer.step_decay(
                rate,
                steps_per_epoch=steps_per_epoch,
                every_epochs=config.decay_every_epochs,
                warmup_steps=warmup_steps,
            )
        if config.schedule == "cosine":
            return optimizer.cosine(
                rate,
                num_steps=num_steps,
                warmup_steps=warmup_steps,
            )
        return choose("schedule", {"step": 0, "cosine": 0}, config.schedule)

    def adam(rate) -> optax.GradientTransformation:
        return optimizer.adam_l2(schedule(rate), weight_decay=config.weight_decay)

    return optimizer.by_prefix(
        {
            "backbone": adam(config.backbone_learning_rate),
            "": adam(config.learning_rate),
        }
    )


def experiment(config, pairs: Collection | None = None) -> Experiment:
    """Builds everything a config names.

    Args:
      config: a locked ConfigDict of one run, as in `configs/`.
      pairs: the collection, where it was read already.
    """
    pairs = collection(config.data) if pairs is None else pairs
    data, training = config.data, config.training
    parts = protocol.split(
        len(pairs),
        num_queries=data.num_queries,
        num_train=data.num_train,
        num_validation=data.num_validation,
        seed=data.split_seed,
        labels=pairs.labels,
        queries_per_label=data.get("queries_per_label", None),
    )
    network = model(config, pairs)
    loss = functools.partial(
        choose("loss", LOSSES, config.loss.name), **config.loss.options
    )
    kind = choose("backbone", BACKBONES, config.backbone.name)
    normalize = normalizer(kind.mean, kind.deviation)
    cached, label_weight = training.cached_maps, config.loss.label_weight

    def training_loss(model, batch, key):
        words, window, dropout = jax.random.split(key, 3)
        text, labels = batch["text"], batch["labels"]
        if training.word_dropout:
            text = drop_words(words, text, training.word_dropout)
        rngs = nnx.Rngs(dropout=dropout)
        if cached:
            maps = jnp.asarray(batch["image"], jnp.float32)
            if training.map_crop:
                maps = crop_maps(window, maps, training.map_crop)
            joint = model.joint_from_maps(maps, text, train=True, rngs=rngs)
        else:
            images = normalize(batch["image"])
            joint = model.joint(images, text, train=True, rngs=rngs)
        value = loss(model.head(joint), labels)
        if label_weight:
            logits = model.label_head(joint)  # [B, L]
            entropy = optax.sigmoid_binary_cross_entropy(logits, labels)
            value += label_weight * entropy.sum(axis=-1).mean()
        return value

    def relaxed(model, batch):
        if cached:
            maps = jnp.asarray(batch["image"], jnp.float32)
            return model.head(model.joint_from_maps(maps, batch["text"], train=False))
        return model(normalize(batch["image"]), batch["text"], train=False)

    frozen = config.backbone.frozen_blocks
    if cached and frozen < kind.num_lower_blocks:
        raise ValueError(
            "config.training.cached_maps needs a frozen lower half: set "
            f"--config.backbone.frozen_blocks={kind.num_lower_blocks} or more, "
            f"got {frozen}."
        )

    def is_lower(path):
        return path[0] == "backbone" and kind.block_of(path[1:]) < kind.num_lower_blocks

    def is_trained(path):
        return path[0] != "backbone" or kind.block_of(path[1:]) >= frozen

    return Experiment(
        name=config.model.method,
        config=config.to_dict(),
        seed=config.seed,
        collection=pairs,
        split=parts,
        model=network,
        is_trained=is_trained,
        is_lower=is_lower,
        loss=training_loss,
        relaxed=relaxed,
        make_optimizer=functools.partial(
            make_optimizer, config.optimizer, training.num_epochs
        ),
        normalize=normalize,
        num_bits=config.model.num_bits,
        image_size=data.image_size,
        num_epochs=training.num_epochs,
        batch_size=training.batch_size,
        cached_maps=cached,
        cache_dir=pathlib.Path(
            training.get("cache_dir", "") or default_prepared_dir() / "maps"
        ),
        checkpoint_steps=training.checkpoint_steps or None,
        validation_database=training.validation_database or None,
        workers=training.workers,
    )
