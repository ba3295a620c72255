"""Rows of the JSON files of COCO, of Karpathy's splits, or of a plain list of objects.

COCO: `images` (`id`, `file_name`), `annotations` (`image_id` with a `caption` or a
`category_id`) and `categories`; captions and instances are files of their own, and are
put together by the images' file names. Karpathy's: `images` with `filename`, `split`
and `sentences`. A list: objects as a JSONL file has them.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from modal_aware_jax.data.problems import Problem
from modal_aware_jax.data.readers.jsonl import columns_of, keep_object
from modal_aware_jax.data.readers.rows import Row, Table, is_utf8


def read_json(paths: Sequence[pathlib.Path]) -> Table:
    """The images of one file, or of several that tell different things of them.

    Cells: `image`, `text` (all captions, a line each), `labels` (names of categories),
    `split` where the file has one.
    """
    rows, problems, names, by_name = [], [], {}, {}
    for path in paths:
        content = _load(path)
        if isinstance(content, list):
            for number, item in enumerate(content, start=1):
                keep_object(item, f"{path} item {number}", rows, problems)
        elif isinstance(content, dict) and isinstance(content.get("images"), list):
            _add_images(path, content, by_name, names, rows, problems)
        else:
            raise ValueError(
                f"{path}: expected a list of objects, or `images` with `annotations` "
                "as COCO has them. Write the table as CSV, JSONL or Parquet."
            )
    for row in rows:
        if isinstance(row.cells.get("text"), _Lines):
            row.cells["text"] = "\n".join(row.cells["text"])
    class_names = {"labels": tuple(names)} if names else {}
    return Table(rows, problems, columns_of(rows), class_names)


class _Lines(list):
    """Captions of an image, to be joined when all are there."""


def _load(path) -> Any:
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
        if not is_utf8(json.dumps(content, ensure_ascii=False)):
            raise ValueError("it has half a surrogate pair")
        return content
    except (ValueError, RecursionError) as error:  # no UTF-8 is a ValueError, too
        raise ValueError(
            f"{path}: cannot be read as JSON ({error}). Save it as one JSON value in "
            "UTF-8, or as JSONL with an object a line."
        ) from error


def _add_images(path, content, by_name, names, rows, problems):
    by_id = {}
    for number, item in enumerate(content["images"]):
        where = f"{path} image {number + 1}"
        file_name = _file_name(item)
        if file_name is None:
            message = "has neither file_name nor filename"
            problems.append(Problem("malformed line", where, message))
            continue
        row = by_name.get(file_name)
        if row is None:
            row = Row(where, {"image": file_name})
            by_name[file_name] = row
            rows.append(row)
        if "id" in item and by_id.setdefault(_key(item["id"]), row) is not row:
            message = f"{file_name} has the id {item['id']!r} of another image"
            problems.append(Problem("duplicate id", where, message))
        if isinstance(item.get("split"), str):
            row.cells["split"] = item["split"]
        if isinstance(item.get("sentences"), list):
            for sentence in item["sentences"]:
                _add_text(row, _sentence(sentence), where, problems)
    _add_annotations(path, content, by_id, names, problems)


def _items(path, content, name):
    items = content.get(name) or []
    if not isinstance(items, list):
        raise ValueError(f"{path}: `{name}` must be a list, not {items!r:.40}.")
    return items


def _file_name(item):
    """The path of an image: Karpathy's COCO split has its folder apart."""
    if not isinstance(item, dict):
        return None
    name = item.get("file_name", item.get("filename"))
    folder = item.get("filepath", "")
    if not isinstance(name, str) or not name.strip() or not isinstance(folder, str):
        return None
    return f"{folder}/{name}" if folder else name


def _key(number):
    """An id as the annotations name it: 7, of a column with a gap 7.0, or "7"."""
    whole = isinstance(number, float) and number.is_integer()
    return str(int(number) if whole else number)


def _sentence(item):
    """The words of one of Karpathy's sentences."""
    if not isinstance(item, dict):
        return item
    tokens = item.get("tokens")
    if "raw" not in item and isinstance(tokens, list):
        return " ".join(map(str, tokens))
    return item.get("raw")


def _add_text(row, text, where, problems):
    lines = row.cells.setdefault("text", _Lines())
    if isinstance(text, str):
        lines += [text.strip()] if text.strip() else []
    elif text is not None:
        message = f"its caption is no text but a {type(text).__name__}"
        problems.append(Problem("malformed line", where, message))


def _add_annotations(path, content, by_id, names, problems):
    categories = {
        _key(item.get("id")): str(item.get("name"))
        for item in _items(path, content, "categories")
        if isinstance(item, dict)
    }
    names.update(dict.fromkeys(categories.values()))
    if categories:
        for row in by_id.values():
            row.cells.setdefault("labels", [])
    for number, item in enumerate(_items(path, content, "annotations"), start=1):
        where = f"{path} annotation {number}"
        row = by_id.get(_key(item.get("image_id"))) if isinstance(item, dict) else None
        if row is None:
            message = "its image_id is that of no image"
            problems.append(Problem("malformed line", where, message))
            continue
        if "caption" in item:
            _add_text(row, item["caption"], where, problems)
        if "category_id" in item:
            name = categories.get(_key(item["category_id"]))
            if name is None:
                message = f"category {item['category_id']} is none of the categories"
                problems.append(Problem("unknown label", where, message))
            elif name not in row.cells.setdefault("labels", []):
                row.cells["labels"].append(name)
