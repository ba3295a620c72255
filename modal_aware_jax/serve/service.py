"""Searching, adding and removing for many at once: what the interface is a face of."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from modal_aware_jax.data.stored_image import to_stored_and_image
from modal_aware_jax.serve.batcher import Batcher
from modal_aware_jax.serve.change_log import Change
from modal_aware_jax.serve.encoder import Query, QueryEncoder
from modal_aware_jax.serve.live_index import LiveIndex, Missing, Mistake
from modal_aware_jax.serve.memory import GiveBack
from modal_aware_jax.serve.metrics import BATCHES, Gauge, Histogram
from modal_aware_jax.serve.shelf import Shelf

STORED_SIDE = 256  # the shorter one, of a picture that is added
MOST_PIXELS = 40_000_000  # of a picture: 160 MB, 640 MB while transparency is removed
MOST_RESULTS = 200  # of a search
SEARCHES = 64  # that go through the index together
READERS = 2  # threads that decode pictures


class Service:
    """A collection that is searched and changed.

    One thread has the index, one the encoder; pictures are decoded on others.

    Args:
      index: what is searched; closed by `close`.
      shelf: what is shown of its items.
      encoder: None where codes and items are searched for, but no words and pictures.
      name: of the collection.
    """

    def __init__(
        self,
        index: LiveIndex,
        shelf: Shelf,
        encoder: QueryEncoder | None = None,
        *,
        name: str = "",
    ):
        self.index, self.shelf, self.encoder, self.name = index, shelf, encoder, name
        batches = Histogram(
            "modal_aware_batch_size", "Items that were done together.", BATCHES
        )
        told = {
            kind: functools.partial(batches.add, what=kind)
            for kind in ("search", "change", "encode")
        }
        self._memory = GiveBack()
        thread = ThreadPoolExecutor(1)
        self._index_thread = thread
        self._readers = ThreadPoolExecutor(READERS)
        self._searches = Batcher(
            self._search_all, largest=SEARCHES, thread=thread, told=told["search"]
        )
        self._changes = Batcher(
            self.index.change, largest=SEARCHES, thread=thread, told=told["change"]
        )
        self._codes = Batcher(
            self._encode_all,
            largest=encoder.sizes[-1] if encoder else 1,
            told=told["encode"],
            most=256,  # pictures in memory
        )
        self.index.warm_up(MOST_RESULTS)
        self.metrics = [
            batches,
            Gauge("modal_aware_items", "Items of the index.", lambda: len(index)),
            Gauge(
                "modal_aware_waiting",
                "Searches, changes and encodings that wait.",
                lambda: len(self._searches) + len(self._changes) + len(self._codes),
            ),
        ]

    def _encode_all(self, queries):
        return list(self.encoder(queries))

    def _search_all(self, asked):
        """(code or None, id or None, k) of each -> its items, nearest first."""
        codes, results = [], []
        for code, like, _ in asked:
            try:
                codes.append(self.index.code_of(like) if code is None else code)
            except Missing as error:
                codes.append(error)
        whole = [code for code in codes if not isinstance(code, Missing)]
        most = max(k for _, _, k in asked) + 1
        found = iter(self.index.search(np.stack(whole), most) if whole else ())
        for code, (_, like, k) in zip(codes, asked, strict=True):
            if isinstance(code, Missing):
                results.append(code)
                continue
            near = [pair for pair in next(found) if pair[1] != like][:k]
            results.append(
                [
                    {"distance": distance, **self.shelf.describe(name)}
                    for distance, name in near
                ]
            )
        return results

    async def _on_index_thread(self, call: Callable, *arguments):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._index_thread, call, *arguments)

    async def _read(self, encoded: bytes | None) -> tuple[bytes, np.ndarray | None]:
        """The picture as it is stored, and its pixels for the model."""
        if encoded is None:
            return b"", None

        def read():
            stored, image = to_stored_and_image(
                encoded, STORED_SIDE, most_pixels=MOST_PIXELS
            )
            return stored, self.encoder.pixels(image)

        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._readers, read)
        finally:
            self._memory.later()

    async def _code(self, pixels, words) -> np.ndarray:
        if self.encoder is None:
            raise Mistake("No model is served: search by a code, or like an item.")
        return await self._codes(Query(pixels, words))

    def _split(self, text):
        return self.encoder.split(text) if self.encoder and text else ([], [])

    async def search(
        self, *, text: str = "", image: bytes | None = None, k: int = 30
    ) -> dict:
        """The k nearest items to words, a picture, or both.

        Returns:
          `items`, nearest first, each with `distance` and what `Shelf.describe` says;
          and `unknown`, the words that the model does not know.

        Raises:
          Mistake, ImageProblem: it cannot be searched for; the message is for users.
        """
        if self.encoder is None:
            raise Mistake("No model is served: search by a code, or like an item.")
        words, unknown = self._split(text)
        if image is None and not words:
            what = "None of these words is known to the model." if text else ""
            raise Mistake(what or "Give words, a picture, or both.")
        _, pixels = await self._read(image)
        code = await self._code(pixels, words)
        return {"items": await self._searches((code, None, k)), "unknown": unknown}

    async def search_code(self, code: np.ndarray, k: int = 30) -> dict:
        """The k nearest items to a packed code, uint32 [Wd]."""
        return {"items": await self._searches((code, None, k)), "unknown": []}

    async def search_like(self, name: str, k: int = 30) -> dict:
        """The k nearest items to an item, without itself."""
        name = self.index.id_of(name)
        return {"items": await self._searches((None, name, k)), "unknown": []}

    async def some(self, count: int) -> dict:
        """Some of the items, to begin with."""

        def describe():
            return [self.shelf.describe(name) for name in self.shelf.some(count)]

        return {"items": await self._on_index_thread(describe), "unknown": []}

    async def add(
        self,
        *,
        text: str = "",
        image: bytes | None = None,
        labels: list[str] | None = None,
        name: str = "",
    ) -> dict:
        """Adds an item; it is on the disk when this returns.

        Args:
          text, image: at least one of them; the text is the item's caption.
          labels: shown with it.
          name: its id; a new one is made up where it is empty.

        Returns:
          What is shown of it.

        Raises:
          Conflict: there is an item of this id.
          OSError: it could not be written.
        """
        if image is None and not text.strip():
            raise Mistake("Give words, a picture, or both.")
        stored, pixels = await self._read(image)
        words, _ = self._split(text)
        code = await self._code(pixels, words)
        facts = {
            "add": self.index.new_id(name) if name else None,
            "code": code.astype("<u4").tobytes().hex(),
            "caption": text,
            "labels": labels or [],
        }
        record = await self._changes(Change(facts, stored))
        return await self._on_index_thread(self.shelf.describe, record.facts["add"])

    async def remove(self, name: str) -> None:
        """Removes an item for good.

        Raises:
          Missing: there is none of this id.
          OSError: it could not be written.
        """
        await self._changes(Change({"remove": self.index.id_of(name)}))

    async def picture(self, name: str) -> bytes | None:
        """A JPEG of an item's picture; None where there is none."""
        name = self.index.id_of(name)
        loop = asyncio.get_running_loop()
        if not await self._on_index_thread(self.index.holds, name):
            return None
        return await loop.run_in_executor(self._readers, self.shelf.picture, name)

    async def close(self) -> None:
        """Finishes what was asked for and saves the index."""
        for batcher in (self._codes, self._searches, self._changes):
            await batcher.close()
        await self._on_index_thread(self.index.close)
