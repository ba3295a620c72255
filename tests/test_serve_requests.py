"""The malformed requests of benchmarks/serve_fuzz.py, over real connections."""

import pathlib
import random
import socket
import sys
import threading

import pytest
import uvicorn
from tiny_service import service

from modal_aware_jax.serve.app import make_app
from modal_aware_jax.serve.connection import Connection
from modal_aware_jax.serve.run import open_socket

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))
from serve_fuzz import exchange, statuses_of  # noqa: E402
from serve_requests import KINDS, bombs, picture_request, request  # noqa: E402


class Served:
    """What `exchange` connects to."""

    def __init__(self, port):
        self.port = port

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), 20)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    app = make_app(service(tmp_path_factory.mktemp("served") / "forty.index"))
    with open_socket("127.0.0.1", 0) as listening:
        listening.listen()
        settings = uvicorn.Config(
            app, http=Connection, lifespan="on", log_level="critical", ws="none"
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield Served(listening.getsockname()[1])
        server.should_exit = True
        thread.join(60)


# Starlette leaves the files of a form that is cut short to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_never_our_fault(served, kind, capsys):
    rng = random.Random(kind)
    for _ in range(8):
        answer = exchange(served, KINDS[kind](rng, ""))
        assert all(status < 500 for status in answer.statuses), answer.content[-500:]
    assert "Traceback" not in capsys.readouterr().err
    right = request("POST", "/search", b'{"text": "sea", "k": 3}')
    assert exchange(served, right).statuses == [200]


def test_bombs_are_refused_or_reduced(served):
    for bomb in bombs():
        (status,) = exchange(served, picture_request(bomb, "")).statuses
        assert status in (200, 400)


def test_statuses_are_read_from_a_stream_of_answers():
    one = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    told = b'HTTP/1.1 400 Bad Request\r\n\r\n{"error": "HTTP/1.1 500 "}'
    assert statuses_of(one + told + one) == [200, 400, 200]
