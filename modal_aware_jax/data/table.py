"""Rows of a CSV, JSONL or Parquet file, each with its place for messages."""

import csv
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from modal_aware_jax.data.problems import Problem

SUFFIXES = (".csv", ".jsonl", ".parquet")


class Row(NamedTuple):
    """One row: where it is, and its cells by column."""

    where: str
    cells: dict[str, Any]


def find_table(directory: pathlib.Path) -> pathlib.Path:
    """The only CSV, JSONL or Parquet file of a directory."""
    found = [
        path for path in sorted(directory.iterdir()) if path.suffix.lower() in SUFFIXES
    ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found) or "none"
    raise ValueError(
        f"{directory} must hold one table (.csv, .jsonl or .parquet), but {len(found)} "
        f"are there ({names}). Say which one to read with "
        "--config.data.options.table=FILE."
    )


def read_table(
    path: pathlib.Path, columns: Sequence[str]
) -> tuple[list[Row], list[Problem]]:
    """All readable rows, and a problem for each of the others.

    Args:
      path: the table; its suffix tells the format.
      columns: names that it must have.

    Raises:
      ValueError: the file is not of its format, or a column is missing.
    """
    reader = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix.lower() not in reader:
        raise ValueError(
            f"{path}: tables are read from .csv, .jsonl and .parquet files; "
            f"{path.suffix or 'no suffix'} is none of them."
        )
    return reader[path.suffix.lower()](path, columns)


def _check_columns(path, found, columns):
    missing = [column for column in columns if column not in found]
    if missing:
        raise ValueError(
            f"{path}: the table has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, found)) or 'none'}. Rename a column, or name the "
            "ones to read with --config.data.options.image_column=NAME, "
            "--config.data.options.text_column=NAME, "
            "--config.data.options.label_column=NAME."
        )


def _csv(path, columns):
    # Bytes that are no UTF-8 become surrogates, to be found in the rows that have them.
    content = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    lines = csv.reader(io.StringIO(content, newline=""), strict=True)
    rows, problems, header = [], [], None
    while True:
        where = f"{path} line {lines.line_num + 1}"
        try:
            cells = next(lines)
        except StopIteration:
            break
        except csv.Error as error:
            problems.append(Problem("malformed line", where, str(error)))
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            _check_columns(path, header, columns)
        elif not cells:
            continue  # an empty line
        elif len(cells) != len(header):
            message = f"{len(cells)} cells, but the header has {len(header)}"
            problems.append(Problem("malformed line", where, message))
        elif not all(map(_is_text, cells)):
            problems.append(_not_utf8(where))
        else:
            rows.append(Row(where, dict(zip(header, cells, strict=True))))
    if header is None:
        raise ValueError(f"{path}: the table is empty.")
    return rows, problems


def _jsonl(path, columns):
    rows, problems = [], []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        where = f"{path} line {number}"
        if not line.strip():
            continue
        try:
            cells = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            problems.append(_not_utf8(where))
            continue
        except json.JSONDecodeError as error:
            problems.append(Problem("malformed line", where, f"no JSON: {error}"))
            continue
        if not isinstance(cells, dict):
            message = f"must be an object, got {type(cells).__name__}"
            problems.append(Problem("malformed line", where, message))
            continue
        if not _is_text(json.dumps(cells, ensure_ascii=False)):
            problems.append(_not_utf8(where))  # half a surrogate pair, "\ud83d"
            continue
        rows.append(Row(where, cells))
    found = list(dict.fromkeys(name for row in rows for name in row.cells))
    if not rows and not problems:
        raise ValueError(f"{path}: the table is empty.")
    if rows:
        _check_columns(path, found, columns)
    return rows, problems


def _parquet(path, columns):
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
        found = table.schema_arrow.names
        _check_columns(path, found, columns)
        cells = table.read().to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: cannot be read as Parquet ({error}). Write or copy it again."
        ) from error
    rows = [Row(f"{path} row {n}", row) for n, row in enumerate(cells, start=1)]
    return rows, []


def _is_text(cell):
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _not_utf8(where):
    return Problem("not UTF-8", where, "has bytes that are not UTF-8")
