"""Which column of a table holds what, by the names that people give them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from modal_aware_jax.data.problems import shorten

IMAGE = tuple("image images image_path file_name filename path img photo".split())
TEXT = ("text", "caption", "captions", "sentence", "sentences", "title", "tags", "raw")
LABEL = ("labels", "label", "category", "categories", "class", "classes")
SPLIT = ("split", "partition", "subset")
ID = ("id", "key", "ids")
NAMING = (
    "--config.data.options.image_column=NAME, --config.data.options.text_column=NAME, "
    "--config.data.options.label_column=NAME"
)


class Columns(NamedTuple):
    """Names of columns; a pair's text may stand in several.

    Attributes:
      image, text: where they are.
      label: of names or class numbers; None: there are none, or `one_hot`.
      one_hot: a column of 0 and 1 for each label.
      split: of names of parts of a given split; None: there is none.
      id: of the pairs' names; None: the images name them.
    """

    image: str
    text: tuple[str, ...]
    label: str | None
    one_hot: tuple[str, ...]
    split: str | None
    id: str | None


def choose_columns(
    where: str,
    found: Sequence[str],
    *,
    image: str | None = None,
    text: Sequence[str] | None = None,
    label: str | None = None,
    one_hot: Sequence[str] | None = None,
    split: str | None = None,
    naming: str = NAMING,
) -> Columns:
    """The columns that are named, and for each other the one that its name tells.

    Args:
      where: the table, for messages.
      found: the names of all columns.
      image, text, label, split: a column's name; None: the usual names.
      one_hot: columns of 0 and 1, a pattern such as `label_*` for several.
      naming: the flags that name columns, for messages.

    Example:
      >>> choose_columns("t.csv", ["file_name", "caption", "label"]).label
      'label'
    """
    named = filter(None, (image, *(text or ()), label, split))
    missing = [name for name in named if name not in found]
    usual = {"image": IMAGE, "text": TEXT}
    chosen = {
        "image": image or usual_column(IMAGE, found),
        "text": tuple(text or _texts(found)),
    }
    nameless = [what for what in usual if not chosen[what] and not missing]
    if missing or nameless:
        lacks = ", ".join(map(repr, missing)) or " and ".join(
            f"for the {what} ({', '.join(usual[what][:4])}, ...)" for what in nameless
        )
        raise ValueError(
            f"{where}: the table has no column {shorten(lacks)}; it has "
            f"{shorten(', '.join(map(repr, found))) or 'none'}. Rename a column, or "
            f"name the ones to read with {naming}."
        )
    hot = tuple(_matching(where, one_hot, found)) if one_hot else ()
    if not label and not hot:
        label = usual_column(
            LABEL, [name for name in found if name not in chosen["text"]]
        )
    return Columns(
        image=chosen["image"],
        text=chosen["text"],
        label=label,
        one_hot=hot,
        split=split or usual_column(SPLIT, found),
        id=usual_column(ID, found),
    )


def usual_column(names: Sequence[str], found: Sequence[str]) -> str | None:
    """The first of the usual names that is there: `File name` is `file_name`.

    Example:
      >>> usual_column(IMAGE, ["Text", "File name"])
      'File name'
    """
    usual = {re.sub("[ -]", "_", name.lower()): name for name in reversed(found)}
    return next((usual[name] for name in names if name in usual), None)


def _texts(found):
    """The usual column, or numbered ones: caption_0, caption_1, ..."""
    one = usual_column(TEXT, found)
    if one:
        return (one,)
    usual = "|".join(TEXT)
    return tuple(n for n in found if re.fullmatch(rf"(?i)({usual})[ _-]?\d+", n))


def _matching(where, patterns, found):
    """Names, and all that a pattern with * matches, in the order of the table."""
    for pattern in patterns:
        wanted = re.compile(re.escape(pattern).replace(r"\*", ".*"))
        names = [name for name in found if wanted.fullmatch(name)]
        if not names:
            raise ValueError(
                f"{where}: the table has no column {pattern!r} of "
                f"--config.data.options.label_columns; it has "
                f"{shorten(', '.join(map(repr, found)))}."
            )
        yield from names
