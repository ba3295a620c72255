"""The files below a folder, those of linked folders too, without end nor twice."""

import os
import pathlib
from collections.abc import Callable, Iterator


def walk(
    root: str | os.PathLike, onerror: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Each folder below `root` and the names of its files, in alphabetical order.

    Links to folders elsewhere are followed. Those that lead to a folder above, or to
    one that is met by its own name, are not: links in a circle have an end.

    Args:
      root: a folder.
      onerror: is told of a folder that cannot be listed; None leaves it out.

    Example:
      >>> import tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> _ = (folder / "a.jpg").write_text("")
      >>> (folder / "circle").symlink_to(folder)
      >>> [names for _, names in walk(folder)]
      [['a.jpg']]
    """
    home = pathlib.Path(os.path.realpath(root))
    seen = {home}

    def is_new(path):
        real = pathlib.Path(os.path.realpath(path))
        around = home in real.parents or real in home.parents
        if real in seen or (around and os.path.islink(path)):
            return False
        seen.add(real)
        return True

    for where, folders, files in os.walk(root, onerror=onerror, followlinks=True):
        folders.sort()
        folders[:] = [name for name in folders if is_new(os.path.join(where, name))]
        yield where, sorted(files)
