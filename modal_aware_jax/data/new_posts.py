"""New posts: a picture and a text, or a table of them; nothing is dropped."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from modal_aware_jax.data.folder import no_text, split_text
from modal_aware_jax.data.folder_items import read_items
from modal_aware_jax.data.given_names import given_names
from modal_aware_jax.data.pipeline import decode, resize
from modal_aware_jax.data.readers.tables import find_tables
from modal_aware_jax.data.regular_file import read_regular
from modal_aware_jax.data.stored_image import to_stored

NAMING = (
    "--config.data.options.image_column=NAME and --config.data.options.text_column="
    "NAME, which beside --model need --config=configs/folder.py"
)


class Post(NamedTuple):
    """One post as it came.

    Attributes:
      id: its name.
      read: gives the encoded picture; None where there is none.
      text: its words.
      problem: why the row is no post, '' where it is one.
    """

    id: str
    read: Callable[[], bytes] | None
    text: str
    problem: str = ""


class Seen(NamedTuple):
    """One post as a network reads it.

    Attributes:
      pixels: uint8 [S, S, 3]; None where there is no picture that can be read.
      problem: why there is none, '' where there is one.
    """

    pixels: np.ndarray | None
    problem: str


def one_post(image: pathlib.Path | None, text: str) -> list[Post]:
    """The post of an image file, a text, or both; a file that is not there is told."""
    if image is None and not text.strip():
        raise ValueError(
            "predict: give a picture with --image, words with --text, or both; or a "
            "table of posts with --table."
        )
    read = None if image is None else lambda: read_regular(image)
    return [Post(image.name if image else "text", read, text)]


def read_posts(table: pathlib.Path, **named: str | None) -> list[Post]:
    """The posts of a table, in its order; rows that are none come last.

    Args:
      table: a folder or a file of `data/folder.py`; labels are not needed.
      named: columns for `columns.choose_columns`, where their names do not tell.

    Raises:
      ValueError: there is no such table, or it has no columns of pictures and words.
    """
    table = pathlib.Path(table).expanduser()
    if not table.exists():
        raise ValueError(f"predict: there is no file or folder {table} (--table).")
    if named.get("text"):
        named["text"] = given_names(named["text"])
    found = read_items(find_tables(table, option="--table"), named, NAMING)
    if found.empty and not found.items and not found.problems:
        raise ValueError(
            f"predict: {found.empty[0][0]} has no row below its header. Write a row "
            "for each post (--table)."
        )
    posts = [_post(item) for item in found.items]
    return posts + [Post(p.where, None, "", p.message) for p in found.problems]


def _post(item):
    if told := no_text(item.text):
        return Post(item.id, None, "", told)
    return Post(item.id, item.image and item.image.read, _text(item.text))


def _text(cell):
    if isinstance(cell, str):
        return cell
    return "" if cell is None or cell != cell else ", ".join(split_text(cell, None))


def look(post: Post, size: int) -> Seen:
    """The pixels of a post's picture, upright and squeezed to size × size."""
    if post.read is None:
        return Seen(None, post.problem or "no picture")
    try:
        stored, _ = to_stored(post.read(), None)
        return Seen(resize(decode(stored), size), "")
    except Exception as error:  # readers of damaged tables raise nearly anything
        reason = error.strerror if isinstance(error, OSError) else None
        return Seen(None, f"its picture cannot be read ({reason or error})")
