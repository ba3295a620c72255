"""What is shown of an item: its picture, words and labels, by its id."""

import collections
import io
import threading

import numpy as np

from modal_aware_jax.data.collection import Collection
from modal_aware_jax.report.shown import shown
from modal_aware_jax.report.thumbnail import thumbnail
from modal_aware_jax.serve.live_index import LiveIndex

SIDE = 320  # of a picture that is shown, in pixels
KEPT = 512  # pictures in memory, some 10 MB
DESCRIBED = 10_000  # items whose words are kept in memory
CAPTION = 1000  # characters shown


class Shelf:
    """Items of a collection, and those that were added to an index.

    Args:
      index: with the added ones.
      pairs: the collection, or None where only ids are known of its items.
    """

    def __init__(self, index: LiveIndex, pairs: Collection | None = None):
        self._index, self._pairs = index, pairs
        names = [] if pairs is None else pairs.ids.tolist()
        self._position = {name: i for i, name in enumerate(names)}
        self._kept: collections.OrderedDict = collections.OrderedDict()
        self._lock = threading.Lock()
        self._described: dict = {}

    def describe(self, name) -> dict:
        """The id, caption and labels of an item, and whether it has a picture."""
        record = self._index.added.get(name)
        key = (name, None if record is None else record.start)
        facts = self._described.get(key)
        if facts is None:
            if len(self._described) >= DESCRIBED:
                self._described.clear()
            facts = self._described[key] = self._read(name, record)
        return facts

    def _read(self, name, record):
        if record is not None:
            facts = record.facts
            caption, labels = facts.get("caption", ""), facts.get("labels", [])
            has_picture = record.size > 0
        elif name in self._position:
            row = self._position[name]
            caption = self._pairs.captions[row]
            labels = [
                label
                for label, has in zip(
                    self._pairs.label_names, self._pairs.labels[row], strict=True
                )
                if has
            ]
            there = self._pairs.has_image
            has_picture = there is None or bool(there[row])
        else:
            caption, labels, has_picture = "", [], False
        return {
            "id": name,
            "caption": caption[:CAPTION],
            "labels": labels,
            "has_picture": has_picture,
        }

    def picture(self, name) -> bytes | None:
        """A JPEG of an item's picture, `SIDE` pixels wide or high; None without one.

        From any thread.
        """
        record = self._index.added.get(name)
        key = (name, None if record is None else record.start)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        if record is not None:
            encoded = self._index.picture(name)
        elif name in self._position and self.describe(name)["has_picture"]:
            encoded = shown(self._pairs, self._position[name])[0]
        else:
            encoded = None
        if not encoded:
            return None
        buffer = io.BytesIO()
        thumbnail(encoded, SIDE).save(buffer, "JPEG", quality=85)
        with self._lock:
            self._kept[key] = buffer.getvalue()
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return buffer.getvalue()

    def some(self, count: int) -> list:
        """Ids of items that are there: added ones, then all over the collection."""
        added = list(self._index.added)[::-1][:count]
        names = [] if self._pairs is None else self._pairs.ids
        places = np.linspace(0, max(len(names) - 1, 0), min(len(names), count))
        spread = [names[int(i)].item() for i in places]
        found = dict.fromkeys([*added, *spread])
        return [name for name in found if self._index.holds(name)][:count]
