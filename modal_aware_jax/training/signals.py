"""SIGTERM and Ctrl-C as a request to save and stop."""

import contextlib
import signal
import threading


class StopNow(BaseException):
    """Leaves a section that may be left at any point, when a signal comes."""


class StopSignals:
    """Notes SIGTERM and SIGINT while it is entered; a second one acts as usual.

    Attributes:
        signum: the signal that came, or None.
    """

    def __init__(self):
        self.signum = None
        self._at_once = False
        self._usual = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._usual[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *_):
        while self._usual:
            signal.signal(*self._usual.popitem())

    @contextlib.contextmanager
    def at_once(self):
        """Inside, a signal raises `StopNow`: for work that can be done again."""
        if self.signum is not None:
            raise StopNow
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, signum, _):
        self.signum = signum
        self.__exit__()
        if self._at_once:
            raise StopNow
