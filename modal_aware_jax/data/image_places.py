"""From a table's image cell to the function that reads the image."""

import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from modal_aware_jax.data.regular_file import read_regular


class Place(NamedTuple):
    """Where an image is.

    Attributes:
      name: what the table calls it; '' where it has no name.
      where: the file, for messages.
      read: reads the encoded image.
      embedded: whether it is in the table itself.
    """

    name: str
    where: str
    read: Callable[[], bytes]
    embedded: bool


class OutsideError(ValueError):
    """A path that leads out of the collection's folder."""


def place_of(cell: Any, directory: pathlib.Path, table: pathlib.Path) -> Place | None:
    """The place of a cell's image; None where the cell is empty.

    A path is looked for from the folder, from the table's own folder and in `images/`
    of either. Links are followed; a path that is written to lead out of the folder
    (`../x.jpg`, `/etc/x.jpg`) is not.

    Args:
      cell: a path, an `EmbeddedImage`, or None.
      directory: the collection's folder.
      table: the file that the cell is in.

    Raises:
      OutsideError: the path leads out of the folder.
      ValueError: the cell is neither.
    """
    if hasattr(cell, "read"):
        return Place(str(cell.name or ""), f"{cell.name} in {table}", cell.read, True)
    if cell is None or cell != cell:
        return None
    if not isinstance(cell, str | int | float):
        raise ValueError(f"an image is a path, not a {type(cell).__name__}")
    name = str(cell)
    bare = name.strip()
    if not bare:
        return None
    if name != bare and ("\0" in name or not _exists(directory / name)):
        name = bare  # its blanks are the table's, not the file's
    if "\0" in name:
        raise ValueError(f"{name!r} is no path")
    if "://" in name:
        raise ValueError(f"{name} is an address: download the image into the folder")
    path = inside(name, directory)
    home = table.parent
    places = [path]
    if not path.is_absolute() or not os.path.isabs(name):
        tail = path.relative_to(directory)
        places += [home / tail, directory / "images" / tail, home / "images" / tail]
        places += [directory / str(tail).replace("\\", "/")]
    found = next((place for place in places if _exists(place)), path)
    return Place(name, str(found), lambda: read_regular(found), False)


def inside(name: str, directory: pathlib.Path) -> pathlib.Path:
    """The path, as written, below the directory; OutsideError where it is not.

    Example:
      >>> inside("more/a.jpg", pathlib.Path("/photos")).as_posix()
      '/photos/more/a.jpg'
    """
    root = os.path.abspath(directory)
    full = os.path.normpath(os.path.join(root, name))
    if os.path.commonpath([root, full]) != root or full == root:
        raise OutsideError(
            f"{name} leads out of {directory}; the data folder must hold all images"
        )
    return directory / os.path.relpath(full, root)


def _exists(path):
    try:
        return path.exists()
    except OSError:  # a name that is too long, a loop of links
        return False
