"""The entry of a table by its name, or one clear message."""

import difflib
from typing import Any


def choose(kind: str, table: dict, name: str) -> Any:
    """The entry of a table, or a ValueError that names the nearest one.

    >>> choose("loss", {"dpsh": 1, "dsh": 2}, "dsh")
    2
    """
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(table)}.")
