"""The text of an exported program: what goes in, and what the network reads of it.

A program takes one matrix [B, T] of texts. Of a network that reads tokens it is bags
of words or numbers of word pieces; the program makes the tokens itself, with the
frozen text encoder inside where the network reads one.
"""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.piece_reader import PieceReader
from modal_aware_jax.backbones.piece_tokenizer import PieceTokenizer
from modal_aware_jax.build import Experiment
from modal_aware_jax.data.text_tokens import WordPieces
from modal_aware_jax.data.text_vectors import CLEANINGS, BagOfWords, WordTokens
from modal_aware_jax.data.token_table import TokenTable
from modal_aware_jax.data.word_ids import WordIds

TOKENIZER = "tokenizer.json"


class ProgramText(NamedTuple):
    """How a program reads texts.

    Attributes:
      features: T.
      read: float32 [B, T] -> the `text` of a batch, as the network reads it.
      tokenizer: what makes numbers of word pieces; None where T are words.
    """

    features: int
    read: Callable
    tokenizer: PieceTokenizer | None = None


def program_text(experiment: Experiment) -> ProgramText:
    """How a program reads the texts of a run.

    Raises:
      ValueError: what the network reads of a text is made outside of it.
    """
    text, task = experiment.text, experiment.task
    classes = task.name == "classification"
    if not (classes or task.code_of_pair):
        instead = f"What it says of its test pairs is in {task.arrays_file}."
        if task.embeddings is not None:
            instead = "Search by the run itself: --mode=search --workdir=..."
        raise ValueError(
            "export: a program gives codes of pairs or classes, and the task "
            f"{task.name} learns neither. {instead}"
        )
    if isinstance(text, WordTokens) and classes:
        vectors, longest = jnp.asarray(text.vectors_of_words), text.longest
        return ProgramText(
            len(vectors), lambda bags: tokens_of_bags(bags, vectors, longest)
        )
    if isinstance(text, WordIds) and classes:
        return ProgramText(text.longest, lambda ids: ids, text.model.tokenizer)
    if type(text) is WordPieces and not text.by_line and classes:
        tokenizer = text.model.tokenizer
        read = _frozen_reader(text.model.encoder, tokenizer.longest, text.longest)
        return ProgramText(tokenizer.longest, read, tokenizer)
    tokens = isinstance(experiment.collection.text, TokenTable)
    if isinstance(text, BagOfWords) and not text.weighs and not tokens:
        return ProgramText(len(text.vocabulary), lambda bags: bags)
    mode = "predict" if classes else "encode"
    raise ValueError(
        "export: the program reads bags of words, or word pieces to classes; this run "
        f"has config.data.text={experiment.config['data']['text']}. {mode.title()} "
        f"with the run itself: --mode={mode} --workdir=..."
    )


def tokens_of_bags(bags: jax.Array, vectors: jax.Array, longest: int) -> dict:
    """The first words of each bag as tokens, in the vocabulary's order.

    Args:
      bags: [B, T].
      vectors: [T, D] of the words.
      longest: S.

    Returns:
      `tokens` [B, S, D], zeros where a bag has fewer words, and `mask` bool [B, S].

    Example:
      >>> bags, vectors = jnp.array([[0, 1, 0, 1]]), jnp.arange(4.0)[:, None]
      >>> found = tokens_of_bags(bags, vectors, 3)
      >>> found["tokens"][0, :, 0].tolist(), found["mask"].tolist()
      ([1.0, 3.0, 0.0], [[True, True, False]])
    """
    there = bags > 0
    order = jnp.argsort(~there, axis=1, stable=True)[:, :longest]
    mask = jnp.take_along_axis(there, order, axis=1)
    return {"tokens": jnp.where(mask[..., None], vectors[order], 0), "mask": mask}


def _frozen_reader(encoder, length, longest):
    """Numbers of word pieces [B, length] to the tokens of the first `longest`."""
    graphdef, state = nnx.split(PieceReader(encoder, length))

    def read(numbers):
        tokens, _ = nnx.merge(graphdef, state)(numbers)
        mask = (numbers != 0)[:, :longest]
        tokens = jnp.where(mask[..., None], tokens[:, :longest], 0)
        return {"tokens": tokens, "mask": mask}

    return read


def piece_numbers(folder: pathlib.Path, facts: dict) -> WordIds | None:
    """The encoder of new texts of an exported program; None where it reads bags.

    Args:
      folder: with `tokenizer.json`.
      facts: of the program's `config.json`.
    """
    if "num_word_pieces" not in facts:
        return None
    if not (folder / TOKENIZER).is_file():
        raise ValueError(
            f"--model: {folder} lacks {TOKENIZER}, which belongs to its program. Keep "
            "the files of one export together."
        )
    tokenizer = PieceTokenizer(folder, facts["num_word_pieces"])
    cleaning = facts["config"].get("data", {}).get("cleaning", "")
    return WordIds(tokenizer, CLEANINGS[cleaning], facts["num_text_features"])
