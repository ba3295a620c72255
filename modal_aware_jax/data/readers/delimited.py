"""Rows of a CSV or TSV file."""

import csv
import io
import pathlib
import re

from modal_aware_jax.data.problems import Problem, shorten
from modal_aware_jax.data.readers.rows import Row, Table, is_utf8, not_utf8

_SEPARATOR = re.compile("sep=([,;\t|])\r?\n")  # of a spreadsheet


def read_delimited(path: pathlib.Path) -> Table:
    """A file with a header line; cells are text. `.tsv` has tabs between its cells.

    A `.csv` has commas; or semicolons or tabs, as spreadsheets of many countries write
    it, where its header has these and no comma, or a first line `sep=;` says so.

    Example:
      >>> import tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp(), "t.csv")
      >>> _ = path.write_text("image,text\\na.jpg,red boat\\n")
      >>> read_delimited(path).rows[0].cells
      {'image': 'a.jpg', 'text': 'red boat'}
    """
    # Bytes that are no UTF-8 become surrogates, to be found in the rows that have them.
    content = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))
    separator = "\t" if path.suffix.lower() == ".tsv" else _separator(content)
    lines = csv.reader(
        io.StringIO(content, newline=""), delimiter=separator, strict=True
    )
    if _SEPARATOR.match(content):
        next(lines)
    rows, problems, header = [], [], None
    while True:
        where = f"{path} line {lines.line_num + 1}"
        try:
            cells = next(lines)
        except StopIteration:
            break
        except csv.Error as error:
            if header is None:
                raise ValueError(
                    f"{where}: the header cannot be read ({error}). Write a name for "
                    "each column there."
                ) from error
            message = broken_rows(error, lines.line_num, where)
            problems.append(Problem("malformed line", where, message))
            continue
        if not cells:
            continue  # an empty line
        if header is None:
            header = _header(path, cells)
        elif len(cells) != len(header):
            message = f"{len(cells)} cells, but the header has {len(header)}"
            problems.append(Problem("malformed line", where, message))
        elif not all(map(is_utf8, cells)):
            problems.append(not_utf8(where))
        else:
            rows.append(Row(where, dict(zip(header, cells, strict=True))))
    if header is None:
        raise ValueError(f"{path}: the table is empty.")
    return Table(rows, problems, tuple(header), {})


def _separator(content):
    if given := _SEPARATOR.match(content):
        return given[1]
    first = re.match(r"[\r\n]*([^\r\n]*)", content)[1]
    header = re.sub('"[^"]*"', "", first)
    return next((mark for mark in ",;\t" if mark in header), ",")


def _header(path, cells):
    header = [cell.strip() for cell in cells]
    if not all(map(is_utf8, header)) or "\0" in "".join(header):
        raise ValueError(
            f"{path}: the header is not UTF-8. Save the table as UTF-8 (in a "
            'spreadsheet "CSV UTF-8", not "Unicode text").'
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(
            f"{path}: the header must name each column once, but "
            f"{shorten(', '.join(map(repr, repeated)))} is there twice. Rename one."
        )
    return header


def broken_rows(error: csv.Error, last: int, where: str) -> str:
    """What is wrong with rows from `where` on, which names a line, to the last."""
    first = int(where.rpartition(" ")[2])
    if last <= first:
        return str(error)
    return (
        f"{error}: a quote that opens here takes the lines to {last} into one cell, "
        f"none of which is read; close it, or write it twice inside a quoted cell"
    )
