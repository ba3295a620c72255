"""The networks of tokens that match images and sentences, built of `config.model`.

Each is `make(image_features, text_features, options, rngs)`, `options` being
`config.model`, and has `embed_image`, `embed_text`, `temperature` and what a judge of
pairs has: `encode_image` and `encode_text`, one side each, and `score_encoded` of both.
A judge alone stands beside towers.
"""

import functools

from modal_aware_jax.backbones.text_vector import PlainText, StandardText
from modal_aware_jax.blocks.cross_modal_graph import recommended_graph
from modal_aware_jax.blocks.pooling import unit_mean
from modal_aware_jax.experiment.methods import BLOCKS
from modal_aware_jax.models.align_before_fuse import AlignBeforeFuse
from modal_aware_jax.models.cross_modal_graph import CrossModalGraphNetwork
from modal_aware_jax.models.reranked import GraphBesideMeans, ModalAwarePairs, Reranked
from modal_aware_jax.models.single_stream import SingleStream
from modal_aware_jax.models.two_tower import TwoTower


def tower_options(options, rngs):
    """What `config.model` says of two towers, as keywords of a `TwoTower`."""
    inputs = StandardText if options.get("standard_inputs") else PlainText
    return {
        "hidden_features": options.hidden_features,
        "image_dropout_rate": options.image_dropout,
        "text_dropout_rate": options.text_dropout,
        "hidden_dropout_rate": options.hidden_dropout,
        "image_inputs": inputs,
        "text_inputs": inputs,
        "dtype": None,
        "rngs": rngs,
    }


def graph(form, features: str):
    """Constructor of the graph network, with embeddings as wide as an option says.

    Args:
      form: constructor of the graph, `(features, num_layers, *, dropout_rate, rngs)`.
      features: the option's name.
    """

    def make(image_features, text_features, options, rngs):
        return CrossModalGraphNetwork(
            image_features,
            text_features,
            options[features],
            graph_features=options.token_features,
            num_layers=options.token_layers,
            graph=functools.partial(form, dropout_rate=options.token_dropout),
            dropout_rate=options.token_dropout,
            rngs=rngs,
        )

    return make


def graph_beside_means(image_features, text_features, options, rngs):
    """The recommended graph, whose embeddings towers read beside the means."""
    make = graph(recommended_graph, "token_features")
    return GraphBesideMeans(
        make(image_features, text_features, options, rngs),
        functools.partial(
            TwoTower, features=options.features, **tower_options(options, rngs)
        ),
        image_features,
        text_features,
        graph_features=options.token_features,
    )


def reranked(make):
    """Towers on the means, with a network of pairs beside them."""

    def network(image_features, text_features, options, rngs):
        towers = TwoTower(
            image_features,
            text_features,
            options.features,
            text_pool=unit_mean,
            **tower_options(options, rngs),
        )
        return Reranked(towers, make(image_features, text_features, options, rngs))

    return network


def single_stream(image_features, text_features, options, rngs):
    """A judge of pairs."""
    return SingleStream(
        image_features,
        text_features,
        features=options.token_features,
        num_heads=options.token_heads,
        num_layers=options.token_layers,
        dropout_rate=options.token_dropout,
        rngs=rngs,
    )


def modal_aware(image_features, text_features, options, rngs):
    """A judge of pairs."""
    return ModalAwarePairs(
        image_features,
        text_features,
        features=options.token_features,
        block=BLOCKS["modal_aware"],
        dropout_rate=options.token_dropout,
        rngs=rngs,
    )


def align_before_fuse(image_features, text_features, options, rngs):
    """Embeddings and scores of pairs."""
    return AlignBeforeFuse(
        image_features,
        text_features,
        options.features,
        width=options.token_features,
        num_heads=options.token_heads,
        fusion_layers=options.token_layers,
        dropout_rate=options.token_dropout,
        rngs=rngs,
    )
