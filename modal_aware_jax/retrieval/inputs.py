"""Checks and prepares what every retrieval function receives."""

from typing import NamedTuple

import numpy as np

from modal_aware_jax.hashing.codes import WORD_BITS, check_packed, num_words

NO_CLASS = np.uint32(0xFFFFFFFF)


class Inputs(NamedTuple):
    """Checked arrays; labels of the database stay unpacked until they are needed."""

    query: np.ndarray  # uint32 [Q, Wd]
    database: np.ndarray  # uint32 [N, Wd]
    query_words: np.ndarray  # uint32 [Q, Lw], packed labels or one class number
    database_labels: np.ndarray  # [N, L] of 0 and 1, or uint32 [N] class numbers
    num_bits: int
    same_class: bool  # labels are class numbers

    @property
    def num_queries(self) -> int:
        return self.query.shape[0]

    @property
    def num_database(self) -> int:
        return self.database.shape[0]


def label_words(labels, function="label_words") -> np.ndarray:
    """Packs labels [n, L] of 0 and 1 into uint32 [n, Lw].

    >>> label_words(np.array([[1, 0, 1]])).tolist()
    [[5]]
    """
    labels = np.asarray(labels)
    if labels.dtype != bool:
        binary = labels.dtype.kind in "iu" and labels.size and labels.max() <= 1
        binary = binary and labels.min() >= 0
        if not binary and not ((labels == 0) | (labels == 1)).all():
            raise ValueError(
                f"{function}: expected labels of 0 and 1, found other values in an "
                f"array of shape {list(labels.shape)}."
            )
        if labels.dtype != np.uint8:
            labels = labels.astype(bool)
    octets = np.packbits(labels, axis=1, bitorder="little")
    words = num_words(max(labels.shape[1], 1))
    padded = np.zeros((labels.shape[0], 4 * words), np.uint8)
    padded[:, : octets.shape[1]] = octets
    return padded.view("<u4")


def relevance_words(inputs: Inputs, rows: slice) -> np.ndarray:
    """Label words, uint32 [n, Lw], of some rows of the database."""
    labels = inputs.database_labels[rows]
    if inputs.same_class:
        return labels[:, None]
    return label_words(labels, "database_labels")


def check_whole(function, name, value, least=1) -> int:
    """`value` as an int of at least `least`, or ValueError."""
    number = isinstance(value, int | float | np.integer | np.floating)
    number = number and not isinstance(value, bool) and np.isfinite(value)
    if not number or int(value) != value or value < least:
        kind = "a positive integer" if least else "an integer >= 0"
        got = value.item() if isinstance(value, np.generic) else value
        raise ValueError(f"{function}: expected {name} to be {kind}, got {got!r}.")
    return int(value)


def check_not_negative(function, classes) -> None:
    """Refuses class numbers below 0, in any of some arrays [.]."""
    lowest = min(
        (x.min().item() for x in classes if x.dtype.kind in "if" and x.size), default=0
    )
    if lowest < 0:
        raise ValueError(
            f"{function}: a class number is negative, {lowest:g}; elsewhere it means "
            "that the label is missing. Leave items without a label out, or give 0/1 "
            "labels [., L] with a row of zeros."
        )


def joined(parts) -> np.ndarray:
    """Arrays [.] one after the other, without rounding large whole numbers.

    >>> int(joined([np.array([2**60 + 1]), np.array([5], np.uint64)])[0] - 2**60)
    1
    """
    whole = [x for x in parts if x.dtype.kind in "iu" and x.size]
    large = any(x.max() > 2**53 or x.min() < -(2**53) for x in whole)
    if large and np.result_type(*parts).kind == "f":  # int64 beside uint64 is, too
        parts = [x.astype(object) for x in parts]
    return np.concatenate(parts)


def _classes(function, query_labels, database_labels):
    """Class numbers as uint32; the all-ones word is left free."""
    both = (query_labels, database_labels)
    kinds = {"number" if x.dtype.kind in "biuf" else x.dtype.kind for x in both}
    if len(kinds) > 1 or not kinds <= {"number", "U", "S"}:
        raise ValueError(
            f"{function}: expected class numbers (or names) of one kind, got "
            f"{query_labels.dtype} and {database_labels.dtype}."
        )
    if any(x.dtype.kind == "f" and np.isnan(x).any() for x in both):
        raise ValueError(
            f"{function}: a class number is NaN. Leave items without a label out, or "
            "give 0/1 labels [., L] with a row of zeros."
        )
    check_not_negative(function, both)
    small = all(
        x.dtype.kind in "iu" and (not x.size or (x.min() >= 0 and x.max() < NO_CLASS))
        for x in both
    )
    if not small:
        _, numbers = np.unique(joined(both), return_inverse=True)
        both = np.split(numbers, [len(query_labels)])
    return tuple(x.astype(np.uint32, copy=False) for x in both)


def check_codes(function, query, database, num_bits=None):
    """Returns both codes as NumPy uint32 [Q, Wd], [N, Wd], or raises ValueError."""
    query = query if isinstance(query, np.ndarray) else np.asarray(query)
    database = database if isinstance(database, np.ndarray) else np.asarray(database)
    check_packed(function, "query", query, num_bits)
    check_packed(function, "database", database, num_bits)
    if query.ndim != 2 or database.ndim != 2 or query.shape[1] != database.shape[1]:
        raise ValueError(
            f"{function}: expected query [Q, Wd] and database [N, Wd] of the same Wd, "
            f"got {list(query.shape)} and {list(database.shape)}."
        )
    if not query.shape[1]:
        raise ValueError(f"{function}: the codes have no words, shape [., 0].")
    if not len(database):
        raise ValueError(f"{function}: the database is empty, shape [0, Wd].")
    return query, database


def check_inputs(
    function, query, database, query_labels, database_labels, num_bits
) -> Inputs:
    """Returns checked `Inputs`, or raises ValueError naming `function`."""
    num_words(num_bits)
    query, database = check_codes(function, query, database, num_bits)
    if query_labels is None or database_labels is None:
        missing = "query_labels" if query_labels is None else "database_labels"
        raise ValueError(
            f"{function}: {missing} is None, but relevance needs labels: 0/1 [., L], "
            "or class numbers [.]. Without labels only search is possible."
        )
    query_labels = np.asarray(query_labels)
    if not isinstance(database_labels, np.ndarray):
        database_labels = np.asarray(database_labels)
    for name, labels, codes in (
        ("query", query_labels, query),
        ("database", database_labels, database),
    ):
        if labels.ndim not in (1, 2) or len(labels) != len(codes):
            raise ValueError(
                f"{function}: expected {name}_labels of {len(codes)} rows, 0/1 [., L] "
                f"or class numbers [.], got shape {list(labels.shape)}."
            )
    if query_labels.shape[1:] != database_labels.shape[1:]:
        raise ValueError(
            f"{function}: expected query_labels [Q, L] and database_labels [N, L] of "
            f"the same L, got {list(query_labels.shape)} and "
            f"{list(database_labels.shape)}."
        )
    same_class = query_labels.ndim == 1
    if same_class:
        query_words, database_labels = _classes(function, query_labels, database_labels)
        query_words = query_words[:, None]
    else:
        query_words = label_words(query_labels, function)
    return Inputs(query, database, query_words, database_labels, num_bits, same_class)


def last_word_mask(num_bits: int) -> np.ndarray:
    """uint32 [Wd] masks that clear the unused bits of the last word."""
    mask = np.full(num_words(num_bits), 0xFFFFFFFF, np.uint32)
    if num_bits % WORD_BITS:
        mask[-1] = (1 << num_bits % WORD_BITS) - 1
    return mask
