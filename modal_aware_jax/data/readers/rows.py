"""What every reader of a collection's table gives: rows with their places, problems."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from modal_aware_jax.data.problems import Problem


class Row(NamedTuple):
    """One row: where it is, and its cells by column."""

    where: str
    cells: dict[str, Any]


class EmbeddedImage(Protocol):
    """A cell that is an image itself, read when it is wanted.

    Attributes:
      name: a path or number that names it, for ids and messages.
    """

    name: str

    def read(self) -> bytes:
        """The encoded image; raises OSError or ValueError where it cannot be read."""


class Table(NamedTuple):
    """The rows of one table.

    Attributes:
      rows: all that can be read.
      problems: one for each of the others.
      columns: the names of the columns.
      class_names: by column, all names its cells may hold, in the order the table
        declares them; columns that declare none are missing.
      notes: what was left aside, in words, with numbers.
    """

    rows: list[Row]
    problems: list[Problem]
    columns: tuple[str, ...]
    class_names: dict[str, Sequence[str]]
    notes: Mapping[str, int] = MappingProxyType({})


def is_utf8(text: str) -> bool:
    """Whether a text can be stored: half a surrogate pair or a raw byte cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def not_utf8(where: str) -> Problem:
    return Problem("not UTF-8", where, "has bytes that are not UTF-8")
