"""The rows of a collection's tables, each cell with its meaning but not yet judged."""

import pathlib
from collections import Counter
from typing import Any, NamedTuple

from modal_aware_jax.data.columns import NAMING, Columns, choose_columns
from modal_aware_jax.data.image_places import OutsideError, Place, place_of
from modal_aware_jax.data.labels import are_multi_hot, as_hot, hot_columns
from modal_aware_jax.data.problems import Problem
from modal_aware_jax.data.readers.tables import Tables

SENTENCE_WORDS = 3  # a list of longer parts, on average, holds sentences, not tags


class Item(NamedTuple):
    """One row.

    Attributes:
      where: its place, for messages.
      id: of its own column, or the image's name, or the row's where it names none.
      image: None where the row names none.
      text: free text, or a list of tags.
      labels: the cell, or a dict of the cells of the columns of 0 and 1.
      split: the part of a given split as the table calls it, '' for none.
      part: the part that the table's own name tells, '' for none.
    """

    where: str
    id: str
    image: Place | None
    text: Any
    labels: Any
    split: Any
    part: str

    @property
    def path(self) -> pathlib.Path | None:
        """The image's file where it is one of its own."""
        if self.image is None or self.image.embedded:
            return None
        return pathlib.Path(self.image.where)


class Items(NamedTuple):
    """All rows of all tables.

    Attributes:
      items: the rows.
      problems: what could not be read.
      label_names: those that the tables declare, or the columns of 0 and 1; None where
        the rows tell.
      has_labels: whether the tables have labels at all.
      notes: what was taken for what without being told, or left aside, in words, with
        numbers of rows or files.
      empty: the tables without any row, each with the part that its name tells.
    """

    items: list[Item]
    problems: list[Problem]
    label_names: tuple[str, ...] | None
    has_labels: bool
    notes: Counter[str]
    empty: tuple[tuple[pathlib.Path, str], ...]


def read_items(tables: Tables, named: dict, naming: str = NAMING) -> Items:
    """Reads the tables.

    Args:
      tables: of `find_tables`.
      named: the columns that were named, for `choose_columns`.
      naming: the flags that name them, for its message.
    """
    items, problems, declared, notes = [], [], {}, Counter()
    has_labels, empty = False, []
    for path, part, table in tables.read():
        problems += table.problems
        notes.update(table.notes)
        if not table.rows:
            if not table.problems:  # they say why, where there are any
                empty.append((path, part))
            continue
        columns = choose_columns(str(path), table.columns, **named, naming=naming)
        columns = _with_hot_columns(columns, table, notes)
        has_labels |= bool(columns.label or columns.one_hot)
        names, positions = _label_names(columns, table)
        declared.update(dict.fromkeys(names))
        join = _are_sentences(row.cells.get(columns.text[0]) for row in table.rows)
        for row in table.rows:
            item = _item(row, columns, tables.directory, path, part, join, problems)
            if item is not None:
                labels = as_hot(item.labels) if positions else item.labels
                if positions and isinstance(labels, list | tuple):
                    labels = [n for n, on in zip(positions, labels, strict=True) if on]
                items.append(item._replace(labels=labels))
    return Items(
        _with_unique_ids(items),
        problems,
        tuple(declared) or None,
        has_labels,
        notes,
        tuple(empty),
    )


def _with_hot_columns(columns: Columns, table, notes):
    """Where no column of labels is there: all others that hold 0 and 1 alone."""
    if columns.label or columns.one_hot:
        return columns
    taken = {columns.image, *columns.text, columns.split, columns.id}
    hot = hot_columns(table.rows, [name for name in table.columns if name not in taken])
    if hot:
        notes[
            f"labels: the {len(hot)} columns of 0 and 1 ({', '.join(hot[:8])}"
            f"{', ...' if len(hot) > 8 else ''}); others: "
            "--config.data.options.label_columns=A,B"
        ] += len(table.rows)
    return columns._replace(one_hot=tuple(hot))


def _label_names(columns, table):
    """Names that the table declares; and those of the places of lists of 0 and 1."""
    if columns.one_hot:
        return columns.one_hot, ()
    names = tuple(table.class_names.get(columns.label, ()))
    cells = [as_hot(row.cells.get(columns.label)) for row in table.rows]
    if columns.label and are_multi_hot(cells):
        width = len(next(cell for cell in cells if cell is not None))
        names = names if len(names) == width else tuple(map(str, range(width)))
        return names, names
    return names, ()


def _item(row, columns, directory, path, part, join, problems):
    cells = row.cells
    try:
        image = place_of(cells.get(columns.image), directory, path)
    except OutsideError as error:
        problems.append(Problem("outside path", row.where, str(error)))
        return None
    except ValueError as error:
        problems.append(Problem("missing image", row.where, str(error)))
        return None
    texts = [cells.get(column) for column in columns.text]
    text = texts[0]
    if len(texts) > 1 or join:
        parts = [p for t in texts for p in (t if isinstance(t, list) else [t])]
        text = [p for p in parts if p is not None and p == p]
        if all(isinstance(p, str | int | float) for p in text):
            text = "\n".join(map(str, text))
    labels = cells.get(columns.label)
    if columns.one_hot:
        labels = {column: cells.get(column) for column in columns.one_hot}
    own = cells.get(columns.id)
    if own is None or own != own or not str(own).strip():
        own = image.name if image else _row_name(row.where)
    split = cells.get(columns.split)
    return Item(row.where, str(own).strip(), image, text, labels, split, part)


def _are_sentences(cells):
    """Whether lists of texts hold sentences: they are longer than tags."""
    words = parts = 0
    for cell in cells:
        for text in cell if isinstance(cell, list) else ():
            if isinstance(text, str):
                words, parts = words + len(text.split()), parts + 1
    return parts > 0 and words >= SENTENCE_WORDS * parts


def _with_unique_ids(items):
    """Images inside a table are named after their rows where their names repeat."""
    inside = [item for item in items if item.image is not None and item.image.embedded]
    names = Counter(item.id for item in inside)
    if max(names.values(), default=0) < 2 and "" not in names:
        return items
    return [
        item._replace(id=_row_name(item.where))
        if item.image is not None and item.image.embedded
        else item
        for item in items
    ]


def _row_name(where):
    """`train-00000-of-00001.parquet row 7`, `cat/0001 in train.tar`: no folders."""
    inside, _, archive = where.rpartition(" in ")
    if inside:
        return f"{pathlib.Path(archive).stem}/{inside}"
    path, what, number = where.rpartition(" ")
    path = path.removesuffix(" row").removesuffix(" line")
    return f"{pathlib.Path(path).stem}/{number}" if what else where
