"""What many ask for at once, done together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


class Busy(Exception):
    """More is waiting already than is done in reasonable time."""


class Batcher:
    """Runs a function of many items, on a thread, for askers of one item each.

    While one batch runs, what is asked for waits, and is the next batch: nobody waits
    for others to come, and the busier it is the larger the batches are.

    Args:
      run: items -> for each a result, or an exception that its asker gets.
      largest: items of a batch.
      most: items that may wait.
      thread: an executor with one thread, where several batchers share it.
      told: is called with the size of each batch.

    Example:
      >>> async def ask():
      ...     doubled = Batcher(lambda items: [2 * item for item in items], largest=8)
      ...     try:
      ...         return await asyncio.gather(*(doubled(i) for i in range(3)))
      ...     finally:
      ...         await doubled.close()
      >>> asyncio.run(ask())
      [0, 2, 4]
    """

    def __init__(
        self,
        run: Callable[[list], Sequence],
        *,
        largest: int,
        most: int = 1024,
        thread: ThreadPoolExecutor | None = None,
        told: Callable[[int], None] = lambda size: None,
    ):
        self._run, self._largest, self._most, self._told = run, largest, most, told
        self._thread = thread or ThreadPoolExecutor(1)
        self._waiting: deque = deque()
        self._worker: asyncio.Task | None = None

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._waiting)

    async def __call__(self, item):
        """The result of an item.

        Raises:
          Busy: too many wait.
        """
        if len(self._waiting) >= self._most:
            raise Busy
        result = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await result

    async def _work(self):
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = []
            while self._waiting and len(batch) < self._largest:
                item, result = self._waiting.popleft()
                if not result.done():  # else its asker has gone
                    batch.append((item, result))
            if not batch:
                continue
            self._told(len(batch))
            items = [item for item, _ in batch]
            try:
                results = await loop.run_in_executor(self._thread, self._run, items)
            except Exception as error:
                results = [error] * len(batch)
            for (_, asker), result in zip(batch, results, strict=True):
                if asker.done():
                    continue
                if isinstance(result, Exception):
                    asker.set_exception(result)
                else:
                    asker.set_result(result)

    async def close(self) -> None:
        """Waits for what was asked for."""
        if self._worker is not None:
            await self._worker
