"""Names of data sources, and the collection and the split that a config names."""

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Sequence

import jax
from ml_collections import config_dict

from modal_aware_jax.data import (
    captioned_shapes,
    flickr25k,
    folder,
    iapr_tc12,
    nus_wide,
    protocol,
    shapes,
)
from modal_aware_jax.data.captions.collection import loader
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.given_split import given_split
from modal_aware_jax.data.sizes import fitting_batch, fitting_sizes
from modal_aware_jax.experiment.lookup import choose


def _embedded(load):
    @functools.wraps(load)
    def load_without_directory(directory, **options):
        del directory  # nothing to read
        return load(**options)

    return load_without_directory


SOURCES = {
    "captioned_shapes": _embedded(captioned_shapes.load),
    "flickr25k": flickr25k.load,
    "flickr30k": loader("flickr30k"),
    "flickr8k": loader("flickr8k"),
    "folder": folder.load,
    "iapr_tc12": iapr_tc12.load,
    "karpathy": loader("karpathy"),
    "nus_wide": nus_wide.load,
    "shapes": _embedded(shapes.load),
}


# Options that keep what a source leaves out of training; others leave nothing out.
EVERY_ITEM = {
    "flickr25k": {"keep_all": True},
    "folder": {"allow_empty_text": True},
    "iapr_tc12": {"keep_unlabelled": True, "allow_empty_text": True},
    "nus_wide": {"keep_untagged": True, "keep_unlabelled": True},
    "shapes": {},
}


def reader_options(source: str, **given) -> dict:
    """A config's `data.options`: those given, and a place for each other of the reader.

    A place holds nothing, which leaves the reader its default, and takes a value of the
    option's type: `--config.data.options.table=FILE`. Names and lists of names are text
    there, with commas between the names.

    Args:
      source: name of the source in `SOURCES`.
      **given: values that the config gives itself.

    Example:
      >>> options = reader_options("folder", on_problem="stop")
      >>> options["on_problem"], options["table"].get()
      ('stop', None)
    """
    load = choose("data source", SOURCES, source)
    places = {
        name: config_dict.placeholder(_option_type(hint))
        for name, hint in _option_hints(load).items()
    }
    return {**places, **given}


def _option_hints(load: Callable) -> dict:
    """The type hints of a reader's keywords, in their order."""
    keywords = inspect.signature(load, eval_str=True).parameters.values()
    return {
        keyword.name: keyword.annotation
        for keyword in keywords
        if keyword.kind is keyword.KEYWORD_ONLY
    }


def _option_type(hint) -> type:
    """The type of an option on the command line; text where it is no number."""
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not None]
    return next((kind for kind in (bool, int, float) if kind in kinds), str)


def collection(config) -> Collection:
    """Reads (and on first use prepares) the pairs of `config.data`."""
    load = choose("data source", SOURCES, config.source)
    return load(config.get("dir", ""), **_given(config))


def leaves_out(config) -> bool:
    """Whether `collection` may leave out pairs that are not trained on."""
    given = _given(config)
    whole = EVERY_ITEM.get(config.source, {})
    return any(given.get(name) != value for name, value in whole.items())


def every_item(config, vocabulary: Sequence[str]) -> Collection:
    """Reads all pairs of `config.data`, those too that are not trained on.

    Args:
      config: the section `data`.
      vocabulary: of the model that will read them: the bags are in these words where
        the source has no vocabulary of its own. Empty: the source's.
    """
    load = choose("data source", SOURCES, config.source)
    options = {**_given(config), **EVERY_ITEM.get(config.source, {})}
    if vocabulary and "vocabulary" in _option_hints(load):
        options["vocabulary"] = list(vocabulary)
    return load(config.get("dir", ""), **options)


def _given(config):
    options = config.get("options", {})
    return {name: value for name, value in options.items() if value is not None}


def fitted(config, pairs: Collection):
    """The config with the sizes that it leaves open, by the size of the collection.

    Says on stderr what it chose. Without labels there is no head of label
    probabilities: none of its layers would learn what it reads.
    """
    config = config.copy_and_resolve_references()
    data, training = config.data, config.training
    names = ("num_queries", "num_train", "num_validation")
    per_label = data.get("queries_per_label", None) is not None
    with config.unlocked(), config.ignore_type():
        was_open = not per_label and any(data[name] is None for name in names)
        if was_open and pairs.parts is None:
            sizes = fitting_sizes(len(pairs), **{name: data[name] for name in names})
            data.update(sizes._asdict())
        parts = split_of(data, pairs)
        if training.batch_size is None:
            training.batch_size = fitting_batch(len(parts.train), jax.device_count())
            was_open = True
        if not pairs.labels.any() and "head_features" in config.model:
            config.model.head_features = 0
    if was_open:
        kind = "given" if pairs.parts is not None else "drawn"
        print(
            f"{pairs.name}: {len(pairs):,} pairs, split as {kind}: "
            f"{len(parts.query):,} queries, {len(parts.database):,} in the database, "
            f"{len(parts.train):,} of them to train on and {len(parts.validation):,} "
            f"to validate with; batches of {training.batch_size}",
            file=sys.stderr,
        )
    return config.lock()


def split_of(config, pairs: Collection) -> protocol.Split:
    """The split that the pairs bring, or one by the sizes and seed of `config.data`."""
    if pairs.parts is not None:
        load = choose("data source", SOURCES, config.source)
        return given_split(
            pairs.parts,
            num_queries=config.num_queries,
            num_train=config.num_train,
            num_validation=config.num_validation,
            seed=config.split_seed,
            drawable="given_split" in _option_hints(load),
        )
    return protocol.split(
        len(pairs),
        num_queries=config.num_queries,
        num_train=config.num_train,
        num_validation=config.num_validation,
        seed=config.split_seed,
        labels=pairs.labels,
        queries_per_label=config.get("queries_per_label", None),
    )
