"""The features of both modalities that a network starts from, before any training."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modal_aware_jax.data import pipeline

BATCH = 128


def frozen_features(experiment, maps, backbone) -> list[tuple]:
    """Image and text features of a collection, as `joint_vectors` takes them.

    An image's are the means of the last maps of a backbone; a text's what the network
    reads, words as vectors summed over the root of their number.

    Args:
      experiment: as built from the config.
      maps: of `modes.encoder.lower_maps`.
      backbone: graphdef and variables, a pure dict, of the one to take; None: the
        network has none.

    Returns:
      (features [N, D], bool [N] of the rows that have them, or None for all) of each.
    """
    pairs, features = experiment.collection, []
    if backbone is not None:
        features.append((_image_means(experiment, maps, backbone), pairs.has_image))
    text = np.asarray(pairs.text, np.float32)
    has_text = text.any(axis=1)
    vectors = getattr(experiment.text, "vectors_of_words", None)
    if vectors is not None:
        number = np.maximum(text.sum(axis=1, keepdims=True), 1)
        text = text @ np.asarray(vectors, np.float32) / np.sqrt(number)
    return [*features, (text, has_text)]


def _image_means(experiment, maps, backbone):
    """Means of the last maps [N, D]."""
    pairs, (graphdef, state) = experiment.collection, backbone
    if experiment.cached_means or experiment.cached_last:
        # One by one: all last maps are too much for the memory.
        return np.stack([own[0].astype(np.float32).mean(axis=(0, 1)) for own in maps])

    @jax.jit
    def means(state, images):
        backbone = nnx.merge(graphdef, state)
        lower = images.astype(jnp.float32)
        if maps is None:
            lower = backbone.lower(experiment.normalize(images), train=False)
        return backbone.upper(lower, train=False).mean(axis=(1, 2))

    everything, options = np.arange(len(pairs)), {"batch_size": BATCH}
    if maps is None:
        options |= dict(image_size=experiment.image_size, workers=experiment.workers)
        batches = pipeline.eval_batches(pairs, everything, **options)
    else:
        batches = pipeline.cached_eval_batches(maps, pairs, everything, **options)
    rows = [np.asarray(means(state, batch["image"])) for batch in batches]
    return np.concatenate(rows)[: len(pairs)]
