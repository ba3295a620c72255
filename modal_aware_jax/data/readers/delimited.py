"""Rows of a CSV or TSV file."""

import csv
import io
import pathlib

from modal_aware_jax.data.problems import Problem, shorten
from modal_aware_jax.data.readers.rows import Row, Table, is_utf8, not_utf8


def read_delimited(path: pathlib.Path) -> Table:
    """A file with a header line; cells are text. `.tsv` has tabs between its cells.

    A `.csv` has commas; or semicolons or tabs, as spreadsheets of many countries write
    it, where its header has these and no comma.

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
            header = _header(path, cells)
        elif not cells:
            continue  # an empty line
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
    header = content.split("\n", 1)[0]
    return next((mark for mark in ",;\t" if mark in header), ",")


def _header(path, cells):
    header = [cell.strip() for cell in cells]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated or not all(map(is_utf8, header)):
        what = f"{shorten(', '.join(map(repr, repeated)))} is there twice"
        raise ValueError(
            f"{path}: the header must name each column once, in UTF-8"
            f"{', but ' + what if repeated else ''}. Rename a column."
        )
    return header
