"""The page's interface: what is found, what is refused, and nothing that is a 500."""

import asyncio
import concurrent.futures
import dataclasses
import io
import json
import random
import re
import threading
import time
import urllib.parse

import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request
from starlette.testclient import TestClient
from tiny_service import (
    COLOURS,
    NASTY,
    collection,
    encoder,
    make_index,
    png,
    service,
)

from modal_aware_jax.retrieval import HammingIndex
from modal_aware_jax.serve import metrics
from modal_aware_jax.serve.app import make_app
from modal_aware_jax.serve.batcher import Batcher, Busy
from modal_aware_jax.serve.guard import HEADERS, Guard, Refused
from modal_aware_jax.serve.live_index import LiveIndex
from modal_aware_jax.serve.memory import GiveBack, _trim
from modal_aware_jax.serve.reading import MOST_JSON, _short_body
from modal_aware_jax.serve.run import check_place, open_socket
from modal_aware_jax.serve.service import Service
from modal_aware_jax.serve.shelf import Shelf

HOME = "http://localhost:8000"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return service(tmp_path_factory.mktemp("served") / "forty.index")


@pytest.fixture(scope="module")
def client(served):
    with TestClient(make_app(served, most_bytes=200_000), base_url=HOME) as client:
        yield client


def ids(response):
    assert response.status_code == 200, response.text
    return [item["id"] for item in response.json()["items"]]


def picture(colour="red", **options):
    return {"image": ("x.png", png(COLOURS[colour], **options), "image/png")}


def black(width, height):
    """A small file of many pixels."""
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def error_of(response, status):
    assert response.status_code == status, (response.status_code, response.text)
    assert response.headers["content-type"] == "application/json"
    return response.json()["error"]


# What is found


def test_words_pictures_and_both(client):
    found = client.post("/search", json={"text": "the Dog!", "k": 5}).json()
    assert found["unknown"] == ["the"]
    assert [item["caption"] for item in found["items"]] == [
        f"dog number {i}" for i in (2, 10, 18, 26, 34)
    ]
    # A picture alone has the colour's bits, and lacks one word's bit.
    reds = client.post("/search", files=picture("red"), data={"k": "14"}).json()
    assert all(item["labels"] == ["red"] for item in reds["items"])
    assert {item["distance"] for item in reds["items"]} == {1}
    (both,) = client.post(
        "/search", files=picture("blue"), data={"text": "cat", "k": "1"}
    ).json()["items"]
    assert (both["caption"], both["labels"], both["distance"]) == (
        "cat number 11",
        ["blue"],
        0,
    )


def test_more_like_this_codes_and_a_beginning(client):
    like = client.post("/search", json={"like": "folder/02.png", "k": 3})
    assert ids(like) == ["folder/26.png", "folder/05.png", "folder/08.png"]
    code = "00000001"  # sea, and no colour
    near = client.post("/search", json={"code": code, "k": 1}).json()["items"][0]
    assert near["caption"].startswith("sea") and near["distance"] == 8
    assert len(ids(client.get("/items?k=7"))) == 7
    status = client.get("/status").json()
    assert status == {"name": "forty", "items": 40, "num_bits": 32, "can_encode": True}


def test_a_picture_is_a_jpeg_of_the_servers_own_making(client):
    item = client.post("/search", json={"like": "folder/00.png"}).json()["items"][0]
    answer = client.get(item["picture"])
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).format == "JPEG"
    assert client.get(item["picture"]).content == answer.content
    for path in ("/picture?id=folder/../00.png", "/picture?id=nothing"):
        assert "no such picture" in error_of(client.get(path), 404)
    assert error_of(client.get("/picture"), 400) == "Name one item: ?id=."


def test_added_items_are_found_kept_and_removed(tmp_path):
    path = tmp_path / "forty.index"
    with TestClient(make_app(service(path)), base_url=HOME) as client:
        added = client.post(
            "/items",
            files=picture("green"),
            data={"text": "my kite", "labels": "toy, mine,", "id": "new/one"},
        )
        assert added.status_code == 201
        assert added.json()["labels"] == ["toy", "mine"]
        again = client.post("/items", json={"text": "kite", "id": "new/one"})
        assert error_of(again, 409) == "There is an item 'new/one' already."
        unnamed = client.post("/items", json={"text": "kite", "labels": ["a"]}).json()
        assert unnamed["picture"] is None
        assert client.get("/status").json()["items"] == 42
        first = client.post(
            "/search", files=picture("green"), data={"text": "kite", "k": "9"}
        )
        assert "new/one" in ids(first)
        assert client.delete("/items?id=folder/07.png").status_code == 200
        assert error_of(client.delete("/items?id=folder/07.png"), 404)
        assert client.get("/picture?id=folder/07.png").status_code == 404
    with TestClient(make_app(service(path)), base_url=HOME) as client:
        first = client.post(
            "/search", files=picture("green"), data={"text": "kite", "k": "40"}
        )
        found = {item["id"]: item for item in first.json()["items"]}
        assert "folder/07.png" not in found and unnamed["id"] in found
        assert found["new/one"]["caption"] == "my kite"
        image = client.get(found["new/one"]["picture"])
        pixel = Image.open(io.BytesIO(image.content)).getpixel((5, 5))
        assert np.abs(np.array(pixel) - COLOURS["green"]).max() < 6
        assert client.delete("/items?id=new%2Fone").status_code == 200
        assert ids(client.get("/items?k=2"))[0] == unnamed["id"]


def test_names_are_never_more_than_text(client):
    found = client.post("/search", json={"like": "folder/14.png", "k": 40}).json()
    (item,) = [item for item in found["items"] if item["id"] == NASTY]
    assert re.fullmatch(r"/picture\?id=[\w%.~-]+", item["picture"])
    assert client.get(item["picture"]).status_code == 200
    captions = [item["caption"] for item in found["items"]]
    assert NASTY in captions
    script = client.get("/page.js").text
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"):
        assert unsafe not in script
    page = client.get("/").text
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    assert not re.search(r"<script(?! src)|\son\w+=|style=", page)


def test_what_the_index_had_already_is_named_whatever_its_form(tmp_path):
    names = ["a\u202fb", "a\u00a0b", "\U0001f469\u200d\U0001f680", "x" * 300]
    pairs = dataclasses.replace(collection(), ids=names + [*range(36)])
    make_index(tmp_path / "odd.index", pairs)
    live = LiveIndex(tmp_path / "odd.index")
    odd = Service(live, Shelf(live, pairs), encoder(pairs))
    with TestClient(make_app(odd), base_url=HOME) as client:
        for name in names:
            assert ids(client.post("/search", json={"like": name, "k": 2}))
            question = "?id=" + urllib.parse.quote(name)
            assert client.get("/picture" + question).status_code == 200
            assert client.delete("/items" + question).status_code == 200
            again = client.post("/items", json={"text": "sea", "id": name})
            assert "An id is 1 to 200 characters" in error_of(again, 400)


def test_ids_that_are_numbers_are_asked_for_as_they_were_answered(tmp_path):
    index = HammingIndex(32)
    index.add(np.arange(4, dtype=np.uint32)[:, None])
    index.save(tmp_path / "numbers.index")
    live = LiveIndex(tmp_path / "numbers.index")
    with TestClient(make_app(Service(live, Shelf(live))), base_url=HOME) as client:
        first = client.post("/search", json={"code": "00000003", "k": 1}).json()
        assert first["items"][0]["id"] == 3
        found = client.post("/search", json={"like": first["items"][0]["id"], "k": 3})
        assert ids(found) == [1, 2, 0]


# What is refused


def test_every_answer_has_a_type_and_the_headers(client):
    answers = [client.get(x) for x in ("/", "/page.js", "/page.css", "/icon.svg")]
    kinds = [answer.headers["content-type"].partition(";")[0] for answer in answers]
    assert kinds == ["text/html", "text/javascript", "text/css", "image/svg+xml"]
    answers += [client.get("/nothing"), client.put("/items"), client.get("/metrics")]
    answers += [client.post("/search", json={}), client.get("/", headers={"host": "x"})]
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    assert "script-src 'self'" in HEADERS["content-security-policy"]
    assert "unsafe" not in HEADERS["content-security-policy"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Give words, a picture, or both"),
        ({"text": "zebra"}, "None of these words"),
        ({"text": 3}, "text is no text"),
        ({"text": "x" * 2001}, "more than 2000 characters"),
        ({"text": "\ud800"}, "holds what is no text"),
        ({"text": "sea", "k": 0}, "k is from 1 to 200"),
        ({"text": "sea", "k": 1e9}, "k is no whole number"),
        ({"text": "sea", "k": True}, "k is no whole number"),
        ({"text": "sea", "other": 1}, "A field is unknown; the known ones are text"),
        ({"text": "sea", "like": "x"}, "Give `like` or `code` alone"),
        ({"image": "x"}, "Send a picture in multipart"),
        ({"code": "12"}, "A code is 1 words of 8 hexadecimal digits"),
        ({"like": True}, "like is no text"),
        ([1], "no JSON object"),
    ],
)
def test_a_wrong_search_is_answered_by_a_reason(client, fields, message):
    body = json.dumps(fields)
    answer = client.post(
        "/search", content=body, headers={"content-type": "application/json"}
    )
    assert message in error_of(answer, 400)


def test_bodies_of_other_kinds(client):
    def send(body, kind, path="/search"):
        return client.post(path, content=body, headers={"content-type": kind})

    assert "application/json or" in error_of(send(b"text=sea", "text/plain"), 415)
    assert "no JSON" in error_of(send(b"[" * 100_000, "application/json"), 400)
    form = "multipart/form-data; boundary=x"
    assert "form cannot be read" in error_of(send(b"nonsense", form), 400)
    part = '--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nsea\r\n'
    twice = (part + part + "--x--\r\n").encode()
    assert "given twice" in error_of(send(twice, form), 400)
    swapped = part.replace('"text"', '"text"; filename="a"') + "--x--\r\n"
    assert "`image` is a file" in error_of(send(swapped.encode(), form), 400)
    assert error_of(client.post("/items", json={"text": " "}), 400)
    assert error_of(client.post("/items", json={"text": "a", "labels": [1]}), 400)
    assert error_of(client.post("/search", json={"like": "unknown"}), 404)


def test_pictures_that_are_none_too_large_or_too_many_bytes(client):
    for content in (b"no picture", png((1, 2, 3), (4, 4)), png((0, 0, 0))[:45]):
        files = {"image": ("a.png", content, "image/png")}
        answer = client.post("/search", files=files)
        assert "The picture cannot be read" in error_of(answer, 400)
    wide = {"image": ("x.png", black(10_000, 4_001), "image/png")}
    assert "exceed the limit of 40,000,000" in error_of(
        client.post("/search", files=wide), 400
    )
    files = {"image": ("a.png", bytes(200_001), "image/png")}
    assert "At most 200,000 bytes" in error_of(client.post("/items", files=files), 413)

    def pieces():
        for _ in range(10):
            yield bytes(30_000)

    answer = client.post(
        "/search", content=pieces(), headers={"content-type": "application/json"}
    )
    assert "At most 200,000 bytes" in error_of(answer, 413)
    answer = client.get("/", headers={"content-length": "-1"})
    assert "is no number" in error_of(answer, 400)


def test_json_and_heads_that_are_too_long(client):
    labels = ["\U0001f600" * 2000] * 50
    longest = json.dumps({"text": "sea", "labels": labels}).encode()
    request = Request({"type": "http", "headers": []}, body_of(longest))
    assert asyncio.run(_short_body(request)) == longest
    request = Request({"type": "http", "headers": []}, body_of(bytes(MOST_JSON + 1)))
    with pytest.raises(Refused, match="At most 2,097,152 bytes of JSON are read"):
        asyncio.run(_short_body(request))
    for many in ({"x": "a" * 65_000, "y": "a" * 600}, {"cookie": "a=b;" * 17_000}):
        answer = client.get("/status", headers=many)
        assert "At most 65,536 bytes of headers" in error_of(answer, 431)
    target = f"/items?k={'1' * 40_000}"
    answer = client.get(target, headers={"x": "a" * 30_000})
    assert "bytes of headers" in error_of(answer, 431)


def body_of(content):
    """A `receive` that gives a body in two parts, then that nobody is there."""
    messages = [
        {"type": "http.request", "body": content[:1000], "more_body": True},
        {"type": "http.request", "body": content[1000:], "more_body": False},
    ]

    async def receive():
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return receive


def test_bodies_that_are_here_together_have_a_limit():
    async def reads(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await asyncio.sleep(0.05)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    guard = Guard(reads, most_at_once=4500)

    async def ask():
        told = []

        async def send(message):
            told.append(message)

        headers = [(b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b""}
        await guard({**scope, "headers": headers}, body_of(bytes(2000)), send)
        return told[0]

    async def several():
        together = await asyncio.gather(*(ask() for _ in range(3)))
        return together, await ask()

    together, later = asyncio.run(several())
    assert sorted(answer["status"] for answer in together) == [200, 200, 503]
    (refused,) = (answer for answer in together if answer["status"] == 503)
    assert (b"retry-after", b"1") in refused["headers"]
    assert later["status"] == 200


def test_who_goes_away_within_a_body_is_no_mistake_of_ours(served, capsys):
    app = make_app(served)

    async def ask(path, kind):
        headers = [(b"host", b"localhost"), (b"content-type", kind)]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        sent = [{"type": "http.request", "body": b'--x\r\n{"', "more_body": True}]
        told = []

        async def receive():
            return sent.pop() if sent else {"type": "http.disconnect"}

        async def send(message):
            told.append(message)

        await app({**scope, "query_string": b"", "root_path": ""}, receive, send)
        return told[0]["status"]

    for path in ("/search", "/items", "/login"):
        for kind in (b"application/json", b"multipart/form-data; boundary=x"):
            assert asyncio.run(ask(path, kind)) == 400
    assert capsys.readouterr().err == ""


def test_memory_is_given_back_once_after_pictures_that_come_together():
    given = []

    async def read():
        memory = GiveBack(lambda: given.append(1), wait=0.05)
        for _ in range(5):
            memory.later()
        assert not given
        await asyncio.sleep(0.2)
        memory.later()
        await asyncio.sleep(0.2)

    asyncio.run(read())
    assert len(given) == 2
    assert Image.core.get_block_size() > 32 * 2**20  # the most that glibc keeps
    _trim()  # there, or left out


def test_only_this_machine_and_the_page_itself_may_ask(client):
    for host in ("evil.example", "localhost.evil.example", "10.0.0.1:8000"):
        assert "on this machine" in error_of(
            client.get("/items", headers={"host": host}), 421
        )
    for host in ("localhost", "127.0.0.1:80", "[::1]:8000", "LOCALHOST"):
        assert client.get("/status", headers={"host": host}).status_code == 200
    for origin in ("http://evil.example", "null", "http://localhost:9999"):
        answer = client.post(
            "/search", json={"text": "sea"}, headers={"origin": origin}
        )
        assert "Another site" in error_of(answer, 403)
    assert ids(client.post("/search", json={"text": "sea"}, headers={"origin": HOME}))
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert error_of(client.get("/picture?id=folder/00.png", headers=headers), 403)
    headers["sec-fetch-mode"] = "navigate"
    assert client.get("/", headers=headers).status_code == 200


def test_with_a_token_nothing_is_told_without_it(tmp_path):
    token = "correct horse battery"
    app = make_app(service(tmp_path / "forty.index"), token=token)
    with TestClient(app, base_url="http://photos.example") as client:
        assert client.get("/").status_code == 200
        for method, path in (
            ("GET", "/items"),
            ("GET", "/status"),
            ("GET", "/metrics"),
            ("GET", "/picture?id=folder/00.png"),
            ("POST", "/search"),
            ("DELETE", "/items?id=folder/00.png"),
            ("GET", "/docs"),
        ):
            answer = client.request(method, path)
            assert "The token is needed" in error_of(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
            wrong = {"authorization": f"Bearer {token}x"}
            assert client.request(method, path, headers=wrong).status_code == 401
        bearer = {"authorization": f"Bearer {token}"}
        assert client.get("/status", headers=bearer).status_code == 200
        assert error_of(client.post("/login", json={"token": "x"}), 401)
        answer = client.post("/login", json={"token": token})
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        assert token not in cookie
        assert client.get("/status").status_code == 200  # by its cookie
        others = f'of another = program; {{"x": [1, 2]}}; {cookie.partition(";")[0]}'
        client.cookies.clear()
        assert client.get("/status", headers={"cookie": others}).status_code == 200
    check_place("127.0.0.1", None)
    check_place("0.0.0.0", token)
    with pytest.raises(ValueError, match="--host=0.0.0.0 lets other machines in"):
        check_place("0.0.0.0", None)
    with pytest.raises(ValueError, match="expected 16 ASCII characters or more, got 5"):
        check_place("127.0.0.1", "short")
    for odd in (f"{token}\n", f" {token}", f"{token}\0", "é" * 20):
        with pytest.raises(ValueError, match="not all of them printable"):
            check_place("127.0.0.1", odd)
    for host, odd in (("127.0.0.1", 65_536), ("a" * 70 + ".x", 0), ("\0", 0)):
        with pytest.raises(ValueError, match="Take a host of this machine"):
            open_socket(host, odd)
    with open_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port={port} cannot be opened"):
            open_socket("127.0.0.1", port)


def mutate(rng, body):
    """A body with a few bytes changed, cut, doubled or moved."""
    body = bytearray(body)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(body) + 1)
        kind = rng.randrange(4)
        if kind == 0 and body:
            body[place % len(body)] = rng.randrange(256)
        elif kind == 1:
            del body[place : place + rng.randint(1, 20)]
        elif kind == 2:
            body[place:place] = rng.randbytes(rng.randint(1, 8))
        else:
            body[place:place] = body[place : place + rng.randint(1, 200)]
    return bytes(body)


def malformed(rng):
    """(method, path, headers, body) of a request that is nearly right."""
    form = (
        b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nsea\r\n--x\r\n'
        b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + png((200, 0, 0)) + b"\r\n--x--\r\n"
    )
    names = ("text", "k", "like", "code", "labels", "id", "token", "image", "x")
    values = ("sea", "", 5, -1, 1.5, None, True, [], {}, ["a"], "\ud800", "a\0", 10**30)
    fields = {rng.choice(names): rng.choice(values) for _ in range(rng.randint(0, 3))}
    body = rng.choice((form, json.dumps(fields).encode(), b"", rng.randbytes(50)))
    if rng.random() < 0.7:
        body = mutate(rng, body)
    kind = rng.choice(
        ("multipart/form-data; boundary=x", "application/json", "text/plain", "é/\xff")
    )
    kind = (
        mutate(rng, kind.encode("latin-1"))
        if rng.random() < 0.2
        else kind.encode("latin-1")
    )
    kind = bytes(letter for letter in kind if letter >= 32 and letter != 127)
    path = rng.choice(("/search", "/items", "/login", "/picture", "/", "/nothing"))
    if rng.random() < 0.3:
        query = mutate(rng, b"id=folder/00.png&k=3").hex()
        query = "".join(f"%{query[i : i + 2]}" for i in range(0, len(query), 2))
        path += f"?id={query}" if rng.random() < 0.5 else f"?k={query}"
    method = rng.choice(("GET", "POST", "POST", "POST", "DELETE", "PUT", "HEAD"))
    return method, path, {"content-type": kind}, body


def fuzz(client, seed, number):
    rng = random.Random(seed)
    seen = set()
    for _ in range(number):
        method, path, headers, body = malformed(rng)
        answer = client.request(method, path, headers=headers, content=body)
        assert answer.status_code < 500, (method, path, headers, body, answer.text)
        seen.add(answer.status_code)
    return seen


def test_malformed_requests_are_never_our_fault(client):
    assert fuzz(client, 0, 150) >= {200, 400, 404, 405, 415}


@pytest.mark.slow
# Starlette leaves the files of a form that is cut short to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ten_thousand_malformed_requests_and_no_growth_of_memory(tmp_path):
    app = make_app(service(tmp_path / "forty.index"), most_bytes=200_000)
    with TestClient(app, base_url=HOME) as client:
        fuzz(client, 1, 2000)  # whatever is loaded on first use
        before = metrics.resident_bytes()
        fuzz(client, 2, 10_000)
        grown = metrics.resident_bytes() - before
    assert grown < 30 * 2**20, f"{grown / 2**20:.0f} MiB"


# Together, counted, on time


def test_what_waits_is_done_together():
    running, sizes = threading.Event(), []

    def run(items):
        running.set()
        time.sleep(0.05)
        sizes.append(len(items))
        return [ValueError(item) if item == 3 else item for item in items]

    async def ask():
        batcher = Batcher(run, largest=4, most=6)
        first = asyncio.create_task(batcher(0))
        await asyncio.to_thread(running.wait)
        others = [asyncio.create_task(batcher(i)) for i in range(1, 7)]
        await asyncio.sleep(0)
        others[5].cancel()  # its asker has gone
        with pytest.raises(Busy):
            await batcher(7)
        results = await asyncio.gather(first, *others, return_exceptions=True)
        await batcher.close()
        return results

    results = asyncio.run(ask())
    assert results[:3] == [0, 1, 2] and results[4:6] == [4, 5]
    assert isinstance(results[3], ValueError)
    assert isinstance(results[6], asyncio.CancelledError)
    assert sizes == [1, 4, 1]


def test_a_failing_batch_is_told_to_all_of_it():
    def fail(items):
        raise RuntimeError("broken")

    async def ask():
        batcher = Batcher(fail, largest=4)
        return await asyncio.gather(batcher(1), batcher(2), return_exceptions=True)

    assert [str(error) for error in asyncio.run(ask())] == ["broken", "broken"]


def test_searches_at_once_find_what_each_asked_for(client):
    def ask(i):
        word = ("sea", "sky", "dog", "cat")[i % 4]
        found = client.post("/search", json={"text": word, "k": 3 + i % 3}).json()
        return word, 3 + i % 3, [item["caption"] for item in found["items"]]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for word, k, captions in pool.map(ask, range(40)):
            assert len(captions) == k
            assert all(caption.startswith(word) for caption in captions)


def test_metrics_are_in_prometheus_text(client):
    before = client.get("/metrics").text
    client.post("/search", json={"text": "sea"})
    client.post("/search", json={})
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    label = r'[a-z_]+="[^"\n]*"'
    line = re.compile(rf"# (HELP|TYPE) .+|[a-z_]+(\{{{label}(,{label})*\}})? [\d.e+-]+")
    assert all(line.fullmatch(row) for row in answer.text.splitlines())

    def value(text, start):
        return sum(
            float(r.split()[-1]) for r in text.splitlines() if r.startswith(start)
        )

    for status in (200, 400):
        name = f'modal_aware_requests_total{{request="POST /search",status="{status}"}}'
        assert value(answer.text, name) == value(before, name) + 1
    name = 'modal_aware_request_seconds_count{request="POST /search"}'
    assert value(answer.text, name) == value(before, name) + 2
    items = client.get("/status").json()["items"]
    assert value(answer.text, "modal_aware_items ") == items
    assert value(answer.text, "process_resident_memory_bytes") > 2**20


def test_a_mistake_of_our_own_is_told_as_such(tmp_path, capsys):
    broken = service(tmp_path / "forty.index")
    broken.encoder.relaxed = lambda batch: np.full((4, 32), np.nan, np.float32)
    with TestClient(make_app(broken), base_url=HOME) as client:
        answer = client.post("/search", json={"text": "sea"})
        assert "The server made a mistake" in error_of(answer, 500)
    assert "not finite" in capsys.readouterr().err
