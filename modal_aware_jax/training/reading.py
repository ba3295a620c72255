"""The batches of a run, and why there is no next one, agreed between all processes."""

import collections
import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from modal_aware_jax.training.monitor import LAG
from modal_aware_jax.training.processes import highest
from modal_aware_jax.training.signals import StopSignals

_READING_FAILED = 1000  # more than any signal's number


class Signalled(Exception):
    """SIGTERM or Ctrl-C came to a process; `signum` says which."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


class ReadingFailed(Exception):
    """A process could not read its part of the batch; `error` is None in the others."""

    def __init__(self, error: Exception | None):
        super().__init__(error)
        self.error = error


class Reading:
    """Reads batches, one after the other.

    Among several processes a batch is read a few steps ahead, and every process votes
    on it: so all of them stop before the same step, and none waits for a vote.

    Args:
        iterator: of the batches, with `get_state` and `set_state`.
        stop: the signals that came to this process.

    Attributes:
        position: the iterator's state after the last batch that `next` returned.
    """

    def __init__(self, iterator: Iterator[dict], stop: StopSignals):
        self._iterator, self._stop = iterator, stop
        self.position = iterator.get_state()
        self._several = jax.process_count() > 1
        self._ahead = collections.deque()

    def go_on_from(self, position: Any) -> None:
        """Moves to a position of an earlier run."""
        self._iterator.set_state(position)
        self.position = self._iterator.get_state()

    def next(self) -> dict:
        """The next batch.

        Raises:
            Signalled, ReadingFailed: in all processes before the same batch.
            StopIteration: there is no next batch.
        """
        if not self._several:
            if self._stop.signum is not None:
                raise Signalled(self._stop.signum)
            batch, self.position = self._read()
            return batch
        while len(self._ahead) <= LAG:
            self._ahead.append(self._read_and_vote())
        batch, position, error, vote = self._ahead.popleft()
        vote = int(vote)
        if vote:
            with contextlib.suppress(Exception):
                self._iterator.set_state(self.position)
            self._ahead.clear()
        if vote == _READING_FAILED:
            if isinstance(error, StopIteration):
                raise error
            raise ReadingFailed(error)
        if vote:
            raise Signalled(vote)
        self.position = position
        return batch

    def _read(self):
        try:
            batch = next(self._iterator)
            return batch, self._iterator.get_state()
        except StopIteration:
            raise
        except Exception as error:
            raise ReadingFailed(error) from error

    def _read_and_vote(self):
        batch = position = error = None
        try:
            batch, position = self._read()
        except ReadingFailed as failed:
            error = failed.error
        except StopIteration as end:
            error = end
        number = _READING_FAILED if error else self._stop.signum or 0
        return batch, position, error, highest(number)
