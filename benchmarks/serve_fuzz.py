"""Malformed requests against a real `--mode=serve`: no fault, no hang, no growth.

    JAX_PLATFORMS=cpu python benchmarks/serve_fuzz.py          # about ten minutes
    python benchmarks/serve_fuzz.py --requests=1000 --warm_up=200

A tiny collection is trained and served, once open on this machine and once with a
token. `--requests` requests, of the kinds of `serve_requests.py`, come over
`--clients` connections of bytes; after every hundred the server is asked something
right. Then connections that send slowly, or nothing, must be closed, and a stream of
headers without an end must be cut.

It fails where a status is 500 or more, a whole request has no answer within
`PATIENCE` seconds, something right is not answered, the server prints a traceback or
ends, its memory grows by more than `MOST_GROWN` MiB after the warm-up, descriptors or
threads are left over, or what was acknowledged is not there after a restart. Writes
OUT.json and OUT.md.
"""

import argparse
import collections
import concurrent.futures
import csv
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from importlib import metadata

import numpy as np
from alternate import commit, num_cores, processor, table
from PIL import Image
from serve_requests import KINDS, Request, bombs, picture_request

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
TOKEN = "correct-horse-battery"
PATIENCE = 20.0  # seconds for the answer to a whole request
BRIEF = 0.05  # seconds that a broken one is listened to
SLOW = 60.0  # seconds after which a silent connection must be closed
MOST_GROWN = 30  # MiB
PAIRS = 100


def write_collection(folder: pathlib.Path) -> None:
    """Photographs of noise with words and labels, and their table."""
    rng = np.random.default_rng(0)
    words, labels = ["sea", "sky", "dog", "car", "tree", "red"], ["a", "b", "c"]
    folder.mkdir(parents=True)
    with open(folder / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "text", "labels"])
        for i in range(PAIRS):
            pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.jpg")
            text = " ".join(rng.choice(words, 3, replace=False))
            writer.writerow([f"{i}.jpg", text, rng.choice(labels)])


class Server:
    """A process of `--mode=serve` over a tiny run in a place; a context that ends it.

    Args:
      place: of the collection and the run, made where they are not.
      token: that it asks for, or none.
    """

    def __init__(self, place: pathlib.Path, token: str = ""):
        self.place, self.token = place, token
        self.output = place / f"output{'-token' if token else ''}.txt"
        self.process, self.port = None, 0

    def _command(self, *flags):
        settings = {
            "data.dir": self.place / "data",
            "data.options.prepared_dir": self.place / "prepared",
            "data.options.min_word_count": 1,
            "data.image_size": 32,
            "backbone.options.width": 4,
            "training.num_epochs": 1,
        }
        return [
            *(sys.executable, "-m", "modal_aware_jax.main"),
            f"--config={ROOT / 'configs' / 'folder.py'}:bits=32",
            *(f"--config.{name}={value}" for name, value in settings.items()),
            *(f"--workdir={self.place / 'run'}", *flags),
        ]

    def __enter__(self):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(self.place / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "MODAL_AWARE_TOKEN": self.token,
        }
        if not (self.place / "data").exists():
            write_collection(self.place / "data")
            train = [*self._command("--mode=train")]
            done = subprocess.run(train, env=environment, capture_output=True)
            if done.returncode:
                raise RuntimeError(done.stderr.decode()[-3000:])
        start = self.output.stat().st_size if self.output.exists() else 0
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(
                self._command("--mode=serve", "--port=0"),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        ends, self.port = time.monotonic() + 300, 0
        while not self.port:
            told = self.output.read_bytes()[start:].decode(errors="replace")
            found = re.search(r"Serving .*:(\d+)/", told)
            self.port = int(found[1]) if found else 0
            if self.process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"It does not serve: {told[-3000:]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *error):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def state(self) -> dict:
        """Own memory in MiB, open descriptors and threads."""
        process = pathlib.Path(f"/proc/{self.process.pid}")
        status = (process / "status").read_text()
        return {
            "memory MiB": round(int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024),
            "descriptors": len(list((process / "fd").iterdir())),
            "threads": int(re.search(r"Threads:\s+(\d+)", status)[1]),
        }

    def connect(self) -> socket.socket:
        """A connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def ask(self, method: str, path: str, fields: dict | None = None) -> tuple:
        """The status and the JSON of something right."""
        body = b"" if fields is None else json.dumps(fields).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = exchange(self, Request(head.encode() + body))
        if not answer.statuses:
            raise Failed(f"no answer to {method} {path}")
        text = answer.content.partition(b"\r\n\r\n")[2]
        return answer.statuses[0], text

    def check_health(self) -> None:
        """Asks for three things that must be found."""
        for method, path, fields in (
            ("GET", "/status", None),
            ("POST", "/search", {"text": "sea", "k": 3}),
            ("POST", "/search", {"like": "1.jpg", "k": 3}),
        ):
            status, text = self.ask(method, path, fields)
            if status != 200:
                raise Failed(f"{method} {path} {fields} -> {status} {text[:200]}")
            if fields and len(json.loads(text)["items"]) != 3:
                raise Failed(f"{fields} -> {text[:200]}")

    def items(self) -> int:
        """How many items it has."""
        return json.loads(self.ask("GET", "/status")[1])["items"]


class Failed(AssertionError):
    """What may not be."""


class Answer(collections.namedtuple("Answer", "statuses seconds content")):
    """Statuses in their order, the time to the end, and all bytes."""


def exchange(server: Server, request: Request) -> Answer:
    """Sends a request and reads what comes, until there is enough or it closes."""
    started, content, whole = time.monotonic(), b"", request.answers > 0
    patience = PATIENCE if whole else BRIEF
    with server.connect() as connection:
        try:
            for part in request.parts:
                connection.sendall(part)
            connection.settimeout(patience)
            while chunk := connection.recv(1 << 16):
                content += chunk
                if whole and len(statuses_of(content)) >= request.answers:
                    if ends_whole(content):
                        break
        except TimeoutError:
            if whole:
                seen = statuses_of(content)
                raise Failed(
                    f"{seen} after {PATIENCE} s, {request.answers} answers expected: "
                    f"{request.parts[0][:300]!r}"
                ) from None
        except OSError:  # it closed while more was sent
            pass
    return Answer(statuses_of(content), time.monotonic() - started, content)


def statuses_of(content: bytes) -> list[int]:
    """Statuses of the answers, one or more behind each other."""
    return [int(s) for s in re.findall(rb"(?:^|(?<=[}\n]))HTTP/1\.1 (\d{3}) ", content)]


def ends_whole(content: bytes) -> bool:
    """Whether the last answer has its body."""
    head, _, body = content[content.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return length is not None and len(body) >= int(length[1])


class Round:
    """So many requests of all kinds, and what was answered."""

    def __init__(self, server: Server, seed: int):
        self.server, self.random = server, random.Random(seed)
        self.statuses = collections.defaultdict(collections.Counter)
        self.slowest = collections.Counter()
        self.changed = 0  # items that were acknowledged, without those removed
        self.unsure = 0  # changes that were not read to their end

    def send(self, number: int, clients: int) -> None:
        """Sends them, and something right after every hundred."""
        names = list(KINDS)
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            for start in range(0, number, 100):
                some = []
                for i in range(start, min(start + 100, number)):
                    name = names[i % len(names)]
                    some.append((name, KINDS[name](self.random, self.server.token)))
                for told in pool.map(lambda x: (x, exchange(self.server, x[1])), some):
                    self.note(*told)
                self.server.check_health()
                if self.server.process.poll() is not None:
                    raise Failed("the server ended")

    def send_bombs(self, clients: int) -> None:
        """Sends every large picture, so that what is kept of them is there."""
        made = [picture_request(bomb, self.server.token) for bomb in bombs()] * 4
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            for told in pool.map(lambda x: exchange(self.server, x), made):
                self.note(("picture", made[0]), told)

    def note(self, sent, answer) -> None:
        """Counts an answer; what may not be is told with its request."""
        name, request = sent
        for status in answer.statuses or ["closed"]:
            self.statuses[name][str(status)] += 1
            if status != "closed" and status >= 500:
                raise Failed(
                    f"{status} to {request.parts[0][:500]!r}: {answer.content[-300:]!r}"
                )
        if request.answers:
            self.slowest[name] = max(self.slowest[name], answer.seconds)
        self.changed += len(re.findall(rb"HTTP/1\.1 201 ", answer.content))
        self.changed -= len(re.findall(rb'\{"removed":', answer.content))
        if not request.answers and "items" in str(request.parts[0][:30]):
            self.unsure += 1

    def rows(self) -> list[dict]:
        """A row of each kind."""
        return [
            {
                "kind": name,
                "what": KINDS[name].__doc__.split("\n")[0].rstrip("."),
                "answers": ", ".join(
                    f"{status}: {count}" for status, count in sorted(seen.items())
                ),
                "slowest s": round(self.slowest[name], 2),
            }
            for name, seen in self.statuses.items()
        ]


def slow_clients(server: Server) -> list[dict]:
    """Connections that send slowly, or nothing: how long the server keeps each."""
    head = b"POST /search HTTP/1.1\r\nHost: localhost\r\n"
    if server.token:
        head += f"Authorization: Bearer {server.token}\r\n".encode()
    status = head.replace(b"POST /search", b"GET /status") + b"\r\n"
    kind = b"Content-Type: application/json\r\n"
    ways = {
        "nothing": (b"", b""),
        "half a head": (head, b""),
        "a head, a byte a second": (head + b"X: ", b"a"),
        "half a body": (head + kind + b"Content-Length: 100\r\n\r\n{", b""),
        "a body, a byte a second": (
            head + kind + b"Content-Length: 1000000\r\n\r\n{",
            b" ",
        ),
        "chunks, one a second": (
            head + kind + b"Transfer-Encoding: chunked\r\n\r\n",
            b"1\r\n \r\n",
        ),
        "an answer, then nothing": (status, b""),
        "an answer, then half a head": (status + head, b""),
        "an answer, then a byte a second": (status + head + b"X: ", b"a"),
    }

    def keep(way):
        first, more = ways[way]
        started = time.monotonic()
        with server.connect() as connection:
            connection.settimeout(1)
            try:
                connection.sendall(first)
                while time.monotonic() - started < SLOW:
                    try:
                        if not connection.recv(1 << 16):
                            break
                    except TimeoutError:
                        connection.sendall(more)
                else:
                    raise Failed(f"{way}: still open after {SLOW:.0f} s")
            except OSError:
                pass  # closed
        return {"sent": way, "closed after s": round(time.monotonic() - started, 1)}

    with concurrent.futures.ThreadPoolExecutor(len(ways)) as pool:
        return list(pool.map(keep, ways))


def endless(server: Server) -> list[dict]:
    """Streams without an end: after how many bytes the server closes."""
    head = b"GET /status HTTP/1.1\r\nHost: localhost\r\n"
    if server.token:
        head += f"Authorization: Bearer {server.token}\r\n".encode()
    post = head.replace(b"GET /status", b"POST /search")
    post += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    block = 1 << 16
    rows = []
    for way, first, more in (
        ("a request line", b"GET /", b"a" * block),
        ("one header", head + b"X: ", b"a" * block),
        ("headers", head, b"X: a\r\n" * (block // 6)),
        ("a chunk's extension", post + b"1;", b"a" * block),
        ("chunks", post, b"10000\r\n" + b" " * block + b"\r\n"),
        ("trailers", post + b"2\r\n{}\r\n0\r\n", b"X: a\r\n" * (block // 6)),
        ("requests", b"", (head + b"\r\n") * 1000),
    ):
        sent, most = 0, 200 * 2**20
        with server.connect() as connection:
            connection.settimeout(5)
            try:
                connection.sendall(first)
                while sent < most:
                    connection.sendall(more)
                    sent += len(more)
            except TimeoutError:
                how = "not read any further"
            except OSError:
                how = "closed"
            else:
                raise Failed(f"{way}: {most >> 20} MiB were read")
        rows.append({"endless": way, "how": how, "after KiB": sent >> 10})
    return rows


def drill(place: pathlib.Path, options, token: str) -> dict:
    """One server: requests, slow and endless clients, memory, and a restart."""
    number = options.requests // 10 if token else options.requests
    with Server(place, token) as server:
        server.check_health()
        begun, items = server.state(), server.items()
        warm = Round(server, options.seed)
        warm.send_bombs(options.clients)
        warm.send(options.warm_up // (10 if token else 1), options.clients)
        time.sleep(3)  # memory is given back a moment later
        before = server.state()
        measured = Round(server, options.seed + 1)
        started, memory = time.monotonic(), []
        part = max(number // 10, 100)
        for start in range(0, number, part):
            measured.send(min(part, number - start), options.clients)
            memory.append(server.state()["memory MiB"])
            print(f"{start + part} requests, {memory[-1]} MiB", flush=True)
        seconds = time.monotonic() - started
        streams = endless(server)
        server.check_health()
        slow = slow_clients(server)
        server.check_health()
        time.sleep(3)
        after, left = server.state(), server.items()
        wrong = re.findall(
            r'status="(5\d\d)"', server.ask("GET", "/metrics")[1].decode()
        )
    told = server.output.read_text(errors="replace")
    if "Traceback" in told:
        raise Failed(told[told.index("Traceback") :][:3000])
    if wrong:
        raise Failed(f"/metrics counts answers of status {set(wrong)}")
    grown = after["memory MiB"] - before["memory MiB"]
    if grown > MOST_GROWN:
        raise Failed(f"its memory grew by {grown} MiB: {memory}")
    if after["descriptors"] > before["descriptors"] + 2:
        raise Failed(f"descriptors: {before} before, {after} after")
    expected = items + warm.changed + measured.changed
    if abs(left - expected) > warm.unsure + measured.unsure:
        raise Failed(f"{left} items, {expected} were acknowledged")
    with Server(place, token) as server:
        server.check_health()
        if server.items() != left:
            raise Failed(f"{server.items()} items after a restart, {left} before")
    return {
        "server": "with a token" if token else "open on this machine",
        "requests": number,
        "a second": round(number / seconds, 1),
        "at the start": begun,
        "after the warm-up": before,
        "at the end": after,
        "memory MiB, by tenths": memory,
        "items": left,
        "answers": measured.rows(),
        "slow": slow,
        "endless": streams,
    }


def report(facts, drills) -> str:
    """The results in Markdown."""
    lines = ["# Malformed requests\n", ", ".join(f"{k} {v}" for k, v in facts.items())]
    lines[-1] += ".\n"
    for found in drills:
        lines += [
            f"## A server {found['server']}\n",
            f"{found['requests']:,} requests, {found['a second']} a second. None was "
            "answered by a status of 500 or more, none left without an answer that "
            "was whole; what is right was answered after every hundred, and after a "
            f"restart all {found['items']:,} items were there.\n",
            table(
                [
                    {"": when, **found[when]}
                    for when in ("at the start", "after the warm-up", "at the end")
                ]
            ),
            "Memory of its own by tenths of the requests, MiB: "
            f"{', '.join(map(str, found['memory MiB, by tenths']))}.\n",
            table(found["answers"]),
            "`closed`: without an answer, which only broken requests get.\n",
            table(found["slow"]),
            table(found["endless"]),
        ]
    lines.append("Made by `benchmarks/serve_fuzz.py`.\n")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--warm_up", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--place", default="", help="of the collection and the run")
    parser.add_argument("--out", default=str(HERE / "results" / "serve_fuzz"))
    options = parser.parse_args()
    facts = {
        "commit": commit(),
        "device": processor(),
        "cores": num_cores(),
        "load before": round(os.getloadavg()[0], 1),
        "starlette": metadata.version("starlette"),
        "uvicorn": metadata.version("uvicorn"),
        "clients": options.clients,
        "seed": options.seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(options.place or folder)
        try:
            drills = [drill(place, options, token) for token in ("", TOKEN)]
        except Failed as error:
            print(f"FAILED: {error}")
            return 1
    out = pathlib.Path(options.out)
    text = json.dumps({**facts, "drills": drills}, indent=1)
    out.with_suffix(".json").write_text(text + "\n", "utf-8")
    out.with_suffix(".md").write_text(report(facts, drills), "utf-8")
    print(report(facts, drills))
    return 0


if __name__ == "__main__":
    sys.exit(main())
