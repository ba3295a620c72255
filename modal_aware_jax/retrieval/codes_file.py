"""Reads codes and labels that were made elsewhere, from one `.npz` file."""

import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from modal_aware_jax.hashing.codes import num_words, pack
from modal_aware_jax.retrieval.inputs import last_word_mask

# What the arrays are called: here, and in widely copied PyTorch evaluation code.
NAMES = {
    "query": ("query", "query_codes", "qB"),
    "database": ("database", "database_codes", "rB", "retrievalB"),
    "query_labels": ("query_labels", "queryL", "qL", "query_L"),
    "database_labels": ("database_labels", "retrievalL", "rL", "retrieval_L"),
}


_DAMAGED = (zipfile.BadZipFile, zlib.error)


class CodesFile(NamedTuple):
    """Packed codes, and labels where the file has them."""

    query: np.ndarray  # uint32 [Q, Wd]
    database: np.ndarray  # uint32 [N, Wd]
    query_labels: np.ndarray | None  # [Q, L] of 0 and 1, or class numbers [Q]
    database_labels: np.ndarray | None  # [N, L] or [N]
    num_bits: int


class CodesFileError(ValueError):
    """A file of codes that cannot be used as it is."""


def _bits_of_octets(fail, name, octets, num_bits):
    """Codes packed by `np.packbits`: uint8 [n, ceil(K / 8)] to 0/1 [n, K]."""
    wanted = -(-num_bits // 8)
    if octets.shape[1] != wanted:
        fail(
            f"{num_bits} bits fill {wanted} bytes, but {name} has {octets.shape[1]}: "
            f"uint8 {list(octets.shape)}."
        )
    bits = np.unpackbits(octets, axis=1)
    if bits[:, num_bits:].any():
        fail(
            f"{name} has ones behind bit {num_bits}; pack it by np.packbits(codes > 0, "
            "axis=1)."
        )
    return bits[:, :num_bits]


def _packed_codes(fail, name, codes, num_bits) -> tuple[np.ndarray, int]:
    """Any of the accepted forms as uint32 [n, Wd], and its number of bits."""
    if codes.ndim != 2 or not codes.shape[1]:
        fail(f"expected {name} [n, K], one code a row, got shape {list(codes.shape)}.")
    kind = codes.dtype.kind
    if kind not in "biuf":
        fail(f"expected numbers in {name}, got {codes.dtype}.")
    if kind == "f" and np.isnan(codes).any():
        fail(f"{name} contains NaN.")
    zero, one, minus = ((codes == x) for x in (0, 1, -1))
    two_valued = bool((zero | one).all() or (minus | one).all())
    may_be_words = codes.dtype in (np.uint8, np.uint32, np.uint64)
    if two_valued and num_bits in (None, codes.shape[1]):
        return np.asarray(pack(codes)), codes.shape[1]
    if two_valued and not may_be_words:
        fail(f"num_bits is {num_bits}, but {name} has {codes.shape[1]} columns.")
    if (zero | one | minus).all() and not two_valued:
        fail(
            f"{name} holds -1, 0 and +1: the sign of a zero is no code. Count zeros as "
            "+1 before saving, np.where(x < 0, -1, 1)."
        )
    if not may_be_words:
        fail(
            f"expected {name} to hold -1 and +1, 0 and 1, or packed words (uint8, "
            f"uint32, uint64), got {codes.dtype} from {codes.min()} to {codes.max()}. "
            "Real values are relaxed codes: save their sign."
        )
    if num_bits is None:
        fail(
            f"{name} is packed, {codes.dtype} {list(codes.shape)}; add the number of "
            "bits to the file as num_bits."
        )
    if codes.dtype == np.uint8:
        return np.asarray(pack(_bits_of_octets(fail, name, codes, num_bits))), num_bits
    words = np.ascontiguousarray(codes).view("<u4")
    wanted = num_words(num_bits)
    if words.shape[1] not in (wanted, wanted + wanted % 2):
        fail(
            f"{num_bits} bits fill {wanted} words of 32, but {name} has "
            f"{words.shape[1]}: {codes.dtype} {list(codes.shape)}."
        )
    return words[:, :wanted] & last_word_mask(num_bits), num_bits


def _read_arrays(fail, path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if isinstance(file, np.ndarray):
                fail("expected an .npz file of named arrays, got a single array.")
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, RuntimeError, *_DAMAGED) as error:
        if isinstance(error, CodesFileError):
            raise
        fail(f"is not a readable .npz file of plain arrays ({error}).")


def _num_bits(fail, arrays) -> int | None:
    given = arrays.get("num_bits")
    if given is None:
        return None
    if given.size != 1 or given.dtype.kind not in "iu" or given.min() < 1:
        fail(f"expected num_bits to be one positive integer, got {given.tolist()!r}.")
    return int(given.reshape(()))


def read_queries(path, num_bits: int) -> np.ndarray:
    """Packed query codes, uint32 [Q, Wd], of an `.npz` file.

    They are `query` (or a name `read_codes` knows, or `codes`), in any form that
    `read_codes` takes; packed ones need no `num_bits` in the file.

    >>> import tempfile; path = tempfile.mkdtemp() + "/queries.npz"
    >>> np.savez(path, query=[[1, -1]])
    >>> read_queries(path, 2).tolist()
    [[1]]

    Raises:
      CodesFileError: says what was expected, what the file has, and the fix.
    """

    def fail(reason):
        raise CodesFileError(f"read_queries: {path}: {reason}")

    arrays = _read_arrays(fail, path)
    present = [name for name in (*NAMES["query"], "codes") if name in arrays]
    if len(present) != 1:
        fail(f"expected one array 'query' of codes, found {sorted(arrays)}.")
    codes = arrays[present[0]]
    own = _num_bits(fail, arrays)
    may_be_words = codes.dtype in (np.uint8, np.uint32, np.uint64)
    query, bits = _packed_codes(
        fail, present[0], codes, num_bits if own is None and may_be_words else own
    )
    if bits != num_bits:
        fail(f"has codes of {bits} bits, but {num_bits} are wanted.")
    return query


def read_codes(path) -> CodesFile:
    """Reads `query`, `database`, `query_labels`, `database_labels` and `num_bits`.

    Codes are one a row, of any length: -1 and +1 or 0 and 1 of any type (K columns),
    or packed: by `pack` (uint32), by `np.packbits(codes > 0, axis=1)` (uint8), or as
    uint64 words. Packed codes need `num_bits`. Labels may be missing; the names of
    widely copied PyTorch code (qB, rB, queryL, retrievalL) are known too.

    >>> import tempfile; path = tempfile.mkdtemp() + "/codes.npz"
    >>> np.savez(path, query=[[1, -1]], database=[[1, 1], [-1, 1]])
    >>> read_codes(path).database.tolist()
    [[3], [2]]

    Raises:
      CodesFileError: says what was expected, what the file has, and the fix.
    """

    def fail(reason):
        raise CodesFileError(f"read_codes: {path}: {reason}")

    arrays = _read_arrays(fail, path)
    found = {}
    for name, spellings in NAMES.items():
        present = [s for s in spellings if s in arrays]
        if len(present) > 1:
            fail(f"has {name} twice, as {present[0]!r} and {present[1]!r}.")
        found[name] = arrays[present[0]] if present else None
    for name in ("query", "database"):
        if found[name] is None:
            fail(f"expected an array {name!r}, found only {sorted(arrays)}.")
    num_bits = _num_bits(fail, arrays)
    query, query_bits = _packed_codes(fail, "query", found["query"], num_bits)
    database, bits = _packed_codes(fail, "database", found["database"], num_bits)
    if query_bits != bits:
        fail(f"query has {query_bits} bits, but database has {bits}.")
    labels = found["query_labels"], found["database_labels"]
    if (labels[0] is None) != (labels[1] is None):
        fail("has labels of one side only; give query_labels and database_labels.")
    if labels[0] is not None:
        for name, rows in (("query", len(query)), ("database", len(database))):
            given = found[f"{name}_labels"]
            if given.ndim not in (1, 2) or len(given) != rows:
                fail(
                    f"expected {name}_labels of {rows} rows, [n, L] of 0 and 1 or "
                    f"class numbers [n], got shape {list(given.shape)}."
                )
        if labels[0].shape[1:] != labels[1].shape[1:]:
            fail(
                "expected both labels of one width, got "
                f"{list(labels[0].shape)} and {list(labels[1].shape)}."
            )
    return CodesFile(query, database, *labels, bits)
