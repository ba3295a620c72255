"""Every item of a collection, for a model that is there already.

What is left out for training (pairs without a known word, without a label) is encoded
and found all the same; a pair without a known word has an empty text.
"""

import dataclasses

import numpy as np

from modal_aware_jax.build import Experiment, every_item, leaves_out
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.presence import with_presence
from modal_aware_jax.data.text_vectors import represent


def with_every_item(experiment: Experiment, data) -> Experiment:
    """The experiment with all of its collection, read in the words it was trained on.

    Args:
      experiment: as built from a config.
      data: the config's section `data`.
    """
    if not leaves_out(data):
        return experiment
    whole = every_item(data, experiment.text.vocabulary)
    whole = in_label_names(whole, experiment.collection.label_names)
    whole = represent(whole, experiment.text)
    if experiment.collection.has_text is not None:
        whole = with_presence(whole)
    return dataclasses.replace(experiment, collection=whole)


def in_label_names(pairs: Collection, names: tuple[str, ...]) -> Collection:
    """The same pairs with their labels in the order of a model's, matched by name.

    Labels that the model does not know come after its own.

    Example:
      >>> pairs = Collection("one", ["a"], [b".."], [[1.0]], ["sea"], [[1, 0]],
      ...                    (), ("sea", "dog"))
      >>> both = in_label_names(pairs, ("dog", "cat"))
      >>> both.label_names, both.labels.tolist()
      (('dog', 'cat', 'sea'), [[0, 0, 1]])
    """
    if not names or pairs.label_names == tuple(names):
        return pairs
    names = tuple(dict.fromkeys((*names, *pairs.label_names)))
    place = {name: i for i, name in enumerate(names)}
    labels = np.zeros((len(pairs), len(names)), np.uint8)
    labels[:, [place[name] for name in pairs.label_names]] = pairs.labels
    return dataclasses.replace(pairs, labels=labels, label_names=names)
