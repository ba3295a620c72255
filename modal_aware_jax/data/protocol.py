"""Who asks, who answers, who teaches: query, database, train and validation sets.

A split is a function of the collection's size, the sizes asked for and a seed. It is
saved with a run by the pairs' ids, so that it can be checked against the collection
it is used with later.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Sorted positions (int64) in a collection.

    Attributes:
      query: the test queries, disjoint from the database.
      database: everything that is searched.
      train: the part of the database that the model learns from.
      validation: queries for every choice made on the way; the part of the database
        to search with them is `database` minus `validation`.
    """

    query: np.ndarray
    database: np.ndarray
    train: np.ndarray
    validation: np.ndarray


def split(
    num_pairs: int,
    *,
    num_queries: int | None,
    num_train: int,
    num_validation: int,
    seed: int,
    labels: np.ndarray | None = None,
    queries_per_label: int | None = None,
) -> Split:
    """Draws queries; the rest is the database, training and validation lie in it.

    Args:
      num_pairs: N, the size of the collection.
      num_queries: number of test queries; None with `queries_per_label`.
      num_train: number of training pairs, from the database.
      num_validation: number of validation queries, from the rest of the database.
      seed: the same seed gives the same split.
      labels: [N, L], needed for `queries_per_label` only.
      queries_per_label: draw this many queries for each label, all distinct: the
        protocol of NUS-WIDE (100 for each of 21 labels). Rare labels choose first.

    Example:
      >>> parts = split(10, num_queries=2, num_train=5, num_validation=1, seed=0)
      >>> [len(part) for part in parts]
      [2, 8, 5, 1]
    """
    # The legacy generator: the only one whose stream NumPy promises never to change.
    random = np.random.RandomState(seed)
    order = random.permutation(num_pairs)
    if queries_per_label is None:
        if num_queries is None:
            raise ValueError(
                "split: give --config.data.num_queries=NUMBER or, where the config "
                "has it, queries_per_label."
            )
        _check_sizes(num_pairs, num_queries, num_train, num_validation)
        query = order[:num_queries]
    else:
        query = _draw_per_label(num_pairs, labels, queries_per_label, order)
        if num_queries not in (None, len(query)):
            raise ValueError(
                f"split: queries_per_label={queries_per_label} of "
                f"{labels.shape[1]} labels gives {len(query)} queries, but "
                f"num_queries is {num_queries}. Leave num_queries out (None)."
            )
        _check_sizes(num_pairs, len(query), num_train, num_validation)
    rest = order[~np.isin(order, query)]
    validation_end = num_train + num_validation
    parts = (query, rest, rest[:num_train], rest[num_train:validation_end])
    result = Split(*(np.sort(part).astype(np.int64) for part in parts))
    check_split(result, num_pairs)
    return result


def _check_sizes(num_pairs, num_queries, num_train, num_validation):
    sizes = dict(
        num_queries=num_queries, num_train=num_train, num_validation=num_validation
    )
    for name, size in sizes.items():
        if size < 0:
            raise ValueError(f"split: {name} must not be negative, got {size}.")
    wanted = sum(sizes.values())
    if wanted > num_pairs:
        raise ValueError(
            f"split: {num_queries} queries + {num_train} training pairs + "
            f"{num_validation} validation queries = {wanted}, but the collection "
            f"has {num_pairs} pairs, {wanted - num_pairs} too few. Ask for fewer: "
            "--config.data.num_queries=, --config.data.num_train=, "
            "--config.data.num_validation=."
        )


def _draw_per_label(num_pairs, labels, queries_per_label, order):
    """Takes the first free pairs of each label in a random order -> [L * q]."""
    if labels is None or len(labels) != num_pairs:
        got = "none" if labels is None else f"labels of {len(labels)} pairs"
        raise ValueError(
            f"split: queries_per_label needs the labels of all {num_pairs} pairs, "
            f"got {got}. Pass labels=collection.labels."
        )
    labels = np.asarray(labels)
    free = np.ones(num_pairs, bool)
    chosen = []
    for label in np.argsort(labels.sum(axis=0), kind="stable"):  # rare labels first
        members = order[(labels[order, label] > 0) & free[order]]
        if len(members) < queries_per_label:
            raise ValueError(
                f"split: label {label} has {int(labels[:, label].sum())} pairs, "
                f"{len(members)} of them not yet taken by rarer labels, but "
                f"queries_per_label asks for {queries_per_label}. Ask for fewer."
            )
        free[members[:queries_per_label]] = False
        chosen.append(members[:queries_per_label])
    return np.concatenate(chosen)


def check_split(parts: Split, num_pairs: int) -> None:
    """Raises ValueError unless the sets are as `Split` says.

    Example:
      >>> check_split(Split(*map(np.array, ([0], [1, 2], [1], [2]))), 3)
    """
    for name, part in zip(Split._fields, parts, strict=True):
        if len(part) and not (part[0] >= 0 and part[-1] < num_pairs):
            raise ValueError(
                f"Split: {name} has positions from {part.min()} to {part.max()}, "
                f"but the collection has {num_pairs} pairs."
            )
        if (np.diff(part) <= 0).any():
            raise ValueError(f"Split: {name} must be sorted and free of repeats.")
    rules = (
        ("query", "database", False),
        ("train", "database", True),
        ("validation", "database", True),
        ("validation", "train", False),
    )
    for inner, outer, inside in rules:
        shared = np.isin(getattr(parts, inner), getattr(parts, outer))
        bad = getattr(parts, inner)[shared != inside]
        if len(bad):
            rule = "must lie in" if inside else "must not share a pair with"
            raise ValueError(
                f"Split: {inner} {rule} {outer}, but {len(bad)} pairs break this "
                f"(positions {', '.join(map(str, bad[:5]))})."
            )


def save_split(path: str | os.PathLike, parts: Split, ids: Sequence[str]) -> None:
    """Writes a split as JSON lists of ids; the file appears complete or not at all.

    Args:
      path: the file to write, `split.json` say.
      parts: the split.
      ids: [N] ids of the collection.
    """
    ids = np.asarray(ids, dtype=str)
    check_split(parts, len(ids))
    content = {"num_pairs": len(ids)}
    for name, part in zip(Split._fields, parts, strict=True):
        content[name] = ids[part].tolist()
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=0), encoding="utf-8")
    os.replace(partial, path)


def load_split(path: str | os.PathLike, ids: Sequence[str]) -> Split:
    """Reads a split back and checks that it belongs to the collection with these ids.

    Args:
      path: a file written by `save_split`.
      ids: [N] ids of the collection; their order may differ from when it was saved.

    Example:
      >>> import tempfile
      >>> path = tempfile.mkdtemp() + "/split.json"
      >>> save_split(path, split(3, num_queries=1, num_train=1, num_validation=0,
      ...                        seed=0), ["a", "b", "c"])
      >>> len(load_split(path, ["a", "b", "c"]).database)
      2
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        saved = [np.asarray(content[name], dtype=str) for name in Split._fields]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"load_split: {path} is not a split written by save_split ({error!r}). "
            "Delete it to draw the split anew."
        ) from error
    position = {name: i for i, name in enumerate(np.asarray(ids, dtype=str).tolist())}
    known = np.concatenate(saved[:2]).tolist()  # query and database: every pair
    missing = [name for name in known if name not in position]
    extra = set(position).difference(known)
    if missing or extra:
        raise ValueError(
            f"load_split: {path} was saved for another collection: of its "
            f"{len(known)} ids {len(missing)} are not among the {len(position)} given"
            f" ({', '.join(missing[:3]) or 'none'}), and {len(extra)} given ids are "
            f"not in it ({', '.join(sorted(extra)[:3]) or 'none'}). Use the data and "
            "options of that run, or another run directory."
        )
    parts = Split(
        *(
            np.sort(np.array([position[name] for name in part.tolist()], np.int64))
            for part in saved
        )
    )
    check_split(parts, len(position))
    return parts
