"""The labels of a pair from whatever a table's cells hold."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from modal_aware_jax.data.collection import Collection

ONES = {"1", "1.0", "true", "yes"}
ZEROS = {"0", "0.0", "false", "no", ""}
MAX_DIGITS = 1000  # Python reads no number of many thousand
_QUOTED = r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\''
_ITEM = re.compile(rf"({_QUOTED})|([-+.\w]+)")
_LIST = re.compile(rf"\[\s*(?:(?:{_QUOTED}|[-+.\w]+)(?:\s*,\s*|\s+|(?=\])))*\]")


class LabelError(ValueError):
    """A cell that holds no labels."""


def need_labels(pairs: Collection) -> None:
    """Refuses a collection without labels where they are learned from or counted.

    A label that every pair has is told: by it all answers are right.
    """
    if not pairs.labels.any():
        raise ValueError(
            f"{pairs.name} has no labels, which this mode needs. Name the column that "
            "holds them with --config.data.options.label_column=NAME, or columns of 0 "
            "and 1 with --config.data.options.label_columns=A,B. Without labels a "
            "collection is encoded and searched by an exported model: --model=FOLDER."
        )
    shared = pairs.labels.all(axis=0).nonzero()[0]
    if len(shared):
        print(
            f"Warning: all {len(pairs):,} pairs of {pairs.name} have the label "
            f"{pairs.label_names[shared[0]]!r}. By it any two are alike and every "
            "answer is right, so scores will say nothing. Name other labels with "
            "--config.data.options.label_column=NAME, or leave it out with "
            "--config.data.options.no_label=VALUE."
        )


def split_labels(cell, none: Sequence[str] = ()) -> list[str]:
    """The names in a label cell: a list, or text with `;`, `|` or `,` between them.

    A class number is its own name. A negative one is refused, since it stands for
    "unlabelled" as often as for a class; `none` says which values stand for no label.

    Example:
      >>> split_labels("dog; sand"), split_labels(["dog", "sand"]), split_labels("")
      (['dog', 'sand'], ['dog', 'sand'], [])
      >>> split_labels(3.0), split_labels(-1, none=["-1"]), split_labels('["a, b"]')
      (['3'], [], ['a, b'])
    """
    cell = listed(cell)
    parts = re.split(r"[;|,]", cell) if isinstance(cell, str) else as_list(cell)
    names = [name for part in parts if (name := _name(part)) and name not in none]
    for name in names:
        if re.fullmatch(r"-\d+(\.0*)?", name):
            raise LabelError(f"{name} is a negative class number")
    return list(dict.fromkeys(names))


def listed(cell):
    """A text that is a list as JSON, Python or NumPy writes it, as that list.

    Other lists lose their brackets, and any other cell stays as it is.

    Example:
      >>> listed("['a, b', 'c']"), listed("['a' 'b']"), listed("[red boat, sea]")
      (['a, b', 'c'], ['a', 'b'], 'red boat, sea')
    """
    text = cell.strip() if isinstance(cell, str) else ""
    if not (text.startswith("[") and text.endswith("]")):
        return cell
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        items = _ITEM.findall(text) if _LIST.fullmatch(text) else [("", text)]
    try:
        return [
            _unquoted(quoted) if quoted else _number(bare) for quoted, bare in items
        ]
    except ValueError:  # words without quotes
        return text[1:-1]


def _unquoted(text):
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _number(text):
    if text in ("None", "null"):
        return None
    return int(text) if text.isdecimal() and len(text) < MAX_DIGITS else float(text)


def as_list(cell) -> list:
    """A cell that is no text: a list, one value, or nothing (None or NaN)."""
    parts = cell if isinstance(cell, list | tuple) else [cell]
    return [part for part in parts if part is not None and part == part]


def _name(part):
    if isinstance(part, float) and part.is_integer():
        part = int(part)  # a column of whole numbers in which some are missing
    if isinstance(part, dict | list | tuple | bytes):
        raise LabelError(f"a label is a name or a number, not a {type(part).__name__}")
    return str(part).strip()


def is_one(cell) -> bool:
    """Whether a cell of a column of 0 and 1 holds a 1; LabelError where neither.

    Example:
      >>> is_one("1"), is_one(False), is_one(None)
      (True, False, False)
    """
    text = "" if cell is None or cell != cell else str(cell).strip().lower()
    if text not in ONES | ZEROS:
        raise LabelError(f"{cell!r} is neither 0 nor 1")
    return text in ONES


def hot_columns(rows: Sequence, names: Sequence[str]) -> list[str]:
    """Those of the columns that hold 0 and 1 alone, both of them; [] for a single one.

    Args:
      rows: with `cells` by column.
      names: of the columns.
    """
    found = []
    for name in names:
        values = set()
        for row in rows:
            cell = row.cells.get(name)
            values.add(str(cell).strip().lower() if _is_plain(cell) else None)
            if not values <= ONES | ZEROS - {""}:
                break
        else:
            if values & ONES and values & ZEROS:
                found.append(name)
    return found if len(found) > 1 else []


def _is_plain(cell):
    return isinstance(cell, str | int | float)


def as_hot(cell):
    """A text of zeros and ones, one for each label, as a list; None for nothing.

    Example:
      >>> as_hot("[0, 1, 1]"), as_hot("0 1 1"), as_hot(""), as_hot("dog")
      ([0, 1, 1], [0, 1, 1], None, 'dog')
    """
    if cell is None or cell != cell:
        return None
    if not isinstance(cell, str):
        return cell
    parts = [p for p in re.split(r"[;|,\s]+", cell.strip().strip("[]")) if p]
    hot = all(re.fullmatch(r"[01](\.0*)?", part) for part in parts)
    return [int(part[0]) for part in parts] or None if hot else cell


def are_multi_hot(cells: Iterable[Any]) -> bool:
    """Whether cells are lists of 0 and 1, one for each label, not of class numbers.

    All are of one length, and some value is there twice, which in a list of class
    numbers it is not.

    Example:
      >>> are_multi_hot([[0, 1, 1], [0, 0, 1]]), are_multi_hot([[0, 1], [1]])
      (True, False)
    """
    cells = [cell for cell in cells if cell is not None]
    if not cells or not all(isinstance(cell, list | tuple) for cell in cells):
        return False
    if len({len(cell) for cell in cells}) != 1 or len(cells[0]) < 2:
        return False
    binary = all(v in (0, 1) and not isinstance(v, str) for c in cells for v in c)
    return binary and any(len(set(cell)) < len(cell) for cell in cells)


def in_order(names: Iterable[str]) -> list[str]:
    """Names in alphabetical order; numbers by their size.

    Example:
      >>> in_order({"10", "9"}), in_order({"sea", "dog"})
      (['9', '10'], ['dog', 'sea'])
    """
    names = sorted(set(names))
    numbers = all(name.isdecimal() and len(name) < MAX_DIGITS for name in names)
    return sorted(names, key=int) if numbers else names
