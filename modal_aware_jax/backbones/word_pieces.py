"""The word pieces of texts as a frozen encoder sees them: its last hidden states.

The encoder is a folder that `from_pretrained` reads, BERT or the text side of a CLIP,
with its `tokenizer.json` beside it (which needs the package `tokenizers`).
"""

import hashlib
import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from modal_aware_jax.backbones.bert import BERT
from modal_aware_jax.backbones.clip import CLIP
from modal_aware_jax.backbones.from_pretrained import from_pretrained
from modal_aware_jax.backbones.piece_tokenizer import PieceTokenizer
from modal_aware_jax.backbones.sentence_vectors import find_model
from modal_aware_jax.backbones.text_batches import text_batches
from modal_aware_jax.backbones.vit import ViT

# Lengths that batches are padded to: each is a program of its own.
LENGTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class WordPieceModel:
    """A text encoder that keeps every word piece.

    Args:
      folder: as the file's docstring describes it; '' takes the installed
        all-MiniLM-L6-v2.
      longest: word pieces of a text that are read, the rest is cut; 0 for as many as
        the model takes.

    Attributes:
      features: D.
      folder: where it lies.
      tokenizer: its `PieceTokenizer`.
      digest: 16 hex digits of weights, tokenizer and `longest`.
      encoder: the module, `encode(ids [B, S], mask [B, S])` -> [B, S, D].
    """

    def __init__(self, folder: str | os.PathLike = "", longest: int = 0):
        folder = _find(folder)
        encoder = from_pretrained(folder)
        if isinstance(encoder, ViT):
            raise ValueError(
                f"WordPieceModel: {folder} holds a ViT, which reads images. Name a "
                "BERT or a CLIP with --config.data.sentence_model=FOLDER."
            )
        text = text_half(encoder)
        self.folder, self.encoder, self.features = folder, encoder, text.features
        self.tokenizer = PieceTokenizer(folder, text.max_length, longest)
        self.digest = _digest(folder, longest)
        graphdef, self._weights = nnx.split(encoder)

        @jax.jit
        def encode(weights, ids, mask):
            return states(nnx.merge(graphdef, weights), ids, mask)

        self._encode = encode

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The word pieces of each text by number, its marks of begin and end too."""
        return self.tokenizer.ids(texts)

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """The word pieces of each text as the tokenizer writes them, as in `ids`."""
        return self.tokenizer.pieces(texts)

    def __call__(self, texts: Sequence[str], *, progress=lambda n: None):
        """The last hidden states of n texts, one text after the other.

        Texts of similar length are computed together.

        Args:
          texts: free text; one without anything in it has no word pieces.
          progress: is told the number of texts after each batch.

        Returns:
          states float16 [P, D] of all word pieces, and lengths int32 [n], P their sum.
        """
        read = self.ids(texts)
        read = [r if t.strip() else [] for r, t in zip(read, texts, strict=True)]
        lengths = np.array([len(row) for row in read], np.int32)
        starts = np.cumsum(lengths) - lengths
        found = np.zeros((int(lengths.sum()), self.features), np.float16)
        progress(int((lengths == 0).sum()))
        some = np.flatnonzero(lengths)
        for rows, ids, mask in text_batches([read[i] for i in some], _padded):
            made = np.asarray(self._encode(self._weights, ids, mask))  # [B, S, D]
            for row, i in enumerate(some[rows]):
                found[starts[i] : starts[i] + lengths[i]] = made[row, : lengths[i]]
            progress(len(rows))
        if not np.isfinite(found).all():
            raise ValueError(
                "WordPieceModel: hidden states beyond float16's range (65,504) or NaN. "
                "Expected numbers of a few units: check the model's weights."
            )
        return found, lengths


def text_half(encoder: nnx.Module) -> nnx.Module:
    """What reads the text: a BERT itself, of a CLIP its encoder of texts."""
    return encoder.text if isinstance(encoder, CLIP) else encoder


def states(
    encoder: nnx.Module, ids: jax.Array, mask: jax.Array, *, train=False, rngs=None
) -> jax.Array:
    """Last hidden states [B, S, D] of word pieces [B, S].

    Args:
      encoder: a BERT, a CLIP or a CLIP's encoder of texts.
      ids, mask: [B, S] both.
      train, rngs: of the encoder's dropout.
    """
    half = text_half(encoder)
    read = half if isinstance(half, BERT) else half.tokens
    return read(ids, mask, train, rngs=rngs)


def _padded(length):
    return next((n for n in LENGTHS if n >= length), length)


def _find(folder):
    if not folder:
        return find_model()
    folder = pathlib.Path(folder).expanduser()
    missing = [
        name
        for name in ("config.json", "tokenizer.json")
        if not (folder / name).is_file()
    ]
    if missing:
        raise ValueError(
            f"WordPieceModel: {folder} lacks {', '.join(missing)}. Give a folder with "
            "a text encoder and its tokenizer, as the transformers library's "
            "save_pretrained writes them (a fast tokenizer)."
        )
    return folder


def _digest(folder, longest):
    digest = hashlib.sha256(str(longest).encode())
    for path in sorted((*folder.glob("*.safetensors"), folder / "tokenizer.json")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
