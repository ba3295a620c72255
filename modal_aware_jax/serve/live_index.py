"""An index that is searched and changed at the same time, and loses no change.

Its file stays as it was opened, a memory map. What was added since lies beside it in
memory, what was removed is left out of what a search finds, and both are in the log of
changes before they are acknowledged. `save` folds them into the file.
"""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from modal_aware_jax.hashing.codes import num_words
from modal_aware_jax.retrieval.index import ID_LIMIT, HammingIndex
from modal_aware_jax.serve.change_log import Change, ChangeLog, ChangeLogError, Record

FOLD_AT = 1000  # changes in memory: more are written into the file
MAX_ID = 200  # characters of a new id: all take as much memory as the longest


class Mistake(ValueError):
    """What cannot be done because of what was asked; the message is for who asked."""


class Conflict(Mistake):
    """An id that is there already."""


class Missing(Mistake):
    """An id that is not there."""


class LiveIndex:
    """A `HammingIndex` in a file with the log of its changes, `FILE.changes`.

    Not for threads: one of them searches and changes.

    Args:
      path: of the index; its log is made where there is none.

    Attributes:
      added: what was ever added and is there, by id: a `Record` of the log, whose
        facts are `add` (the id), `code`, and whatever else was given.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self._base = HammingIndex.load(self.path)
        self.num_bits = self._base.num_bits
        self._gone: set = set()  # ids of the base that were removed
        self._new = HammingIndex(self.num_bits)
        self.added: dict = {}
        self.removed: set = set()  # ever, and not added again
        self._log = ChangeLog(self.path.with_name(self.path.name + ".changes"))
        try:
            try:
                self._kind = str if self._has_texts() else int
                self._replay()
            except (ValueError, KeyError, TypeError) as error:
                raise ChangeLogError(
                    f"{self._log.path} holds changes of another index than {path} "
                    f"({error!r}). Put the log of this one there, or move it away to "
                    "begin without changes."
                ) from error
            self._log.tidy()
        except BaseException:
            self._log.close()
            raise
        self.added = {r.facts["add"]: r for r in self._log.kept() if "add" in r.facts}
        self._number = len(self.added) + len(self.removed)

    def _has_texts(self):
        """Whether ids are texts; a file that was rewritten without items forgets it."""
        text = self._base.ids_are_text
        if text is None and self._log.records:
            facts = self._log.records[-1].facts
            text = isinstance(facts.get("add", facts.get("remove")), str)
        return text is not False  # and of an index without a past

    def _replay(self):
        """Makes the file what the log says; both may be the older one."""
        kept = list(self._log.kept())
        adds = {r.facts["add"]: r for r in kept if "add" in r.facts}
        self.removed = {r.facts["remove"] for r in kept if "remove" in r.facts}
        there = self._of_base([*adds, *self.removed])
        codes = {name: _code_of(record) for name, record in adds.items()}
        both = [name for name in adds if name in there]
        if both:
            same = (self._base.get(both) == np.stack([codes[n] for n in both])).all(1)
            both = [name for name, is_same in zip(both, same, strict=True) if is_same]
        self._gone = there - set(both)
        new = [name for name in adds if name not in set(both)]
        if new:
            self._new.add(np.stack([codes[name] for name in new]), ids=new)
        self.save()

    def __len__(self) -> int:
        return len(self._base) + len(self._new) - len(self._gone)

    @property
    def ids(self) -> np.ndarray:
        """All ids, ascending."""
        self.save()
        return self._base.ids

    def _of_base(self, names) -> set:
        """Those of the names that the file has."""
        if not names or not len(self._base):
            return set()
        holds = self._base.holds(np.array(names, dtype=self._kind))
        return {name for name, has in zip(names, holds, strict=True) if has}

    def id_of(self, text: str):
        """An id as this index has it, from text; `Mistake` where it can be none."""
        if self._kind is str:
            return text
        digits = text.removeprefix("-")
        is_number = digits.isascii() and digits.isdecimal() and len(digits) < 20
        if not (is_number and -(2**63) <= int(text) < ID_LIMIT):
            raise Mistake("The ids of this index are whole numbers.")
        return int(text)

    def new_id(self, text: str):
        """`id_of` for what is to be added; `Mistake` for what is hard to name again."""
        if self._kind is str and (
            not text or len(text) > MAX_ID or not text.isprintable()
        ):
            raise Mistake(f"An id is 1 to {MAX_ID} characters that can be printed.")
        return self.id_of(text)

    def _fresh_id(self, taken):
        """An id that nothing ever had; a number where ids are numbers."""
        if self._kind is int:
            first = max(self._base.next_id, self._new.next_id)
            first = max([first, *(name + 1 for name in taken)])
            if first >= ID_LIMIT:
                raise Mistake("No larger number is left for an id: give one.")
            return first
        while True:
            self._number += 1
            name = f"added-{self._number}"
            if not (name in taken or name in self.removed or self.holds(name)):
                return name

    def holds(self, name) -> bool:
        """Whether an id is there."""
        if bool(self._new.holds([name])[0]):
            return True
        return name not in self._gone and bool(self._of_base([name]))

    def code_of(self, name) -> np.ndarray:
        """The code of an id, uint32 [Wd]; `Missing` where there is none."""
        if not self.holds(name):
            raise Missing(f"There is no {name!r}.")
        index = self._new if bool(self._new.holds([name])[0]) else self._base
        return index.get([name])[0]

    def search(self, codes: np.ndarray, k: int) -> list[list[tuple]]:
        """The k nearest of every code [Q, Wd]: lists of (distance, id), nearest first.

        Equal distances are in ascending order of id, as in `HammingIndex.search`.
        """
        found = [[] for _ in codes]
        gone = self._gone
        for index, more in ((self._base, len(gone)), (self._new, 0)):
            if not len(index):
                continue
            distances, ids = index.search(codes, _rounded(k + more))
            for row, near, names in zip(
                found, distances.tolist(), ids.tolist(), strict=True
            ):
                pairs = zip(near, names, strict=True)
                row += [p for p in pairs if not more or p[1] not in gone]
        if len(self._new):
            found = [sorted(row) for row in found]
        return [row[:k] for row in found]

    def warm_up(self, k: int, sizes: Sequence[int] = (1, 4, 32, 64)) -> None:
        """Searches for up to k, so that no search waits for a program.

        Args:
          k: the most that is searched for.
          sizes: numbers of codes.
        """
        for size in sizes:
            codes = np.zeros((size, num_words(self.num_bits)), np.uint32)
            for some in {_rounded(1), _rounded(k)}:
                self.search(codes, some)

    def change(self, changes: Sequence[Change]) -> list[Exception | Record]:
        """Applies changes in their order, on the disk when this returns.

        Args:
          changes: `add` may be None: a new id is made up.

        Returns:
          For each its record, or the `Mistake` or OSError for which it was not made.
        """
        results, taken = [], {}
        for change in changes:
            name = change.facts.get("add", change.facts.get("remove"))
            if name is None:
                try:
                    name = self._fresh_id(taken)
                except Mistake as error:
                    results.append(error)
                    continue
                change = Change({**change.facts, "add": name}, change.picture)
            there = taken[name] if name in taken else self.holds(name)
            if there == ("add" in change.facts):
                known = Conflict(f"There is an item {name!r} already.")
                results.append(known if there else Missing(f"There is no {name!r}."))
                continue
            taken[name] = not there
            results.append(change)
        made = [r for r in results if isinstance(r, Change)]
        try:
            records = iter(self._log.append(made))
        except OSError as error:
            return [error if isinstance(r, Change) else r for r in results]
        results = [next(records) if isinstance(r, Change) else r for r in results]
        for record in results:
            if isinstance(record, Record):
                self._apply(record)
        if len(self._new) + len(self._gone) > FOLD_AT:
            self.save()
        return results

    def _apply(self, record):
        if "add" in record.facts:
            name = record.facts["add"]
            self._new.add(_code_of(record)[None], ids=[name])
            self.added[name] = record
            self.removed.discard(name)
            return
        name = record.facts["remove"]
        if bool(self._new.holds([name])[0]):
            self._new.remove([name])
        else:
            self._gone.add(name)
        self.added.pop(name, None)
        self.removed.add(name)

    def save(self) -> None:
        """Folds the changes into the file, which is the old or the new one at any time.

        Where it cannot be written they stay in memory and in the log.
        """
        if not len(self._new) and not self._gone:
            return
        if self._gone:
            self._base.remove(np.array(sorted(self._gone), dtype=self._kind))
        if len(self._new):
            self._base.add(self._new.codes, ids=self._new.ids)
        self._gone, self._new = set(), HammingIndex(self.num_bits)
        try:
            self._base.save(self.path)
        except OSError as error:
            print(
                f"{self.path} cannot be written ({error}). Nothing is lost: its log "
                "holds every change.",
                file=sys.stderr,
            )
            return
        self._base = HammingIndex.load(self.path, verify=False)  # a memory map again

    def picture(self, name) -> bytes | None:
        """The picture of an id that was added; from any thread."""
        record = self.added.get(name)
        return None if record is None else self._log.picture(record)

    def close(self) -> None:
        """Saves, and gives the files back."""
        try:
            self.save()
        finally:
            self._log.close()


def _rounded(k):
    """At least k, of few different values: each may need a program of its own."""
    return max(64, 1 << (k - 1).bit_length())


def _code_of(record):
    return np.frombuffer(bytes.fromhex(record.facts["code"]), "<u4").astype(np.uint32)
