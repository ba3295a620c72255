"""How many searches a second a server answers, and how long each takes.

    python benchmarks/serve.py                       # about four minutes
    python benchmarks/serve.py --items=2000 --clients=4 --seconds=1 --size=32

A server of `--items` random codes and an untrained MobileNetV2 network runs in a
process of its own; `--clients` connections of another ask it without a pause, on the
same cores.
`code` searches by codes, `like` for what is like an item, `words` and `image` through
the encoder, `add` adds pictures that are on the disk when they are acknowledged. Beside
it the encoder's own rate, alone in its process: batches of 32 pixels that are there
already; the server decodes JPEG files of 256 pixels, too. Writes OUT.json and OUT.md.
"""

import argparse
import asyncio
import importlib.util
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from importlib import metadata

import jax
import numpy as np
from alternate import commit, num_cores, processor, table
from flax import nnx
from PIL import Image

from modal_aware_jax.backbones.mobilenet import MobileNetV2
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.text_vectors import BagOfWords
from modal_aware_jax.models.multimodal_hashing import MultimodalHashing
from modal_aware_jax.retrieval.index import HammingIndex
from modal_aware_jax.serve.encoder import Query, QueryEncoder
from modal_aware_jax.serve.live_index import LiveIndex
from modal_aware_jax.serve.run import open_socket, serve
from modal_aware_jax.serve.service import Service
from modal_aware_jax.serve.shelf import Shelf

HERE = pathlib.Path(__file__).parent
WORDS = tuple(f"word{i}" for i in range(500))
KINDS = ("code", "like", "words", "image", "add")
ENCODED = {"words", "image", "add"}
BITS, K = 64, 10


def encoder_of(size: int) -> QueryEncoder:
    """A network of MobileNetV2 and a bag of words, with its first weights."""
    rngs = nnx.Rngs(0)
    model = MultimodalHashing(MobileNetV2(rngs=rngs), len(WORDS), BITS, rngs=rngs)
    graphdef, state = nnx.split(model)

    @jax.jit
    def relaxed(state, images, text):
        images = images.astype(np.float32) / 127.5 - 1
        return nnx.merge(graphdef, state)(images, text, train=False)

    words = Collection("", [], [], np.zeros((0, 500)), [], np.zeros((0, 0)), WORDS, ())
    return QueryEncoder(
        lambda batch: relaxed(state, batch["image"], batch["text"]),
        BagOfWords(words),
        image_size=size,
        num_bits=BITS,
    )


def serve_index(path: str, size: int) -> None:
    """Serves until it is stopped; without an encoder where the size is 0."""
    with open_socket("127.0.0.1", 0) as listening:
        live, encoder = LiveIndex(path), encoder_of(size) if size else None
        if encoder is not None:
            encoder.warm_up()
        serve(Service(live, Shelf(live), encoder, name="benchmark"), listening)


def encoder_rate(size: int, seconds: float) -> float:
    """Images per second of the encoder alone, batches of 32."""
    encoder, rng = encoder_of(size), np.random.default_rng(0)
    queries = [
        Query(rng.integers(0, 256, (size, size, 3), np.uint8), ["word1"])
        for _ in range(32)
    ]
    encoder(queries)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        encoder(queries)
        count += 32
    return count / (time.perf_counter() - started)


def picture(rng) -> bytes:
    """A JPEG of 256 pixels with something to decode."""
    small = rng.integers(0, 256, (32, 32, 3), np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def requests_of(kind: str, options) -> list[bytes]:
    """Some requests of a kind, ready to be sent."""
    rng = np.random.default_rng(1)
    made = []
    for number in range(64):
        path, content = "/search", "application/json"
        if kind == "code":
            body = {"code": rng.bytes(BITS // 8).hex(), "k": K}
        elif kind == "like":
            body = {"like": str(rng.integers(options.items)), "k": K}
        elif kind == "words":
            body = {"text": " ".join(rng.choice(WORDS, 3)), "k": K}
        else:
            path = "/items" if kind == "add" else path
            content = "multipart/form-data; boundary=x"
            fields = {"text": WORDS[number]} | ({"k": K} if kind == "image" else {})
            body = b"".join(
                b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
                % (name.encode(), str(value).encode())
                for name, value in fields.items()
            )
            body += b'--x\r\nContent-Disposition: form-data; name="image"; '
            body += b'filename="a.jpg"\r\n\r\n' + picture(rng) + b"\r\n--x--\r\n"
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far; NaN where the system does not tell."""
    path = pathlib.Path(f"/proc/{pid}/stat")
    if not path.exists():
        return float("nan")
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask(port: int, requests: list[bytes], options) -> tuple[list[float], int]:
    """Seconds of each request after a second to warm up; and how many there were."""
    ends = time.perf_counter() + options.seconds + 1
    seconds: list[float] = []
    asked = 0

    async def client(number):
        nonlocal asked
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        place = number
        while (started := time.perf_counter()) < ends:
            writer.write(requests[place % len(requests)])
            place += 1
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head)[1])
            body = await reader.readexactly(length)
            if head[9:10] != b"2":
                raise RuntimeError(f"{head.decode()}{body.decode()}")
            asked += 1
            if started > ends - options.seconds:
                seconds.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(client(i) for i in range(options.clients)))
    return seconds, asked


def measure(options) -> dict:
    """A row for each kind of request, and facts of the server."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "codes.index"
        index = HammingIndex(BITS)
        rng = np.random.default_rng(0)
        index.add(rng.integers(0, 2**32, (options.items, BITS // 32), np.uint32))
        index.save(path)
        encodes = ENCODED & set(options.kinds.split(","))
        flags = [f"--serve={path}", f"--size={options.size if encodes else 0}"]
        command = [sys.executable, __file__, *flags]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            port = int(re.search(r":(\d+)/", server.stdout.readline())[1])
            rows = []
            for kind in options.kinds.split(","):
                requests, before = requests_of(kind, options), cpu_seconds(server.pid)
                took, asked = asyncio.run(ask(port, requests, options))
                p50, p99 = np.percentile(took, (50, 99)) * 1000
                rows.append(
                    {
                        "asked": kind,
                        "a second": len(took) / options.seconds,
                        "p50 ms": p50,
                        "p99 ms": p99,
                        "CPU ms": 1000 * (cpu_seconds(server.pid) - before) / asked,
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
            numbers = asyncio.run(metrics_of(port))
        finally:
            server.kill()
            server.wait()
            server.stdout.close()
    memory = float(re.search(r"^process_resident\S+ (\S+)", numbers, re.M)[1])
    rate = encoder_rate(options.size, options.seconds) if encodes else None
    for row in rows:
        if row["asked"] in ENCODED:
            row["of the encoder's own rate"] = row["a second"] / rate
    return {"rows": rows, "encoder": rate, "memory MiB": memory / 2**20}


async def metrics_of(port: int) -> str:
    """The server's own numbers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    text = (await reader.read()).decode()
    writer.close()
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each kind")
    parser.add_argument("--size", type=int, default=128, help="pixels for the model")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--out", default=str(HERE / "results" / "serve"))
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_index(options.serve, options.size)
        return
    facts = {
        "commit": commit(),
        "device": processor(),
        "cores": num_cores(),
        "load before": round(os.getloadavg()[0], 1),
        "jax": jax.__version__,
        "starlette": metadata.version("starlette"),
        "uvicorn": metadata.version("uvicorn"),
        "parser": "httptools" if importlib.util.find_spec("httptools") else "h11",
        "items": options.items,
        "clients": options.clients,
        "seconds": options.seconds,
        "image size": options.size,
    }
    found = measure(options)
    out = pathlib.Path(options.out)
    text = json.dumps({**facts, **found}, indent=1)
    out.with_suffix(".json").write_text(text + "\n", "utf-8")
    told = ", ".join(f"{name} {value}" for name, value in facts.items())
    lines = [
        f"# Server\n\n{told}.\n",
        table(found["rows"]),
        "CPU ms: processor time of the server a request, which other work on the "
        "machine hardly changes.\n",
        f"The encoder alone, batches of 32: {found['encoder'] or 0:.1f} images a "
        f"second. Memory of the server at the end: {found['memory MiB']:.0f} MiB.\n",
        "Made by `benchmarks/serve.py`.\n",
    ]
    out.with_suffix(".md").write_text("\n".join(lines), "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
