"""Names of data sources, and the collection and the split that a config names."""

from modal_aware_jax.data import (
    flickr25k,
    folder,
    iapr_tc12,
    nus_wide,
    protocol,
    shapes,
)
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.experiment.lookup import choose


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


def collection(config) -> Collection:
    """Reads (and on first use prepares) the pairs of `config.data`."""
    load = choose("data source", SOURCES, config.source)
    return load(config.get("dir", ""), **config.get("options", {}))


def split_of(config, pairs: Collection) -> protocol.Split:
    """The split of the pairs by the sizes and the seed of `config.data`."""
    return protocol.split(
        len(pairs),
        num_queries=config.num_queries,
        num_train=config.num_train,
        num_validation=config.num_validation,
        seed=config.split_seed,
        labels=pairs.labels,
        queries_per_label=config.get("queries_per_label", None),
    )
