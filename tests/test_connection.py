"""Connections that send slowly, too much or nothing, and that go away."""

import asyncio
import contextlib
import re
import socket
import threading
import time

import pytest
import uvicorn

from modal_aware_jax.serve import connection
from modal_aware_jax.serve.connection import Connection

HEAD = b"GET /here HTTP/1.1\r\nHost: localhost\r\n"
LARGE = b"x" * 2**24


async def app(scope, receive, send):
    """Answers with the length of the body; /wait after a while, /large with much."""
    assert scope["type"] == "http"
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    if scope["path"] == "/wait":
        await asyncio.sleep(0.3)
    body = LARGE if scope["path"] == "/large" else str(length).encode()
    size = str(len(body)).encode()
    start = {"type": "http.response.start", "status": 200}
    await send({**start, "headers": [(b"content-length", size)]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port(monkeypatch):
    """Of a server that waits half a second."""
    monkeypatch.setattr(connection, "MOST_SECONDS", 0.5)
    monkeypatch.setattr(connection, "LINGER", 0.2)
    listening = socket.create_server(("127.0.0.1", 0))
    settings = uvicorn.Config(
        app, http=Connection, lifespan="off", log_level="error", timeout_keep_alive=1
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(20)
    listening.close()


def talk(port, *parts, pause=0.0, patience=20):
    """What comes until the server closes."""
    with socket.create_connection(("127.0.0.1", port), patience) as client:
        content = b""
        with contextlib.suppress(ConnectionError):
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
            while chunk := client.recv(1 << 16):
                content += chunk
    return content


def test_it_answers_as_uvicorn_does(port):
    body = b"Content-Length: 3\r\nConnection: close\r\n\r\nabc"
    answer = talk(port, HEAD + b"\r\n", HEAD[:20], HEAD[20:] + body[:-1], body[-1:])
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200"]
    assert re.findall(rb"\r\n\r\n(\d)", answer) == [b"0", b"3"]
    chunks = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    many = b"".join(b"5;a=b\r\nabcde\r\n" for _ in range(100_000))  # 500 kB in 1.5 MB
    assert talk(port, HEAD + chunks, many, b"0\r\n\r\n").endswith(b"500000")


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (HEAD,),
        (HEAD, *(b"X" for _ in range(40))),
        (HEAD + b"\r\n",),
        (HEAD + b"\r\n" + HEAD,),
        (HEAD + b"\r\n", b"G"),
    ],
    ids=["nothing", "half", "slowly", "one", "one and a half", "one and a letter"],
)
def test_who_sends_no_head_is_not_waited_for(port, parts):
    started = time.monotonic()
    answer = talk(port, *parts, pause=0.05)
    assert 0.4 < time.monotonic() - started < 10
    assert answer.count(b"HTTP/1.1 200") == any(b"\r\n\r\n" in part for part in parts)


@pytest.mark.parametrize(
    "start, more",
    [
        (b"GET /", b"a"),
        (HEAD + b"X: ", b"a"),
        (HEAD, b"X: a\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: a\r\n"),
        (b"", HEAD + b"\r\n"),
    ],
    ids=["target", "header", "headers", "extension", "trailers", "requests"],
)
def test_what_has_no_end_is_not_read(port, start, more):
    block, sent = more * (2**16 // len(more)), 0
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(start)
        with pytest.raises(OSError):
            while sent < 2**26:
                client.sendall(block)
                sent += len(block)


def test_answers_that_are_not_taken_end_the_connection(port):
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.sendall(HEAD.replace(b"/here", b"/large") + b"\r\n")
        time.sleep(1.5)
        taken = 0
        with contextlib.suppress(ConnectionError):
            while chunk := client.recv(1 << 20):
                taken += len(chunk)
    assert taken < len(LARGE)


def test_who_goes_away_while_requests_wait_leaves_no_error(port, caplog):
    wait = HEAD.replace(b"/here", b"/wait") + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(wait * 5)
        time.sleep(0.1)
    time.sleep(0.6)
    assert talk(port, HEAD + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert caplog.records == []
