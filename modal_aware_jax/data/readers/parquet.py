"""Rows of a Parquet file, of pandas or as the Hugging Face hub stores image data sets.

The hub's files hold the images themselves, a column of structs `{bytes, path}`, and the
names of class numbers in the schema's metadata under `huggingface`. Structs without any
bytes are paths, and bytes that are text, as Spark and Hive write it, are text.
"""

import json
import pathlib

from modal_aware_jax.data.columns import IMAGE, usual_column
from modal_aware_jax.data.problems import shorten
from modal_aware_jax.data.readers.rows import Row, Table
from modal_aware_jax.data.readers.window import Window

BATCH = 32  # images decoded at a time
MAX_PLAIN = 4 << 30  # bytes of texts, labels and all else that is no image


def read_parquet(path: pathlib.Path) -> Table:
    """All rows; images inside are left in the file until they are read.

    A class number becomes its name where the schema names them; −1 there means that
    the label is missing, as the hub has it.
    """
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            _check_names(schema.names)
            images = _image_columns(path, file)
            plain = [name for name in schema.names if name not in images]
            _check_size(path, file.metadata, plain)
            table = file.read(columns=plain)
            values = [_cells(name, table.column(name)) for name in plain]
            cells = [
                dict(zip(plain, row, strict=True)) for row in zip(*values, strict=True)
            ]
        paths = {
            name: _paths(path, name) if _is_struct(schema.field(name).type) else {}
            for name in images
        }
    except Exception as error:  # a damaged file makes Arrow raise nearly anything
        raise ValueError(
            f"{path}: cannot be read as Parquet ({_first_line(error)}). Write or copy "
            "it again."
        ) from error
    for name in images:
        window = Window(lambda name=name: _batches(path, name))
        for row, there in enumerate(cells):
            there[name] = EmbeddedInParquet(window, row, paths[name].get(row) or "")
    class_names = _class_names(schema.metadata)
    class_names = {k: v for k, v in class_names.items() if k in plain}
    for there in cells:
        for column, names in class_names.items():
            there[column] = _named(there[column], names)
    rows = [Row(f"{path} row {n}", there) for n, there in enumerate(cells, start=1)]
    return Table(rows, [], tuple(schema.names), class_names)


def holds_images(path: pathlib.Path, column: str | None = None) -> bool:
    """Whether the images are in the file itself; False where it cannot be read.

    Args:
      path: the file.
      column: that of the images; None: the one with the usual name.
    """
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            column = column or usual_column(IMAGE, file.schema_arrow.names)
            return column in _image_columns(path, file)
    except Exception:  # reading it will say what is wrong
        return False


class EmbeddedInParquet:
    """An image in a column of structs `{bytes, path}`, or of bytes."""

    def __init__(self, window: Window, row: int, name: str):
        self._window, self._row, self.name = window, row, name

    def read(self) -> bytes:
        value = self._window[self._row]
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise FileNotFoundError(f"row {self._row + 1} has no bytes")
        return content


def _is_struct(kind):
    import pyarrow.types

    return pyarrow.types.is_struct(kind)


def _image_columns(path, file):
    """The columns that may be images: structs with bytes; bytes that are no text."""
    found = []
    for field in file.schema_arrow:
        if _is_image_struct(field.type):
            if not _has_paths_alone(file, field):
                found.append(field.name)
        elif _is_bytes(field.type) and not _is_text(_some_value(path, field.name)):
            found.append(field.name)
    return found


def _is_image_struct(kind):
    names = {field.name for field in kind} if _is_struct(kind) else ()
    return "bytes" in names and set(names) <= {"bytes", "path"}


def _is_bytes(kind):
    import pyarrow.types as types

    return types.is_binary(kind) or types.is_large_binary(kind)


def _has_paths_alone(file, field):
    """Whether all bytes of a column of images are null, which leaves their paths."""
    import pyarrow.types as types

    if field.type.get_field_index("path") < 0:
        return False
    if types.is_null(field.type.field("bytes").type):
        return True
    metadata, nulls = file.metadata, 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            known = chunk.statistics and chunk.statistics.has_null_count
            if known and chunk.path_in_schema == f"{field.name}.bytes":
                nulls += chunk.statistics.null_count
    return nulls == metadata.num_rows


def _some_value(path, column):
    """The first bytes of a column; none where it has none."""
    for _, values in _batches(path, column):
        if first := next(filter(None, values), b""):
            return first
    return b""


def _is_text(content):
    try:
        return not any(ord(c) < 9 for c in content.decode("utf-8"))
    except UnicodeDecodeError:
        return False


def _cells(name, column):
    """The values of a column; dates that Python has no type for are text."""
    import pyarrow
    import pyarrow.types as types

    try:
        if _is_image_struct(column.type):
            return [value and value["path"] for value in column.to_pylist()]
        if _is_bytes(column.type):
            column = column.cast(pyarrow.string())
        return column.to_pylist()
    except Exception as error:
        if types.is_temporal(column.type):
            return column.cast(pyarrow.string()).to_pylist()
        raise ValueError(f"column {name!r}: {_first_line(error)}") from error


def _check_names(names):
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the column {shorten(', '.join(twice))} is there twice")


def _paths(path, column):
    """The paths inside the structs, by row: names for the images."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        leaves = [file.schema.column(i).path for i in range(len(file.schema))]
        if f"{column}.path" not in leaves:
            return {}
        table = file.read(columns=[f"{column}.path"])
    values = table.column(column).combine_chunks().to_pylist()
    return {row: value and value.get("path") for row, value in enumerate(values)}


def _batches(path, column):
    import pyarrow.parquet

    # A buffer of its own makes Arrow read page by page, not the whole row group.
    with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20) as file:
        first = 0
        for batch in file.iter_batches(batch_size=BATCH, columns=[column]):
            yield first, batch.column(0).to_pylist()
            first += len(batch)


def _class_names(metadata):
    """Names of the class numbers by column, from the hub's features."""
    try:
        found = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        items = found.items()
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    names = {column: _names_of(feature) for column, feature in items}
    return {column: given for column, given in names.items() if given}


def _names_of(feature):
    while isinstance(feature, list | dict):
        if isinstance(feature, list):  # a list of classes, as older files have it
            feature = feature[0] if len(feature) == 1 else None
        elif feature.get("_type") == "ClassLabel":
            names = feature.get("names")
            usable = isinstance(names, list) and all(isinstance(n, str) for n in names)
            return tuple(names) if usable and len(set(names)) == len(names) else ()
        else:
            feature = feature.get("feature")
    return ()


def _named(cell, names):
    if isinstance(cell, list):
        return [_named(number, names) for number in cell]
    if cell is None or cell == -1:
        return None
    is_number = isinstance(cell, int) and not isinstance(cell, bool)
    if is_number and 0 <= cell < len(names):
        return names[cell]
    return cell  # to be told: it is none of the names


def _check_size(path, metadata, columns):
    """Refuses texts and labels that would fill the memory, or none at all."""
    if not columns:
        raise ValueError("it has no column beside the images")
    size = 0
    for group in range(metadata.num_row_groups):
        chunks = metadata.row_group(group)
        for i in range(chunks.num_columns):
            chunk = chunks.column(i)
            if chunk.path_in_schema.split(".")[0] in columns:
                size += chunk.total_uncompressed_size
    if size > MAX_PLAIN:
        raise ValueError(
            f"its columns beside the images hold {size:,} bytes, at most "
            f"{MAX_PLAIN:,} are read"
        )


def _first_line(error):
    return shorten((str(error).splitlines() or [type(error).__name__])[0])
