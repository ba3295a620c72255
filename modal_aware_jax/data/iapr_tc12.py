"""IAPR TC-12 from its official files, extracted.

A directory as users have it (or the one that holds its folder `iaprtc12`):

- `annotations_complete_eng/00/25.eng`: title, description, notes, location, date,
  image and thumbnail between tags (ISO 8859-1 or UTF-8);
- `images/00/25.jpg`;
- labels, in one of two forms: those of the segmented version SAIAPR TC-12, one or more
  files `labels.txt` of lines `image region label` (numbers), with the names in
  `wlist.txt`, lines `label name`; or `labels.csv` with columns `image` (its number) and
  `labels` (names separated by `;`).

M. Grubinger et al.: The IAPR TC-12 benchmark, 2006. H. J. Escalante et al.: The
segmented and annotated IAPR TC-12 benchmark, 2010.
"""

import functools
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from modal_aware_jax.data import text as words_of
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.given_names import given_names
from modal_aware_jax.data.image_places import OutsideError, inside
from modal_aware_jax.data.labels import LabelError, split_labels
from modal_aware_jax.data.prepare import Pair, Scan, load_or_prepare, source_directory
from modal_aware_jax.data.problems import DataProblems, Problem
from modal_aware_jax.data.readers.delimited import read_delimited
from modal_aware_jax.data.regular_file import read_regular

NAME = "iapr_tc12"
ANNOTATIONS = "annotations_complete_eng"


class Annotation(NamedTuple):
    """The fields of one `.eng` file; those that are not there are empty."""

    docno: str
    title: str
    description: str
    notes: str
    location: str
    date: str
    image: str
    thumbnail: str


def load(
    directory: str | os.PathLike,
    *,
    text_fields: Sequence[str] | str = ("description",),
    min_word_count: int = 1,
    max_words: int | None = 2912,
    vocabulary: str | os.PathLike | Sequence[str] | None = None,
    keep_unlabelled: bool = False,
    allow_empty_text: bool = False,
    keep_without_text: bool = False,
    keep_without_image: bool = False,
    stored_size: int | None = 256,
    on_problem: str = "stop",
    prepared_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> Collection:
    """Reads IAPR TC-12, prepared on the first call.

    Args:
      directory: where the folders are.
      text_fields: names of the fields of `Annotation` whose words are the text.
      min_word_count: words of fewer pairs are left out of the vocabulary.
      max_words: size of the vocabulary, the most frequent words; None: no limit.
      vocabulary: the words, or a file with one a line, in place of the two above.
      keep_unlabelled: keep images that the label files do not name.
      allow_empty_text: keep images whose fields have no words.
      keep_without_text: keep pairs without a known word, and let the network learn what
        stands in for their text.
      keep_without_image: keep pairs whose image is not there, in the same way.
      stored_size: images are reduced to this shorter side; None keeps all sizes.
      on_problem: 'stop' raises DataProblems after everything was looked at; 'skip'
        leaves out what is wrong and says what.
      prepared_dir: where preparations are kept; None: the user's cache directory.
      progress: whether to show a progress bar and the counts.

    Returns:
      The pairs in the order of the image numbers, which are the ids. Labels that no
      image has are left out of the label names.
    """
    directory = source_directory(NAME, directory)
    text_fields = given_names(text_fields) or ("description",)
    unknown = sorted(set(text_fields) - set(Annotation._fields))
    if unknown:
        raise ValueError(
            f"iapr_tc12.load: text_fields are some of {', '.join(Annotation._fields)}; "
            f"got {', '.join(unknown)}. Name them with "
            "--config.data.options.text_fields=title,description."
        )
    if vocabulary is not None:
        vocabulary = words_of.given_vocabulary(vocabulary, "iapr_tc12.load")
    allow_empty_text = allow_empty_text or keep_without_text
    root, label_files = _find_files(directory)
    return load_or_prepare(
        NAME,
        lambda: _scan(
            root,
            label_files,
            text_fields,
            min_word_count=min_word_count,
            max_words=max_words,
            vocabulary=vocabulary,
            keep_unlabelled=keep_unlabelled,
            allow_empty_text=allow_empty_text,
        ),
        inputs=[root / ANNOTATIONS, root / "images", *label_files],
        options=dict(
            text_fields=list(text_fields),
            min_word_count=None if vocabulary else min_word_count,
            max_words=None if vocabulary else max_words,
            vocabulary=vocabulary,
            keep_unlabelled=keep_unlabelled,
            allow_empty_text=allow_empty_text,
        ),
        stored_size=stored_size,
        keep_without_image=keep_without_image,
        on_problem=on_problem,
        prepared_dir=prepared_dir,
        progress=progress,
    )


def parse_annotation(content: str) -> Annotation:
    """Reads the fields between `<NAME>` and `</NAME>`; ValueError tells the line.

    Example:
      >>> parse_annotation("<DOC><DOCNO>annotations/00/25.eng</DOCNO><TITLE>Plaza"
      ...                  "</TITLE><IMAGE>images/00/25.jpg</IMAGE></DOC>").title
      'Plaza'
    """
    fields = {}
    for name in Annotation._fields:
        tag = name.upper()
        match = re.search(rf"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
        opened = re.search(rf"<{tag}>", content)
        if opened and not match:
            line = content.count("\n", 0, opened.start()) + 1
            raise ValueError(f"line {line}: <{tag}> is not closed by </{tag}>")
        fields[name] = " ".join(match[1].split()) if match else ""
    for name in ("docno", "image"):
        if not fields[name]:
            line = content.count("\n") + 1
            raise ValueError(
                f"line {line}: the end is reached without a <{name.upper()}>"
            )
    return Annotation(**fields)


def _find_files(directory):
    """The root folder and the files of labels; raises naming what is missing."""
    roots = [directory, directory / "iaprtc12", directory / "iapr_tc12"]
    root = next((path for path in roots if (path / ANNOTATIONS).is_dir()), directory)
    hint = ""
    if archives := sorted(path.name for path in directory.glob("*.t*gz")):
        hint = f" (extract {archives[0]} first: tar xf {archives[0]})"
    problems = [
        Problem("missing archive", str(root), f"there is no folder {folder}/{hint}")
        for folder in (ANNOTATIONS, "images")
        if not (root / folder).is_dir()
    ]
    csv = next((p for r in roots if (p := r / "labels.csv").is_file()), None)
    label_files = [csv] if csv else []
    if not csv:
        found = {path for r in roots if r.is_dir() for path in _label_texts(r)}
        names = [p for p in sorted(found) if p.name == "wlist.txt"][:1]
        label_files = [*names, *sorted(p for p in found if p.name == "labels.txt")]
        if len(label_files) < 2 or not names:
            message = "there is neither labels.csv nor labels.txt with wlist.txt"
            problems.append(Problem("missing archive", str(root), message))
    if problems:
        raise DataProblems(NAME, problems, skippable=False)
    return root, label_files


def _label_texts(root):
    """Files of labels in a folder or at most three folders below it."""
    for depth in ("", "*/", "*/*/", "*/*/*/"):
        yield from root.glob(f"{depth}wlist.txt")
        yield from root.glob(f"{depth}labels.txt")


def _scan(
    root,
    label_files,
    text_fields,
    *,
    min_word_count,
    max_words,
    vocabulary,
    keep_unlabelled,
    allow_empty_text,
):
    problems, counts = [], Counter()
    if label_files[0].suffix == ".csv":
        labels = _read_label_table(label_files[0], problems)
    else:
        labels = _read_label_lines(label_files[0], label_files[1:], problems)
    good, seen = [], {}
    files = (root / ANNOTATIONS).rglob("*.eng")
    for path in sorted(files, key=lambda path: (_number(path.stem) or 0, str(path))):
        try:
            annotation = parse_annotation(_decode(path.read_bytes()))
            if (number := _number(annotation.image)) is None:
                raise ValueError(f"<IMAGE> {annotation.image!r} has no number")
        except ValueError as error:
            problems.append(Problem("malformed line", str(path), str(error)))
            counts["pairs left out: malformed annotation"] += 1
            continue
        words = words_of.tokenize(" ".join(getattr(annotation, f) for f in text_fields))
        if number in seen:
            message = f"image {number} was described before, in {seen[number]}"
            problems.append(Problem("duplicate id", str(path), message))
            counts["pairs left out: duplicate id"] += 1
        elif not words and not allow_empty_text:
            message = f"{', '.join(text_fields)} has no words"
            problems.append(Problem("empty text", str(path), message))
            counts["pairs left out: empty text"] += 1
        elif not labels.get(number) and not keep_unlabelled:
            counts["pairs left out: no label"] += 1
        else:
            good.append((number, annotation, words))
        seen.setdefault(number, path)
    for number in sorted(set(labels).difference(seen)):
        counts["labelled images without an annotation"] += 1
        del labels[number]
    used = (labels[number] for number, *_ in good if number in labels)
    label_names = sorted(set().union(*used)) if good else []
    if vocabulary is None and good:
        documents = [words for *_, words in good]
        vocabulary = words_of.tag_vocabulary(
            documents,
            min_count=min_word_count,
            max_size=max_words,
            option="--config.data.options.min_word_count",
        )
    word_at = {word: i for i, word in enumerate(vocabulary or ())}
    label_at = {label: i for i, label in enumerate(label_names)}
    pairs = []
    for number, annotation, words in good:
        try:
            path = inside(annotation.image, root)
        except OutsideError as error:
            problems.append(Problem("outside path", str(seen[number]), str(error)))
            continue
        caption = f"{annotation.title}: {annotation.description}"
        pairs.append(
            Pair(
                id=str(number),
                read_image=functools.partial(read_regular, path),
                where=f"{path} ({seen[number]})",
                caption=caption.removeprefix(": "),
                text=words_of.word_indices(words, word_at),
                labels=sorted(label_at[label] for label in labels.get(number, ())),
            )
        )
    return Scan(pairs, vocabulary or (), label_names, problems, counts)


def _decode(content):
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("iso-8859-1")


def _number(name):
    """The number of an image from its path, `images/00/25.jpg`."""
    match = re.fullmatch(r"(\d+)(\.\w+)?", name.rsplit("/", 1)[-1])
    return int(match[1]) if match else None


def _read_label_table(path, problems):
    table = read_delimited(path)
    problems += table.problems
    labels = {}
    if missing := {"image", "labels"}.difference(table.columns):
        raise ValueError(
            f"{path}: the table has no column {', '.join(map(repr, sorted(missing)))}; "
            f"it has {', '.join(map(repr, table.columns))}."
        )
    for row in table.rows:
        number = _number(str(row.cells["image"]).strip())
        if number is None:
            message = f"{row.cells['image']!r} is not the number of an image"
            problems.append(Problem("malformed line", row.where, message))
            continue
        try:
            names = split_labels(row.cells["labels"])
        except LabelError as error:
            problems.append(Problem("malformed line", row.where, str(error)))
            continue
        labels.setdefault(number, set()).update(names)
    return labels


def _read_label_lines(names_path, paths, problems):
    """Labels of the regions of the segmented version, put together by image."""
    names = {}
    for where, line in _lines(names_path):
        match = re.fullmatch(r"(\d+)[\s,:]+(\S.*)", line)
        if match:
            names[int(match[1])] = match[2].strip()
        else:
            message = f"{line[:40]!r} is not a number and a name"
            problems.append(Problem("malformed line", where, message))
    labels = {}
    for path in paths:
        for where, line in _lines(path):
            cells = line.replace(",", " ").split()
            if len(cells) != 3 or not all(cell.isdigit() for cell in cells):
                message = f"{line[:40]!r} is not three numbers: image, region, label"
                problems.append(Problem("malformed line", where, message))
            elif int(cells[2]) not in names:
                message = f"label {cells[2]} is none of {len(names)} in {names_path}"
                problems.append(Problem("unknown label", where, message))
            else:
                labels.setdefault(int(cells[0]), set()).add(names[int(cells[2])])
    return labels


def _lines(path):
    """Lines that are not empty, each with its place."""
    for number, line in enumerate(_decode(path.read_bytes()).splitlines(), start=1):
        if line.strip():
            yield f"{path} line {number}", line.strip()
