"""What every process does with an input: read, encode, write; tell how it went."""

from typing import NamedTuple

from modal_aware_jax.encode_many.inputs import Input
from modal_aware_jax.encode_many.one_input import Reading, encode_input
from modal_aware_jax.encode_many.parts import Output
from modal_aware_jax.modes.model_files import EncoderModel


class Done(NamedTuple):
    """How it went with one input.

    Attributes:
      address: of the input.
      items: how many were encoded.
      skipped: how many were left out; the part's problems say why.
      wordless: how many of the encoded have no word that the model knows.
      error: why the whole input could not be read; '' where it was.
    """

    address: str
    items: int
    skipped: int
    wordless: int
    error: str


class Worker:
    """Encodes inputs into an output.

    Args:
      model: of `load_model_file`.
      output: the folder's address.
      batch_size: pairs at a time.
      reading: how tables are read.
    """

    def __init__(
        self, model: EncoderModel, output: str, *, batch_size: int, reading: Reading
    ):
        self._model, self._output = model, Output(output)
        self._options = dict(batch_size=batch_size, reading=reading)

    def __call__(self, source: Input) -> Done:
        """Encodes one input. An input that cannot be read is told, not raised."""
        try:
            encoded = encode_input(source, self._model, **self._options)
        except (ValueError, OSError) as error:
            return Done(source.address, 0, 0, 0, str(error))
        self._output.write(source, encoded)
        counts = len(encoded.ids), len(encoded.problems), encoded.wordless
        return Done(source.address, *counts, "")
