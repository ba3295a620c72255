"""An own collection: pictures and words in the formats that people have them in.

    photos/
      pairs.csv           or .tsv, .jsonl, .parquet, .json (COCO), .mat, .tar
      a.jpg  more/b.png   any format that PIL reads

    image,text,labels
    a.jpg,"a red boat on the lake","boat;water"
    more/b.png,"dog, beach, summer","dog;sand"

- A table has a column of images (`image`, `file_name`, ...: a path inside the folder,
  or, in Parquet, the image itself), of text (`text`, `caption`, ...: free text, split
  into words, or a list of tags, taken as they are), and, where there are any, of labels
  (`labels`, `label`, ...: a list, names separated by `;`, `|` or `,`, or class
  numbers), or a column of 0 and 1 for each label. A column `id` names the pairs;
  without one the image's path does. `columns.py` lists the names that are known.
- Given splits are kept: a column `split`, or tables whose names tell their part
  (`train.csv` and `test.csv`, `train-00000-of-00001.parquet`).
- Without any table: a text file beside each image, `photo.jpg` and `photo.txt`.
- `data/readers/` has a file for each format.
"""

import functools
import os
import pathlib
from collections import Counter
from collections.abc import Sequence

from modal_aware_jax.data import text as words_of
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.folder_items import read_items
from modal_aware_jax.data.given_names import given_names
from modal_aware_jax.data.labels import (
    LabelError,
    as_list,
    in_order,
    is_one,
    split_labels,
)
from modal_aware_jax.data.prepare import Pair, Scan, load_or_prepare
from modal_aware_jax.data.problems import Problem
from modal_aware_jax.data.readers.rows import is_utf8
from modal_aware_jax.data.readers.tables import PARTS, find_tables

NAME = "folder"
MAX_ID = 1000  # characters: all ids take as much memory as the longest
MAX_LABEL_CELLS = 1 << 31  # of the table of labels


def load(
    directory: str | os.PathLike,
    *,
    table: str | None = None,
    image_column: str | None = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    label_columns: str | Sequence[str] | None = None,
    split_column: str | None = None,
    given_split: bool = True,
    tag_separator: str | None = None,
    label_names: str | Sequence[str] | None = None,
    no_label: str | Sequence[str] | None = None,
    vocabulary: str | os.PathLike | Sequence[str] | None = None,
    min_word_count: int = 2,
    max_words: int | None = 5000,
    allow_empty_text: bool = False,
    keep_without_text: bool = False,
    keep_without_image: bool = False,
    stored_size: int | None = 256,
    on_problem: str = "stop",
    prepared_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> Collection:
    """Reads a collection, prepared on the first call.

    Of names and lists of names: text with commas between the names is a list, too.

    Args:
      directory: the folder with the images and the table; or the table itself.
      table: files in the folder, or a pattern as `*.parquet`; None: its only table, or
        those that belong together.
      image_column: name of the column of images; None: the usual names, here and below.
      text_column: name of the column of texts; of several the texts are joined.
      label_column: name of the column of labels. Without labels `labels` is [N, 0].
      label_columns: columns of 0 and 1, one for each label (`label_*` for several);
        None: without a column of labels, all others that hold nothing else.
      split_column: name of the column of parts of a given split.
      given_split: whether to keep a split that the tables give.
      tag_separator: the text is tags with this character between them, which may be
        of several words; None splits it into words.
      label_names: the labels that are known, any other is a problem; None: those that
        the table declares, else all that occur, in alphabetical order.
      no_label: values that stand for "no label", such as -1.
      vocabulary: the words, or a file with one a line; None: the words used by at
        least `min_word_count` pairs, the `max_words` most frequent of them.
      min_word_count: see `vocabulary`.
      max_words: see `vocabulary`; None and 0: no limit.
      allow_empty_text: keep pairs without any text.
      keep_without_text: keep pairs without a known word, and let the network learn what
        stands in for their text.
      keep_without_image: keep pairs whose image is not there, in the same way.
      stored_size: images are reduced to this shorter side; None and 0 keep all sizes.
      on_problem: 'stop' raises DataProblems after everything was looked at; 'skip'
        leaves out what is wrong and says what.
      prepared_dir: where preparations are kept; None: the user's cache directory.
      progress: whether to show a progress bar and the counts.

    Returns:
      The pairs in the order of the tables.
    """
    source = pathlib.Path(directory).expanduser()
    if not source.exists():
        raise ValueError(f"folder.load: {source} is not a directory.")
    if label_column and label_columns:
        raise ValueError(
            "folder.load: label_column names one column of labels, label_columns "
            f"columns of 0 and 1, got both ({label_column!r}, {label_columns!r}). "
            "Give one of them: --config.data.options.label_column=NAME or "
            "--config.data.options.label_columns=NAME,NAME."
        )
    tables = find_tables(source, table)
    if vocabulary is not None:
        vocabulary = words_of.given_vocabulary(vocabulary, "folder.load")
    named = dict(
        image=image_column,
        text=given_names(text_column),
        label=label_column,
        one_hot=given_names(label_columns),
        split=split_column,
    )
    options = dict(
        given_split=given_split,
        tag_separator=tag_separator or None,
        label_names=given_names(label_names),
        no_label=given_names(no_label) or (),
        vocabulary=vocabulary,
        min_word_count=None if vocabulary else min_word_count,
        max_words=None if vocabulary else max_words,
        allow_empty_text=allow_empty_text or keep_without_text,
    )

    read = functools.cache(lambda: read_items(tables, named))
    inputs = list(tables.paths)
    if not tables.hold_images(image_column):  # the images are files of their own
        inputs += [item.path for item in read().items if item.path is not None]
    if not tables.paths:  # and so are the texts
        inputs += [pathlib.Path(item.where) for item in read().items]
    return load_or_prepare(
        NAME,
        lambda: _scan(read(), **options, keep_without_image=keep_without_image),
        inputs=inputs,
        options={**named, **options, "hashes": tables.hashes()},
        stored_size=stored_size,
        keep_without_image=keep_without_image,
        on_problem=on_problem,
        prepared_dir=prepared_dir,
        progress=progress,
    )


def split_text(cell, separator: str | None) -> list[str]:
    """The words of a text cell: lower-case tags, or tokens of free text.

    Example:
      >>> split_text("A red boat.", None), split_text("Red boat; sea", ";")
      (['a', 'red', 'boat'], ['red boat', 'sea'])
    """
    if isinstance(cell, str) and separator is None:
        return words_of.tokenize(cell)
    tags = cell.split(separator) if isinstance(cell, str) else as_list(cell)
    return [tag for part in tags if (tag := str(part).strip().lower())]


def no_text(cell) -> str:
    """What a text cell holds in place of a text or of a list of tags, '' for nothing.

    Example:
      >>> no_text(["red boat", "sea"]), no_text([{"raw": "a red boat"}])
      ('', 'the text is no text but a list of dict')
    """
    parts = cell if isinstance(cell, list) else [cell]
    kinds = [p for p in parts if isinstance(p, dict | list | tuple | bytes)]
    if not kinds:
        return ""
    among = "list of " if isinstance(cell, list) else ""
    return f"the text is no text but a {among}{type(kinds[0]).__name__}"


def _scan(
    read,
    *,
    given_split,
    tag_separator,
    label_names,
    no_label,
    vocabulary,
    min_word_count,
    max_words,
    allow_empty_text,
    keep_without_image,
):
    _check_rows(read, given_split)
    problems, counts = list(read.problems), Counter()
    if problems:
        counts["rows left out: malformed"] += len(problems)
    label_names = label_names or read.label_names
    known = None if label_names is None else set(label_names)
    seen, good = {}, []
    for item in read.items:
        try:
            labels = _labels(item.labels, no_label)
            part = _part(item) if given_split else ""
            words = split_text(item.text, tag_separator)
            if item.image is None and not keep_without_image:
                raise RowError("missing image", "the row names no image")
            _check(item, words, labels, known, seen, allow_empty_text)
        except RowError as error:
            problems.append(Problem(error.kind, item.where, str(error)))
            counts[f"rows left out: {error.kind}"] += 1
        else:
            seen[item.id] = item.where
            good.append((item, words, labels, part))
    if label_names is None:
        label_names = in_order(name for _, _, labels, _ in good for name in labels)
    if len(label_names) * len(good) > MAX_LABEL_CELLS:
        raise ValueError(
            f"folder.load: {len(label_names):,} labels of {len(good):,} pairs are no "
            "labels to learn from. Name the column that holds them with "
            "--config.data.options.label_column=NAME."
        )
    free = (words for item, words, _, _ in good if isinstance(item.text, str))
    if tag_separator is None and words_of.are_clauses(free):
        print(
            "Warning: most words of the texts are whole clauses of Chinese or "
            "Japanese, which pairs hardly share. Write spaces between words, as jieba "
            "finds them; or read a sentence model of the language: "
            "--config.data.text=sentence --config.data.sentence_model=FOLDER."
        )
    if vocabulary is None and good:
        documents = [words for _, words, _, _ in good]
        if not any(documents):
            raise ValueError(
                f"folder.load: none of the {len(good):,} pairs has a word. Name the "
                "column that holds the texts with "
                "--config.data.options.text_column=NAME."
            )
        vocabulary = words_of.tag_vocabulary(
            documents,
            min_count=min(min_word_count, len(good)),
            max_size=max_words,
            option="--config.data.options.min_word_count",
        )
    word_at = {word: i for i, word in enumerate(vocabulary or ())}
    label_at = {label: i for i, label in enumerate(label_names)}
    pairs = [
        Pair(
            id=item.id,
            read_image=item.image.read if item.image else _no_image,
            where=f"{item.image.where} ({item.where})" if item.image else item.where,
            caption=item.text if isinstance(item.text, str) else ", ".join(words),
            text=words_of.word_indices(words, word_at),
            labels=sorted({label_at[label] for label in labels}),
            part=part,
        )
        for item, words, labels, part in good
    ]
    counts.update(read.notes)
    return Scan(pairs, vocabulary or (), label_names, problems, counts)


def _check_rows(read, given_split):
    """Refuses tables without rows where they are all, or a whole part of the split."""
    filled = {item.part for item in read.items}
    for path, part in read.empty:
        alone = not read.items and not read.problems
        if alone or (given_split and part and part not in filled):
            cure = (
                ""
                if alone
                else (", or draw a split: --config.data.options.given_split=false")
            )
            raise ValueError(
                f"folder.load: {path} has no row below its header. Write a row for "
                f"each pair{cure}."
            )


def _no_image():
    raise FileNotFoundError


class RowError(ValueError):
    """What is wrong with a row; `kind` is a kind of `problems.ADVICE`."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def _labels(cell, no_label):
    """The names of a pair's labels."""
    try:
        if isinstance(cell, dict):  # cells of columns of 0 and 1
            return [name for name, value in cell.items() if is_one(value)]
        return split_labels(cell, no_label)
    except LabelError as error:
        raise RowError(
            "unknown label",
            f"{error} (values that stand for no label: "
            "--config.data.options.no_label=VALUE)",
        ) from None


def _part(item):
    """The part of the given split that a pair is in, '' for none."""
    empty = item.split is None or item.split != item.split
    given = "" if empty else str(item.split).strip().lower()
    if given and given not in PARTS:
        raise RowError(
            "unknown split",
            f"{given[:40]!r} is none of {', '.join(PARTS)}; to draw a split instead: "
            "--config.data.options.given_split=false",
        )
    return PARTS[given] if given else item.part


def _check(item, words, labels, known, seen, allow_empty_text):
    if len(item.id) > MAX_ID:
        raise RowError("malformed line", f"an id of {len(item.id):,} characters")
    if not is_utf8(item.id):
        raise RowError("not UTF-8", "its id has bytes that are not UTF-8")
    if "\0" in item.id:
        raise RowError("malformed line", f"the id {item.id!r} has a NUL character")
    if item.id in seen:
        message = f"id {item.id!r} was used before, at {seen[item.id]}"
        names_image = item.image is not None and item.id == item.image.name
        raise RowError("repeated image" if names_image else "duplicate id", message)
    if told := no_text(item.text):
        raise RowError("malformed line", told)
    if not words and not allow_empty_text:
        raise RowError("empty text", f"the text of {item.id} has no words")
    unknown = [] if known is None else sorted(set(labels) - known)
    if unknown:
        raise RowError(
            "unknown label",
            f"{', '.join(map(repr, unknown))} of {item.id} is none of the "
            f"{len(known)} known labels (--config.data.options.label_names)",
        )
