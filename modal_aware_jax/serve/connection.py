"""Connections that wait for nobody for ever, and read no head without an end."""

from uvicorn.protocols.http.auto import AutoHTTPProtocol

MOST_BARREN = 128 * 1024  # bytes in which no head ends and nothing of a body is said
MOST_SECONDS = 30.0  # for a head to arrive, or an answer to be taken
MOST_PIPELINED = 100  # requests that wait behind one of the same connection
LINGER = 5.0  # seconds that what was answered has to be taken at the end


class Connection(AutoHTTPProtocol):
    """uvicorn's connection, which by itself waits for heads and readers for ever.

    - A head is there `MOST_SECONDS` after the connection was made, or after its first
      byte; an answer is taken within as many.
    - Heads, trailers and extensions of chunks are of at most `MOST_BARREN` bytes.
    - Behind a request that is being answered at most `MOST_PIPELINED` wait.
    """

    def connection_made(self, transport):
        super().connection_made(transport)
        self._barren, self._cycles = 0, []
        self._clock = self.loop.call_later(MOST_SECONDS, self._end)
        self._stuck = None

    def connection_lost(self, exc):
        self._stop_clock()
        self.resume_writing()
        for cycle in self._cycles:  # uvicorn tells only the last of them
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data):
        cycle = self.cycle
        self._barren += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._barren > MOST_BARREN or len(getattr(self, "pipeline", ())) > (
            MOST_PIPELINED
        ):
            self._end()
        elif self.cycle is not cycle:  # a head is whole
            self._stop_clock()
        elif self._clock is None and (cycle is None or cycle.response_complete):
            self._clock = self.loop.call_later(MOST_SECONDS, self._end)

    # What httptools tells; h11 has a limit of its own.

    def on_headers_complete(self):
        self._barren = 0
        self._cycles = [each for each in self._cycles if not each.response_complete]
        super().on_headers_complete()
        self._cycles.append(self.cycle)

    def on_body(self, body):
        self._barren = 0
        super().on_body(body)

    # Answers that are not taken.

    def pause_writing(self):
        super().pause_writing()
        self._stuck = self.loop.call_later(MOST_SECONDS, self.transport.abort)

    def resume_writing(self):
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def timeout_keep_alive_handler(self):
        self._end()

    def _stop_clock(self):
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _end(self):
        self._clock = None
        self.transport.close()
        self.loop.call_later(LINGER, self.transport.abort)
