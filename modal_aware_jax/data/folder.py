"""An own collection: a directory of images and one table of image, text and labels.

    photos/
      pairs.csv           or .jsonl, or .parquet
      a.jpg  more/b.png   any format that PIL reads

    image,text,labels
    a.jpg,"a red boat on the lake","boat;water"
    more/b.png,"dog, beach, summer","dog;sand"

Columns: `image`, a path relative to the directory; `text`, free text (split into
words) or a list of tags (taken as they are); `labels`, a list, or names separated by
`;`, `|` or `,`. An `id` column names the pairs; without one the image's path does.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence

from modal_aware_jax.data import text as words_of
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.given_names import given_names
from modal_aware_jax.data.prepare import Pair, Scan, load_or_prepare, source_directory
from modal_aware_jax.data.problems import Problem
from modal_aware_jax.data.table import find_table, read_table

NAME = "folder"


def load(
    directory: str | os.PathLike,
    *,
    table: str | os.PathLike | None = None,
    image_column: str = "image",
    text_column: str = "text",
    label_column: str = "labels",
    tag_separator: str | None = None,
    label_names: Sequence[str] | str | None = None,
    vocabulary: str | os.PathLike | Sequence[str] | None = None,
    min_word_count: int = 2,
    max_words: int | None = 5000,
    allow_empty_text: bool = False,
    stored_size: int | None = 256,
    on_problem: str = "stop",
    prepared_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> Collection:
    """Reads a directory of images with a table, prepared on the first call.

    Args:
      directory: where the images are.
      table: the table, relative to the directory; None: its only one.
      image_column: name of the column of image paths.
      text_column: name of the column of texts.
      label_column: name of the column of labels.
      tag_separator: the text is tags with this character between them, which may be
        of several words; None splits it into words.
      label_names: the labels that are known, any other is a problem; None: all that
        occur, in alphabetical order.
      vocabulary: the words, or a file with one a line; None: the words used by at
        least `min_word_count` pairs, the `max_words` most frequent of them.
      min_word_count: see `vocabulary`.
      max_words: see `vocabulary`; None: no limit.
      allow_empty_text: keep pairs without any text.
      stored_size: images are reduced to this shorter side; None keeps all sizes.
      on_problem: 'stop' raises DataProblems after everything was looked at; 'skip'
        leaves out what is wrong and says what.
      prepared_dir: where preparations are kept; None: the user's cache directory.
      progress: whether to show a progress bar and the counts.

    Returns:
      The pairs in the order of the table.
    """
    directory = source_directory(NAME, directory)
    path = directory / table if table else find_table(directory)
    if not path.is_file():
        raise ValueError(f"folder.load: there is no table {path}.")
    if vocabulary is not None:
        vocabulary = words_of.given_vocabulary(vocabulary, "folder.load")
    label_names = given_names(label_names)
    columns = (image_column, text_column, label_column)

    rows, problems = read_table(path, columns)
    images = {str(row.cells.get(image_column) or "").strip() for row in rows} - {""}

    def scan():
        return _scan(
            directory,
            rows,
            problems,
            columns=columns,
            tag_separator=tag_separator,
            label_names=label_names,
            vocabulary=vocabulary,
            min_word_count=min_word_count,
            max_words=max_words,
            allow_empty_text=allow_empty_text,
        )

    return load_or_prepare(
        NAME,
        scan,
        inputs=[path, *(directory / image for image in images)],
        options=dict(
            columns=columns,
            tag_separator=tag_separator,
            label_names=None if label_names is None else list(label_names),
            vocabulary=vocabulary,
            min_word_count=None if vocabulary else min_word_count,
            max_words=None if vocabulary else max_words,
            allow_empty_text=allow_empty_text,
        ),
        stored_size=stored_size,
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
    tags = cell.split(separator) if isinstance(cell, str) else _as_list(cell)
    return [tag for part in tags if (tag := str(part).strip().lower())]


def split_labels(cell) -> list[str]:
    """The names in a label cell: a list, or text with `;`, `|` or `,` between them.

    Example:
      >>> split_labels("dog; sand"), split_labels(["dog", "sand"]), split_labels("")
      (['dog', 'sand'], ['dog', 'sand'], [])
    """
    if isinstance(cell, str) and cell.startswith("["):
        cell = re.sub(r"[\[\]'\"]", "", cell)  # a list as pandas writes it to CSV
    parts = re.split(r"[;|,]", cell) if isinstance(cell, str) else _as_list(cell)
    return [name for part in parts if (name := str(part).strip())]


def _as_list(cell):
    """A cell that is no text: a list, one number, or nothing (None or NaN)."""
    if isinstance(cell, list | tuple):
        return [part for part in cell if part is not None]
    return [] if cell is None or cell != cell else [cell]


def _scan(
    directory,
    rows,
    problems,
    *,
    columns,
    tag_separator,
    label_names,
    vocabulary,
    min_word_count,
    max_words,
    allow_empty_text,
):
    counts, seen, good = Counter(), {}, []
    if problems:
        counts["rows left out: malformed"] += len(problems)
    known = None if label_names is None else set(label_names)

    def leave_out(kind, row, message):
        problems.append(Problem(kind, row.where, message))
        counts[f"rows left out: {kind}"] += 1

    for row in rows:
        image, caption, labels = (row.cells.get(column) for column in columns)
        labels = split_labels(labels)
        name = str(row.cells.get("id") or image or "").strip()
        words = split_text(caption, tag_separator)
        unknown = sorted(set(labels) - known) if known is not None else []
        if not image or not str(image).strip():
            leave_out("missing image", row, f"the cell {columns[0]!r} is empty")
        elif name in seen:
            message = f"id {name!r} was used before, at {seen[name]}"
            leave_out("duplicate id", row, message)
        elif not words and not allow_empty_text:
            leave_out("empty text", row, f"{columns[1]!r} of {image} has no words")
        elif unknown:
            message = (
                f"{', '.join(map(repr, unknown))} of {image} is none of the "
                f"{len(known)} known labels (--config.data.options.label_names)"
            )
            leave_out("unknown label", row, message)
        else:
            seen[name] = row.where
            caption = caption if isinstance(caption, str) else ", ".join(words)
            good.append((row, name, str(image).strip(), caption, words, labels))
    if label_names is None:
        label_names = sorted({label for *_, labels in good for label in labels})
    if vocabulary is None and good:
        documents = [words for *_, words, _ in good]
        vocabulary = words_of.tag_vocabulary(
            documents,
            min_count=min(min_word_count, len(good)),
            max_size=max_words,
            option="--config.data.options.min_word_count",
        )
    word_at = {word: i for i, word in enumerate(vocabulary or ())}
    label_at = {label: i for i, label in enumerate(label_names)}
    pairs = []
    for row, name, image, caption, words, labels in good:
        bag = words_of.word_indices(words, word_at)
        path = directory / image
        pairs.append(
            Pair(
                id=name,
                read_image=path.read_bytes,
                where=f"{path} ({row.where})",
                caption=caption,
                text=bag,
                labels=sorted({label_at[label] for label in labels}),
            )
        )
    return Scan(pairs, vocabulary or (), label_names, problems, counts)
