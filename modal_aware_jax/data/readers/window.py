"""Items that come in order from a slow source, read by position from several threads.

Row groups of Parquet and chunks of HDF5 are decoded as a whole. Preparing reads nearly
in order, so the last few blocks are kept, and no more.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

KEPT = 16  # blocks: more than the images that wait for a thread


class Window:
    """Blocks of items in order; one that was passed long ago is read again.

    Args:
      blocks: starts an iterator over (position of the first item, items).

    Example:
      >>> window = Window(lambda: iter([(0, "ab"), (2, "c")]))
      >>> window[2], window[0]
      ('c', 'a')
    """

    def __init__(self, blocks: Callable[[], Iterator[tuple[int, Sequence[Any]]]]):
        self._start = blocks
        self._blocks = None
        self._kept = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, position: int) -> Any:
        with self._lock:
            for first, items in self._kept.items():
                if first <= position < first + len(items):
                    return items[position - first]
            if self._blocks is None or (self._kept and position < min(self._kept)):
                self._blocks, self._kept = self._start(), OrderedDict()
            for first, items in self._blocks:
                self._kept[first] = items
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
                if first <= position < first + len(items):
                    return items[position - first]
            self._blocks = None
            raise ValueError(f"there are fewer than {position + 1} items")
