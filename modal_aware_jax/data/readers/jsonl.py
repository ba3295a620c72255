"""Rows of a JSONL file: one JSON object a line."""

import json
import pathlib

from modal_aware_jax.data.problems import Problem
from modal_aware_jax.data.readers.rows import Row, Table, is_utf8, not_utf8


def read_jsonl(path: pathlib.Path) -> Table:
    """A file of objects; a key that some objects lack is a column all the same.

    Example:
      >>> import tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp(), "t.jsonl")
      >>> _ = path.write_text('{"image": "a.jpg", "labels": ["sea"]}')
      >>> read_jsonl(path).rows[0].cells["labels"]
      ['sea']
    """
    rows, problems = [], []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        where = f"{path} line {number}"
        if not line.strip():
            continue
        try:
            keep_object(json.loads(line.decode("utf-8-sig")), where, rows, problems)
        except UnicodeDecodeError:
            problems.append(not_utf8(where))
        except (ValueError, RecursionError) as error:  # numbers of 5,000 digits, too
            problems.append(Problem("malformed line", where, f"no JSON: {error}"))
    if not rows and not problems:
        raise ValueError(f"{path}: the table is empty.")
    return Table(rows, problems, columns_of(rows), {})


def keep_object(cells, where: str, rows: list, problems: list) -> None:
    """Adds a row for an object, or a problem for anything else."""
    if not isinstance(cells, dict):
        message = f"must be an object, got {type(cells).__name__}"
        problems.append(Problem("malformed line", where, message))
    elif not is_utf8(json.dumps(cells, ensure_ascii=False)):
        problems.append(not_utf8(where))  # half a surrogate pair, "\ud83d"
    else:
        rows.append(Row(where, cells))


def columns_of(rows: list[Row]) -> tuple[str, ...]:
    """All keys of the rows, in the order they are met."""
    return tuple(dict.fromkeys(name for row in rows for name in row.cells))
