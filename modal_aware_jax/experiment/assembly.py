"""An experiment: all parts that a config names, put together."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.sentence_vectors import SentenceModel
from modal_aware_jax.backbones.word_pieces import WordPieceModel
from modal_aware_jax.data import protocol
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.prepare import default_prepared_dir
from modal_aware_jax.data.presence import with_presence
from modal_aware_jax.data.text_vectors import represent, text_encoder
from modal_aware_jax.data.token_table import TokenTable
from modal_aware_jax.data.word_ids import WordIds
from modal_aware_jax.data.word_sequences import WordSequences
from modal_aware_jax.experiment.backbones import BACKBONES
from modal_aware_jax.experiment.inputs import crop_maps, normalizer, presence
from modal_aware_jax.experiment.lookup import choose
from modal_aware_jax.experiment.methods import model, needs_stand_ins
from modal_aware_jax.experiment.mirrored import mean_with_mirror, reads_mirrored
from modal_aware_jax.experiment.optimizers import make_optimizer
from modal_aware_jax.experiment.ranges import check_ranges
from modal_aware_jax.experiment.sources import collection, fitted, split_of
from modal_aware_jax.experiment.tasks import choose_method, task_for
from modal_aware_jax.hashing.nested import check_lengths
from modal_aware_jax.tasks.hashing import SEARCHED
from modal_aware_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a mode needs, in plain values and functions.

    Attributes:
      name: what the tables call it.
      task: what the run is for.
      config: the config as plain JSON, kept with the run.
      collection, split: the pairs, their text as the network reads it; their parts.
      text: the encoder of texts, new ones too (see `data/text_vectors.py`).
      model: freshly initialised, with pretrained weights where asked for.
      is_trained, is_lower: whether the parameter of a path is trained; whether it
        belongs to the backbone's lower half.
      loss: `loss(model, batch, key)` -> scalar.
      output: `output(model, batch)` -> what the task reads of the pairs, such as
        relaxed bits [B, K], in evaluation mode.
      solve: `solve(model, maps)` fills the model in place of training; None where it is
        trained.
      make_optimizer: number of steps an epoch -> optax transformation.
      pairs: how pairs of a gallery are scored, as `Task.pairs` gives it; or None.
      cached_last: whether the network reads the last maps of a frozen backbone, from
        the cache.
      mirrored: whether what is encoded is the mean of a picture's reading as it is
        and mirrored (`mirrored.py`); `output` is then.
      wide_features: width of the wide text vector, the first of `text_widths`.
      degraded: the share of training pictures that are degraded first.
      augment: whether images are cropped and mirrored at random in training.
      suffix: of the files that are written of codes of another length than the whole.
      The other fields are the config's values of the same names.
    """

    name: str
    task: Task
    config: dict
    seed: int
    collection: Collection
    split: protocol.Split
    text: Any
    model: nnx.Module
    is_trained: Callable
    is_lower: Callable
    loss: Callable
    output: Callable
    solve: Callable | None
    pairs: Any
    make_optimizer: Callable
    normalize: Callable
    num_bits: int
    image_size: int
    wide_features: int
    num_epochs: int
    batch_size: int
    tensor_parallel: int
    cached_maps: bool
    cached_means: bool
    cached_last: bool
    mirrored: bool
    cache_dir: pathlib.Path
    checkpoint_steps: int | None
    validation_search: str
    validation_database: int | None
    workers: int
    degraded: float = 0.0
    augment: bool = True
    suffix: str = ""


def shortened(run: Experiment, bits: int) -> Experiment:
    """The experiment with the first bits of its codes in place of all.

    Args:
      run: of nested codes.
      bits: one of their lengths.

    Raises:
      ValueError: the run's codes have no prefix of this length.
    """
    lengths = check_lengths(run.config["model"].get("nested_bits", ()), run.num_bits)
    if bits not in lengths:
        raise ValueError(
            f"--bits={bits}: this run's codes have {', '.join(map(str, lengths))} bits."
            " Codes of several lengths are trained together: name the lengths in "
            "config.model.nested_bits."
        )

    def output(model, batch):
        return run.output(model, batch)[:, :bits]

    suffix = "" if bits == run.num_bits else f"-{bits}"
    return dataclasses.replace(run, num_bits=bits, output=output, suffix=suffix)


def experiment(config, pairs: Collection | None = None) -> Experiment:
    """Builds everything a config names.

    Args:
      config: a locked ConfigDict of one run, as in `configs/`.
      pairs: the collection as its source gives it, where it was read already.
    """
    check_ranges(config)
    search = config.training.get("validation_search", "unseen")
    choose("config.training.validation_search", SEARCHED, search)
    pairs = collection(config.data) if pairs is None else pairs
    task = task_for(config, pairs)
    task.check(config, pairs)
    method = choose_method(task, config.model.method)
    config = fitted(config, pairs)
    data, training = config.data, config.training
    parts = split_of(data, pairs)
    text = text_encoder(
        data.get("text", "bag"),
        pairs,
        parts.train,
        read_model=SentenceModel,
        read_pieces=WordPieceModel,
        sentence_model=data.get("sentence_model", ""),
        word_vectors=data.get("word_vectors", "own"),
        cleaning=data.get("cleaning", ""),
        num_tokens=data.get("num_tokens", 0),
        folder=_prepared_dir(data) / "text",
    )
    pairs = represent(pairs, text)
    if needs_stand_ins(config):
        pairs = with_presence(pairs)
    network = (task.network or _network)(
        config,
        pairs,
        text,
        method=method,
        num_outputs=task.num_outputs(config, pairs),
    )
    kind = choose("backbone", BACKBONES, config.backbone.name)
    normalize = normalizer(kind.mean, kind.deviation)
    cached = training.cached_maps
    frozen = config.backbone.frozen_blocks
    lower = network.backbone.num_lower_blocks if hasattr(network, "backbone") else 0
    if cached and frozen < lower:
        raise ValueError(
            "config.training.cached_maps needs a frozen lower half: set "
            f"--config.backbone.frozen_blocks={lower} or more, got {frozen}."
        )

    fixed = (
        cached
        and training.get("cached_means", True)
        and not training.map_crop
        and _is_fixed(network, lambda path: kind.block_of(path) >= frozen)
    )
    means = fixed and network.reads_means
    last = fixed and not means and getattr(network, "reads_last", False)
    solve = task.solve and task.solve(config, pairs, parts, method)
    joint = _joint_of(cached, means, last, normalize, training.map_crop)

    output = task.output(joint)
    mirrored = reads_mirrored(config, network)
    if mirrored:
        output = mean_with_mirror(output, cached)

    def is_lower(path):
        return path[0] == "backbone" and kind.block_of(path[1:]) < lower

    def is_trained(path):
        if path[0] == "slow":  # a copy that follows the network
            return False
        return path[0] != "backbone" or kind.block_of(path[1:]) >= frozen

    return Experiment(
        name=config.model.method,
        task=task,
        config=config.to_dict(),
        seed=config.seed,
        collection=pairs,
        split=parts,
        text=text,
        model=network,
        is_trained=is_trained,
        is_lower=is_lower,
        loss=task.loss(config, pairs, parts, network, joint),
        output=output,
        solve=solve,
        pairs=task.pairs and task.pairs(network, joint),
        make_optimizer=functools.partial(
            make_optimizer, config.optimizer, training.num_epochs
        ),
        normalize=normalize,
        num_bits=config.model.get("num_bits", 0) if task.comparison.by_bits else 0,
        image_size=data.image_size,
        wide_features=config.model.get("text_widths", (0,))[0],
        num_epochs=0 if solve else training.num_epochs,
        batch_size=training.batch_size,
        tensor_parallel=training.get("tensor_parallel", 1),
        cached_maps=cached,
        cached_means=means,
        cached_last=last,
        mirrored=mirrored,
        cache_dir=pathlib.Path(
            training.get("cache_dir", "") or default_prepared_dir() / "maps"
        ),
        checkpoint_steps=training.checkpoint_steps or None,
        validation_search=search,
        validation_database=training.get("validation_database", 0) or None,
        workers=training.workers,
        degraded=training.get("degraded", 0.0),
        augment=training.get("augment", True),
    )


def _network(config, pairs, text, **options):
    """A network with a joint vector and a head."""
    if isinstance(pairs.text, TokenTable) or isinstance(text, (WordIds, WordSequences)):
        raise ValueError(
            f"config.data.text={config.data.text} gives tokens, which the method "
            f"{config.model.method!r} cannot read. Take --config.data.text=sentence "
            "for one vector a text."
        )
    vectors = getattr(text, "vectors_of_words", None)
    return model(config, pairs, vectors, **options)


def _prepared_dir(data):
    """Where the data's source keeps what it prepared."""
    given = data.get("options", {}).get("prepared_dir", None)
    return pathlib.Path(given or default_prepared_dir()).expanduser()


def _is_fixed(network, is_trained):
    """Whether no step changes the last maps."""
    if not getattr(getattr(network, "backbone", None), "freeze_norm", False):
        return False
    paths = [path for path, _ in nnx.to_flat_state(nnx.state(network.backbone))]
    return not any(map(is_trained, paths))


def _joint_of(cached_maps, cached_means, cached_last, normalize, map_crop):
    """`joint(model, batch, text, *, train, window, rngs)`: from what a batch holds.

    A batch's `image` holds images, maps of the frozen lower half, the last maps, or
    their means; `has_image` and `has_text` say which rows have one.
    """

    def joint(model, batch, text, *, train, window=None, rngs=None):
        options = {"train": train, "rngs": rngs}
        if getattr(model, "has_stand_ins", False):
            options["present"] = presence(batch, text)
        if not cached_maps:
            return model.joint(normalize(batch["image"]), text, **options)
        maps = jnp.asarray(batch["image"], jnp.float32)
        if cached_means:
            return model.joint_from_means(maps, text, **options)
        if cached_last:
            return model.joint_from_last(maps, text, **options)
        if train and map_crop and hasattr(model, "backbone"):
            maps = crop_maps(window, maps, map_crop)
        return model.joint_from_maps(maps, text, **options)

    return joint
