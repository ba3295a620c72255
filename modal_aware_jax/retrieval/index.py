"""`HammingIndex`: a searchable collection of packed codes, in memory and on disk."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from modal_aware_jax.hashing.codes import check_packed, num_words
from modal_aware_jax.retrieval import export, index_file
from modal_aware_jax.retrieval.inputs import last_word_mask
from modal_aware_jax.retrieval.sharded import search_sharded
from modal_aware_jax.retrieval.top_k import check_k, search_rows

MAX_SEGMENTS = 64  # a file with more is rewritten by the next save
ID_LIMIT = 2**63 - 1  # numbers are below it, so that the next one is an int64 too


class Segment(NamedTuple):
    """Rows that were added or saved together."""

    codes: np.ndarray  # uint32 [n, Wd], maybe a memory map
    ids: range | np.ndarray  # [n] int64 or str


class Rows:
    """Living rows of an index in ascending order of id, read slice by slice."""

    def __init__(self, segments: Sequence[np.ndarray], order: np.ndarray | None):
        self.segments = segments
        self.starts = np.cumsum([0] + [len(s) for s in segments])
        self.order = order
        length = self.starts[-1] if order is None else len(order)
        self.shape = (int(length), segments[0].shape[1])

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        if self.order is not None:
            return self.take(self.order[start:stop])
        parts = [
            codes[max(start - first, 0) : max(stop - first, 0)]
            for first, codes in zip(self.starts, self.segments, strict=False)
        ]
        parts = [part for part in parts if len(part)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take(self, positions: np.ndarray) -> np.ndarray:
        result = np.empty((len(positions), self.shape[1]), np.uint32)
        for first, codes in zip(self.starts, self.segments, strict=False):
            here = (positions >= first) & (positions < first + len(codes))
            result[here] = codes[positions[here] - first]
        return result

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype)


def _as_ids(ids) -> np.ndarray:
    """Ids as an array; objects, as in a column of pandas, by what all of them are."""
    ids = np.asarray(ids)
    if ids.dtype == object:
        kinds = {type(x) for x in ids.flat}
        if all(issubclass(kind, str) for kind in kinds) or all(
            issubclass(kind, int | np.integer) and kind is not bool for kind in kinds
        ):
            return np.array(ids.tolist())
    return ids


class HammingIndex:
    """Exact Hamming search over codes with ids of the user's own.

    >>> index = HammingIndex(num_bits=2)
    >>> index.add(np.array([[0], [3], [1]], np.uint32), ids=[10, 20, 30])
    >>> distances, ids = index.search(np.array([[1]], np.uint32), k=2)
    >>> distances.tolist(), ids.tolist()
    ([[0, 1]], [[30, 10]])

    Args:
      num_bits: K.

    Attributes:
      next_id: where numbering goes on.
    """

    def __init__(self, num_bits: int):
        self.num_bits = num_bits
        self._words = num_words(num_bits)
        self._segments: list[Segment] = []
        self._new: list[Segment] = []  # added since the last search or save
        self._removed: list[np.ndarray] = []  # positions, one array a call
        self.next_id = 0
        self._order = None  # positions by id; () where every row in order is alive
        self._saved = None  # (header, segments, removals) of the file behind us
        self._sorted = {}  # of a segment's number: its rows by id

    def __len__(self) -> int:
        rows = sum(len(s.codes) for s in self._segments + self._new)
        return rows - sum(len(r) for r in self._removed)

    def __repr__(self):
        return f"HammingIndex(num_bits={self.num_bits}, {len(self)} codes)"

    def add(self, packed, ids=None) -> None:
        """Adds codes.

        Args:
          packed: uint32 [n, Wd].
          ids: n different integers or strings that are not in the index (and, once
            chosen, of that same kind); None continues the numbering from 0.

        Raises:
          ValueError: the codes are no codes of K bits, or the ids cannot be taken.
        """
        packed = np.asarray(packed)
        check_packed("HammingIndex.add", "packed", packed, self.num_bits)
        if packed.ndim != 2:
            raise ValueError(
                f"HammingIndex.add: expected packed [n, Wd], got {list(packed.shape)}."
            )
        if not len(packed):
            return
        ids = self._checked_ids(ids, len(packed))
        codes = packed & last_word_mask(self.num_bits)
        self._new.append(Segment(codes, ids))
        self._order = None

    def _checked_ids(self, ids, rows):
        text = self.ids_are_text
        if ids is None:
            if text:
                raise ValueError(
                    "HammingIndex.add: this index has ids that are strings; pass ids."
                )
            start = self.next_id
            if start + rows > ID_LIMIT:
                raise ValueError(
                    f"HammingIndex.add: {rows} ids from {start} on would pass "
                    "2**63 - 1; pass ids."
                )
            self.next_id = start + rows
            return range(start, start + rows)
        ids = _as_ids(ids)
        kind = "strings" if text else "integers"
        fits = ids.dtype.kind == "U" if text else ids.dtype.kind in "iu"
        if text is None:
            fits, kind = ids.dtype.kind in "iuU", "integers or strings"
        if ids.shape != (rows,) or not fits:
            raise ValueError(
                f"HammingIndex.add: expected {rows} ids, {kind}, got {ids.dtype} "
                f"{list(ids.shape)}."
            )
        if ids.dtype.kind == "U":
            try:
                np.char.encode(ids, "utf-8")
            except UnicodeEncodeError as error:
                raise ValueError(
                    "HammingIndex.add: ids are written as UTF-8, which half a "
                    f"surrogate pair or a raw byte cannot be: {error.object!r}."
                ) from None
        else:
            if int(ids.max()) >= ID_LIMIT:
                raise ValueError(
                    "HammingIndex.add: ids are below 2**63 - 1, got "
                    f"{int(ids.max())}. Number them anew, or give strings."
                )
            ids = ids.astype(np.int64)
        unique, counts = np.unique(ids, return_counts=True)
        twice = unique[counts > 1]
        if not len(twice):
            twice = unique[self._positions(unique) >= 0]
        if len(twice):
            raise ValueError(
                f"HammingIndex.add: ids must be new, but {len(twice)} are given twice "
                f"or in the index already, such as {twice[0].item()!r}. Remove them "
                "first."
            )
        if ids.dtype.kind != "U":
            self.next_id = max(self.next_id, int(unique[-1]) + 1)
        return ids

    @property
    def ids_are_text(self) -> bool | None:
        """Whether ids are strings; None where nothing was ever added."""
        for segment in self._segments + self._new:
            return not isinstance(segment.ids, range) and segment.ids.dtype.kind == "U"
        return None

    def _settle(self):
        """Joins what was added since the last time into one segment."""
        if not self._new:
            return
        codes = [segment.codes for segment in self._new]
        ids = [segment.ids for segment in self._new]
        if all(isinstance(i, range) for i in ids) and all(
            a.stop == b.start for a, b in zip(ids, ids[1:], strict=False)
        ):
            ids = range(ids[0].start, ids[-1].stop)
        else:
            ids = np.concatenate([np.asarray(i) for i in ids])
        codes = codes[0] if len(codes) == 1 else np.concatenate(codes)
        self._segments.append(Segment(codes, ids))
        self._new = []

    def _alive(self) -> np.ndarray:
        alive = np.ones(sum(len(s.codes) for s in self._segments), bool)
        for removed in self._removed:
            alive[removed] = False
        return alive

    def _positions(self, ids: np.ndarray) -> np.ndarray:
        """Positions of living rows with these ids, -1 where there is none."""
        self._settle()
        result = np.full(len(ids), -1, np.int64)
        if not self._segments:
            return result
        alive, first = self._alive(), 0
        for number, segment in enumerate(self._segments):
            rows = len(segment.codes)
            if isinstance(segment.ids, range):
                inside = (ids >= segment.ids.start) & (ids < segment.ids.stop)
                row = np.where(inside, ids - segment.ids.start, 0)
            else:
                order = self._order_by_id(number)
                known = ids.astype(segment.ids.dtype)  # or all ids would be copied
                place = np.searchsorted(segment.ids, known, sorter=order)
                row = np.minimum(place, rows - 1)
                row = row if order is None else order[row]
                inside = segment.ids[row] == ids
            inside &= alive[first + row]
            result[inside] = first + row[inside]
            first += rows
        return result

    def _order_by_id(self, number: int) -> np.ndarray | None:
        """Rows of a segment in ascending order of id, remembered; None: as they are."""
        if number not in self._sorted:
            ids = self._segments[number].ids
            rising = bool((ids[:-1] < ids[1:]).all())
            self._sorted[number] = None if rising else np.argsort(ids, kind="stable")
        return self._sorted[number]

    def holds(self, ids) -> np.ndarray:
        """Whether the index has each of these ids [n] -> bool [n].

        >>> index = HammingIndex(num_bits=2)
        >>> index.add(np.array([[0], [3]], np.uint32), ids=["a", "b"])
        >>> index.holds(["b", "c"]).tolist()
        [True, False]
        """
        ids = _as_ids(ids)
        if ids.ndim != 1:
            raise ValueError(
                f"HammingIndex.holds: expected ids [n], got {list(ids.shape)}."
            )
        kinds = "U" if self.ids_are_text else "iu"
        if not len(self) or not len(ids) or ids.dtype.kind not in kinds:
            return np.zeros(len(ids), bool)
        return self._positions(ids) >= 0

    def get(self, ids) -> np.ndarray:
        """The codes of these ids [n], uint32 [n, Wd].

        Raises:
          ValueError: an id is not in the index.
        """
        ids = _as_ids(ids)
        if ids.ndim != 1:
            raise ValueError(
                f"HammingIndex.get: expected ids [n], got {list(ids.shape)}."
            )
        missing = ~self.holds(ids)
        if missing.any():
            raise ValueError(
                f"HammingIndex.get: {int(missing.sum())} ids are not in the index, "
                f"such as {ids[missing].tolist()[0]!r}."
            )
        if not len(ids):
            return np.zeros((0, self._words), np.uint32)
        rows = Rows([segment.codes for segment in self._segments], None)
        return rows.take(self._positions(ids))

    def remove(self, ids) -> None:
        """Removes the codes with these ids.

        Raises:
          ValueError: an id is not in the index.
        """
        ids = _as_ids(ids)
        if not ids.size:
            return
        text = self.ids_are_text
        if (ids.dtype.kind == "U") != bool(text) or ids.dtype.kind not in "iuU":
            kind = "strings" if text else "integers"
            raise ValueError(
                f"HammingIndex.remove: the ids of this index are {kind}, got "
                f"{ids.dtype}."
            )
        ids = np.unique(ids)
        positions = self._positions(ids)
        if (positions < 0).any():
            unknown = ids[positions < 0]
            raise ValueError(
                f"HammingIndex.remove: {len(unknown)} ids are not in the index, such "
                f"as {unknown[0].item()!r}."
            )
        self._removed.append(np.sort(positions))
        self._order = None

    def _rows(self) -> Rows:
        """Living codes by ascending id; remembers the order until a change."""
        self._settle()
        if self._order is None:
            self._order = self._find_order()
        order = None if isinstance(self._order, tuple) else self._order
        return Rows([segment.codes for segment in self._segments], order)

    def _find_order(self):
        ids = [segment.ids for segment in self._segments]
        rising = all(
            isinstance(i, range) or len(i) < 2 or bool((i[:-1] < i[1:]).all())
            for i in ids
        )
        rising = rising and all(
            a[-1] < b[0] for a, b in zip(ids, ids[1:], strict=False)
        )
        if rising and not self._removed:
            return ()
        alive = np.flatnonzero(self._alive())
        if rising:
            return alive
        ids = np.concatenate([np.asarray(i) for i in ids])
        return alive[np.argsort(ids[alive], kind="stable")]

    def _ids_at(self, positions: np.ndarray) -> np.ndarray:
        """Ids of positions of any shape."""
        text = self.ids_are_text
        width = max((s.ids.dtype for s in self._segments), default="U1") if text else 0
        result = np.empty(positions.shape, width if text else np.int64)
        first = 0
        for segment in self._segments:
            here = (positions >= first) & (positions < first + len(segment.codes))
            row = positions[here] - first
            if isinstance(segment.ids, range):
                result[here] = row + segment.ids.start
            else:
                result[here] = segment.ids[row]
            first += len(segment.codes)
        return result

    @property
    def ids(self) -> np.ndarray:
        """Ids [N] in ascending order, which is the order of `codes`."""
        if not len(self):
            return np.zeros(0, np.int64)
        rows = self._rows()
        order = np.arange(len(rows)) if rows.order is None else rows.order
        return self._ids_at(order)

    @property
    def codes(self) -> np.ndarray:
        """Packed codes uint32 [N, Wd] in ascending order of id, read-only."""
        if not len(self):
            return np.zeros((0, self._words), np.uint32)
        codes = np.asarray(self._rows()).view()  # maybe of the index's own memory
        codes.flags.writeable = False
        return codes

    def search(self, packed, k: int, *, mesh=None) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest codes of every query: ascending distance, then ascending id.

        Args:
          packed: uint32 [Q, Wd].
          k: how many; clipped to the size of the index.
          mesh: a `jax.sharding.Mesh` of one axis over which the codes are split.

        Returns:
          (distances int32 [Q, k], ids [Q, k]).
        """
        packed = np.asarray(packed)
        check_packed("HammingIndex.search", "packed", packed, self.num_bits)
        if packed.ndim != 2:
            raise ValueError(
                f"HammingIndex.search: expected packed [Q, Wd], got "
                f"{list(packed.shape)}."
            )
        k = check_k("HammingIndex.search", k, len(self))
        if not k or not len(packed):
            empty = np.zeros((len(packed), k))
            return empty.astype(np.int32), empty.astype(np.int64)
        rows = self._rows()
        packed = packed & last_word_mask(self.num_bits)
        if mesh is None:
            distances, found = search_rows(packed, rows, k)
        else:
            distances, found = search_sharded(packed, np.asarray(rows), k, mesh)
        return distances, self._ids_at(
            found if rows.order is None else rows.order[found]
        )

    def save(self, path) -> None:
        """Saves atomically: killed at any moment, the file is the old or the new one.

        Where `path` is the file this index was loaded from or last saved to, only
        what changed is appended. One process may write a file at a time.
        """
        self._settle()
        header, segments, removals = self._saved or (None, 0, 0)
        if header is not None and len(self._segments) <= MAX_SEGMENTS:
            try:
                same = index_file.read_header(path) == header
            except (OSError, index_file.IndexFileError):
                same = False
            if same:
                new = self._blocks(self._segments[segments:], self._removed[removals:])
                if new:
                    header = index_file.append(path, header, new, self.next_id)
                self._saved = header, len(self._segments), len(self._removed)
                return
        living = self
        if self._removed or len(self._segments) > 1:
            living = HammingIndex(self.num_bits)
            if len(self):
                living._segments = [Segment(self.codes, self.ids)]
        blocks = self._blocks(living._segments, [])
        header = index_file.write_new(path, self.num_bits, blocks, self.next_id)
        if living is not self:
            self._segments, self._removed = living._segments, []
            self._order, self._sorted = None, {}
        self._saved = header, len(self._segments), 0

    @staticmethod
    def _blocks(segments, removals):
        """Blocks of the file: each segment's codes, then its ids; then removals."""
        blocks = []
        for codes, ids in segments:
            if isinstance(ids, range):
                blocks.append(("codes", codes, {"first_id": ids.start}))
                continue
            blocks.append(("codes", codes, {}))
            if ids.dtype.kind == "U":
                blocks.append(("text ids", np.char.encode(ids, "utf-8"), {}))
            else:
                blocks.append(("ids", np.ascontiguousarray(ids, "<i8"), {}))
        return blocks + [("removed", r.astype("<i8"), {}) for r in removals]

    @classmethod
    def load(cls, path, *, verify: bool = True) -> "HammingIndex":
        """Opens a saved index; codes stay on disk as a memory map.

        Args:
          path: the file.
          verify: check every block; without it only the header and the table.

        Raises:
          IndexFileError: the file is damaged, truncated, or no Hamming index.
        """
        with open(path, "rb") as file:  # once: another process may replace the file
            header = index_file.header_of(file, path)
            table = index_file.read_table(file, path, header)
            arrays = [
                index_file.map_block(file, path, block, verify)
                for block in table["blocks"]
            ]
        index = cls(header.num_bits)
        index.next_id = table["next_id"]
        for block, array in zip(table["blocks"], arrays, strict=True):
            if block["kind"] == "codes":
                first = block.get("first_id")
                ids = None if first is None else range(first, first + len(array))
                index._segments.append(Segment(array, ids))
            elif block["kind"] == "removed":
                index._removed.append(np.array(array))
            else:
                text = block["kind"] == "text ids"
                ids = np.char.decode(array, "utf-8") if text else array
                index._segments[-1] = index._segments[-1]._replace(ids=ids)
        index._saved = header, len(index._segments), len(index._removed)
        return index

    def to_faiss(self, kind: str = "flat"):
        """A FAISS binary index of these codes and ids; see `export.to_faiss`."""
        return export.to_faiss(self.codes, self.ids, kind)

    def to_lance(self, uri, *, table: str = "codes", metadata: dict | None = None):
        """A LanceDB table of these codes and ids; see `export.to_lance`."""
        return export.to_lance(self.codes, self.ids, uri, table, metadata)

    def to_postgres(self, connection, **options) -> None:
        """A PostgreSQL table of these codes and ids; see `export.to_postgres`."""
        export.to_postgres(self.codes, self.ids, self.num_bits, connection, **options)
