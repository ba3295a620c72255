"""Names that a user gives: a list, or text as a command line hands it over."""

from collections.abc import Sequence


def given_names(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Names as a tuple, each once; text holds them with commas between.

    None and '' are None.

    Example:
      >>> given_names("dog, red boat"), given_names(["a,b"]), given_names("")
      (('dog', 'red boat'), ('a,b',), None)
    """
    if isinstance(names, str):
        names = [part.strip() for part in names.split(",")]
    names = tuple(dict.fromkeys(name for name in names or () if name))
    return names or None
