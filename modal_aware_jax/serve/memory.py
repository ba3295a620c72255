"""Memory of large pictures, given back to the system after they are read."""

import asyncio
import ctypes
from collections.abc import Callable

from PIL import Image

BLOCK = 64 * 2**20  # bytes; glibc keeps blocks below 32 MB
WAIT = 1.0  # seconds in which more of them come


def _trim() -> None:
    """Gives back what is free in the heaps of all threads; glibc alone keeps it."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return
    trim(0)


class GiveBack:
    """Asks for free memory to be given back, a moment after it was needed.

    PIL takes 16 MB at a time, which glibc keeps for each thread that ever freed them: a
    few large pictures would leave the process with a gigabyte for good.

    Args:
      trim: does it; on a thread, as it takes milliseconds.
      wait: seconds.
    """

    def __init__(self, trim: Callable[[], None] = _trim, wait: float = WAIT):
        self._trim, self._wait, self._due = trim, wait, False
        Image.core.set_block_size(BLOCK)

    def later(self) -> None:
        """Within a running loop: memory was needed."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(self._wait, self._now)

    def _now(self):
        self._due = False
        asyncio.get_running_loop().run_in_executor(None, self._trim)
