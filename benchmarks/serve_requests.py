"""Malformed requests to the server, as bytes, by kind.

A kind is a function (random, token) -> `Request`; most are nearly right, as those find
more than noise does.
"""

import functools
import io
import json
import random
import struct
import urllib.parse
import zlib
from typing import NamedTuple

from PIL import Image


class Request(NamedTuple):
    """What is sent over a connection of its own.

    Attributes:
      head: the bytes, or the first of them.
      answers: how many answers must come; 0 where the bytes may be no whole request.
      more: bytes that are sent behind.
    """

    head: bytes
    answers: int = 1
    more: tuple = ()

    @property
    def parts(self) -> tuple:
        """All that is sent, in its order."""
        return (self.head, *self.more)


PATHS = ("/search", "/items", "/login", "/picture", "/status", "/metrics", "/page.js")
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE")
ESCAPES = (
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..\\..\\windows\\win.ini",
    "/etc/passwd",
    "....//....//etc/passwd",
    "%00",
    "0.jpg%00.png",
    "%ff%fe",
    "%c0%ae%c0%ae/",
    "file:///etc/passwd",
    "page.js/../../run.py",
    "%0d%0aSet-Cookie:%20a=b",
    "a" * 5000,
    "%F0%9F%98%80",
    "%ED%A0%80",
)
TEXTS = (
    *("sea", "sky dog", "", " ", "nothing known", "<img src=x onerror=alert(1)>", "\t"),
    *("a\0b", "\ud800", "\U0001f600" * 50, "e\u0301" * 100, "\u202e", "a" * 2001),
    *("sea " * 400, "=cmd|' /C calc'!A0", "'; DROP TABLE items; --", "\r\nX: y"),
    *("%s%n%x", "${jndi:ldap://x}", "{{7*7}}", "../" * 50, "\uffff\ufffe"),
)
NUMBERS = (
    *(0, 1, -1, 3, 200, 201, 10**30, -(10**30), 2**31, 2**63, 1.5, 1e308, -0.0),
    *(float("nan"), float("inf"), float("-inf"), "3", "03", "3.0", "١", "1e3", ""),
    *(None, True, False, [], {}, [3], {"k": 3}, "9" * 5000, "²", " 3 "),
)
VALUES = (*TEXTS, *NUMBERS, [[[]]], ["a"] * 51, {"": ""}, ["\ud800"], [None], [1])
FIELDS = ("text", "k", "like", "code", "labels", "id", "token", "image", "x", "")


def request(
    method: str,
    path: str | bytes,
    body: bytes = b"",
    kind: str | bytes = "application/json",
    *headers: bytes,
    token: str = "",
    answers: int = 1,
) -> Request:
    """A whole request."""
    path = path if isinstance(path, bytes) else path.encode("latin-1", "replace")
    kind = kind if isinstance(kind, bytes) else kind.encode("latin-1", "replace")
    lines = [method.encode() + b" " + path + b" HTTP/1.1", b"Host: localhost"]
    lines += [b"Connection: close", *headers]
    if token:
        lines.append(b"Authorization: Bearer " + token.encode())
    if body or method in ("POST", "PUT", "PATCH"):
        lines += [b"Content-Type: " + kind, b"Content-Length: %d" % len(body)]
    return Request(b"\r\n".join(lines) + b"\r\n\r\n" + body, answers)


def mutate(rng: random.Random, content: bytes, most: int = 6) -> bytes:
    """A few bytes changed, cut, doubled or put in."""
    content = bytearray(content)
    for _ in range(rng.randint(1, most)):
        place, kind = rng.randrange(len(content) + 1), rng.randrange(5)
        if kind == 0 and content:
            content[place % len(content)] = rng.randrange(256)
        elif kind == 1 and content:
            content[place % len(content)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del content[place : place + rng.randint(1, 20)]
        elif kind == 3:
            content[place:place] = rng.randbytes(rng.randint(1, 8))
        else:
            content[place:place] = content[place : place + rng.randint(1, 200)]
    return bytes(content)


def cut(rng: random.Random, content: bytes) -> bytes:
    """The beginning."""
    return content[: rng.randrange(len(content) + 1)]


# Bodies


def json_body(rng: random.Random) -> bytes:
    """JSON of wrong types, too deep, too long, of other encodings, or none."""
    way = rng.randrange(12)
    if way == 0:
        deep = rng.choice((50, 5000, 100_000))
        opened, closed = rng.choice(((b"[", b"]"), (b'{"text":', b"}")))
        return b'{"k":' * (way % 2) + opened * deep + b"1" + closed * deep
    if way == 1:
        return rng.choice(
            (b"", b"null", b"[]", b'"text"', b"5", b"NaN", b"{", b"{}}", b"{'k': 3}")
        )
    if way == 2:
        return b'{"text": "' + rng.randbytes(20).replace(b'"', b"") + b'"}'
    if way == 3:
        twice = json.dumps({"text": rng.choice(TEXTS)})
        return (
            twice.encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-be")))
            if "\ud800" not in twice
            else twice.encode()
        )
    if way == 4:
        digits = b"9" * rng.choice((400, 5000, 200_000))
        return b'{"text": "sea", "k": ' + digits + rng.choice((b"", b"e9")) + b"}"
    if way == 5:
        return b'{"text": "sea", "text": 5, "k": 1, "k": 3}'
    if way == 6:
        return json.dumps({str(i): i for i in range(20_000)}).encode()
    if way == 7:
        return b'{"code": "' + rng.choice((b"0" * 8, b"f" * 7, b"\\u0660" * 8)) + b'"}'
    count = rng.randint(0, 4)
    fields = {rng.choice(FIELDS): rng.choice(VALUES) for _ in range(count)}
    body = json.dumps(fields).encode()
    return mutate(rng, body) if rng.random() < 0.3 else body


def form_body(parts: list[tuple[bytes, bytes]]) -> bytes:
    """A form of (header lines, content)."""
    body = b"".join(b"--x\r\n" + head + b"\r\n\r\n" + c + b"\r\n" for head, c in parts)
    return body + b"--x--\r\n"


def part(name: str, content: bytes, filename: str | None = None) -> tuple:
    """A part of a form."""
    head = b'Content-Disposition: form-data; name="%s"' % name.encode("utf-8", "ignore")
    if filename is not None:
        head += b'; filename="%s"' % filename.encode("utf-8", "ignore")
    return head, content


def broken_form(rng: random.Random) -> bytes:
    """A form with too many, odd, nested, doubled or cut parts."""
    picture = part("image", small_picture("PNG"), rng.choice(("a.png", *ESCAPES)))
    text = part("text", b"sea")
    way = rng.randrange(14)
    if way == 0:
        return form_body([text, picture] * rng.randint(2, 6))
    if way == 1:
        many = rng.choice((11, 500, 5000))
        return form_body([part(f"f{i}", b"") for i in range(many)])
    if way == 2:
        long = b"X-Long: " + b"a" * rng.choice((5000, 200_000))
        return form_body([(text[0] + b"\r\n" + long, b"sea")])
    if way == 3:
        lines = b"\r\n".join(b"X-%d: a" % i for i in range(2000))
        return form_body([(text[0] + b"\r\n" + lines, b"sea")])
    if way == 4:
        return form_body([part("text", b"a" * rng.choice((2001, 70_000, 10**6)))])
    if way == 5:
        return form_body([part("text", rng.randbytes(30)), picture])
    if way == 6:
        names = ("image", "text", "k", "", "a" * 3000, "\xe9", "text\\", 'te"xt')
        name, file = (
            rng.choice(names),
            rng.choice((None, "", "a.txt", "\xff", "a" * 999)),
        )
        return form_body([part(name, small_picture("PNG"), file)])
    if way == 7:
        heads = (
            b"",
            b"Content-Disposition",
            b"Content-Disposition: attachment",
            b"Content-Disposition: form-data",
            b"Content-Disposition: form-data; name",
            b"Content-Disposition: form-data; name*=utf-8''%ff; name=text",
            b'Content-Disposition: form-data; name="text"\r\n folded',
            b'Content-Disposition: form-data; name="text"; name="image"; filename="a"',
            b'Content-Disposition: form-data; name="a"\r\nContent-Type: x; charset=y',
            b"\xff\xfe: \xff",
            b": ",
        )
        return form_body([(rng.choice(heads), b"sea")])
    if way == 8:
        return form_body([part("_charset_", b"utf-7"), part("text", b"+AGE-")])
    if way == 9:
        head = text[0] + b"\r\nContent-Transfer-Encoding: base64"
        return form_body([(head, b"c2Vh")])
    if way == 10:
        inner = form_body([text]).replace(b"--x", b"--y")
        head = b'Content-Disposition: form-data; name="image"\r\n'
        return form_body([(head + b"Content-Type: multipart/mixed; boundary=y", inner)])
    if way == 11:
        return cut(rng, form_body([text, picture]))
    if way == 12:
        ends = (
            b"--x",
            b"--x-",
            b"--x--junk",
            b"x--",
            b"\r\n" * 5000,
            b"--x\r\n" * 3000,
        )
        return form_body([text])[:-7] + rng.choice(ends)
    return mutate(rng, form_body([text, picture]))


@functools.cache
def small_picture(kind: str) -> bytes:
    """A picture that is right."""
    buffer = io.BytesIO()
    image = Image.linear_gradient("L").resize((24, 20)).convert("RGB")
    image.save(buffer, kind, **({"save_all": True} if kind == "GIF" else {}))
    return buffer.getvalue()


def png_of(width: int, height: int, *chunks: tuple[bytes, bytes], data=b"") -> bytes:
    """A PNG file that says so of itself, with these chunks before its data."""

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rest = b"".join(chunk(*each) for each in chunks)
    return (
        b"\x89PNG\r\n\x1a\n" + head + rest + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@functools.cache
def bombs() -> tuple:
    """Small files that would be large, and those of formats that are programs."""
    zeros = zlib.compress(bytes(6000 * 6001), 9)
    much = zlib.compress(bytes(2**26), 9)
    flat = io.BytesIO()
    Image.new("L", (7000, 5700)).save(flat, "PNG")  # just within what is decoded
    wide = io.BytesIO()
    Image.new("1", (60_000, 9)).save(wide, "PNG")
    tiff = io.BytesIO()
    Image.new("1", (8000, 8000)).save(tiff, "TIFF", compression="group4")
    gif = small_picture("GIF")
    return (
        png_of(100_000, 100_000, data=zeros),
        png_of(2**31 - 1, 2**31 - 1),
        png_of(0, 0),
        png_of(6000, 6000, data=zeros),
        png_of(24, 24, data=much),
        png_of(24, 24, (b"zTXt", b"a\0\0" + much), data=zeros),
        png_of(24, 24, (b"iCCP", b"a\0\0" + much), data=zeros),
        png_of(24, 24, (b"iTXt", b"a\0\1\0\0\0" + much), data=zeros),
        png_of(24, 24, (b"eXIf", b"MM\0*" + b"\xff" * 60), data=zeros),
        flat.getvalue(),
        wide.getvalue(),
        tiff.getvalue(),
        gif[:6] + b"\xff\xff\xff\xff" + gif[10:],
        b"BM"
        + struct.pack(
            "<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 30_000, -30_000, 1, 24, *([0] * 6)
        ),
        b"P6 100000 100000 255\n",
        b"P5\n#" + b"a" * 10**6,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(/etc/passwd) run\n",
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        b'<svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text></svg>',
        b"#define im_width 99999\n#define im_height 99999\nstatic char im_bits[] = {\n",
        b"PK\x03\x04" + bytes(200),
        b"\xff\xd8\xff\xe1\xff\xffExif\0\0" + b"\xff" * 70_000,
        b"RIFF\xff\xff\xff\xffWEBPVP8X" + b"\xff" * 40,
        b"8BPS\0\1" + bytes(6) + b"\0\3\0\1\x86\xa0\0\1\x86\xa0\0\x08\0\3" + bytes(99),
        b"\0\0\1\0\xff\xff" + bytes(2000),
        b"",
        b"\0" * 1000,
    )


def picture_bytes(rng: random.Random) -> bytes:
    """A picture that is broken or a bomb."""
    if rng.random() < 0.25:
        return rng.choice(bombs())
    content = small_picture(rng.choice(("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")))
    return cut(rng, content) if rng.random() < 0.3 else mutate(rng, content, 20)


def picture_request(picture: bytes, token: str, path: str = "/search") -> Request:
    """A search by a picture, or an item that is one."""
    body = form_body([part("image", picture, "a.png")])
    return request("POST", path, body, "multipart/form-data; boundary=x", token=token)


# Kinds of requests


def search(rng, token):
    """Searches and changes by JSON: wrong types, depth, encodings, numbers."""
    path = rng.choice(("/search", "/search", "/search", "/items", "/login"))
    kinds = ("application/json",) * 6 + (
        *("application/json; charset=utf-7", "APPLICATION/JSON", "text/json", ""),
        *(
            "application/json;" + ";" * 500,
            "\xff\xfe",
            "application/x-www-form-urlencoded",
        ),
    )
    return request("POST", path, json_body(rng), rng.choice(kinds), token=token)


def form(rng, token):
    """Forms: boundaries, parts and heads of parts that are wrong."""
    kinds = ("multipart/form-data; boundary=x",) * 8 + (
        *("multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed"),
        *('multipart/form-data; boundary="x', "multipart/form-data; boundary=\xff"),
        "multipart/form-data; boundary=x; boundary=y; charset=nonsense",
        "multipart/form-data; boundary=" + "x" * 300,
        "multipart/form-data; charset=utf-7; boundary=x",
    )
    path, body = rng.choice(("/search", "/items")), broken_form(rng)
    return request("POST", path, body, rng.choice(kinds), token=token)


def picture(rng, token):
    """Pictures that are broken, that would be huge, or that are none."""
    path = rng.choice(("/search", "/search", "/items"))
    return picture_request(picture_bytes(rng), token, path)


def add(rng, token):
    """Items with odd ids, labels and words, some of them right."""
    ids = ("", "0.jpg", f"new{rng.randrange(10**6)}", *ESCAPES, *TEXTS, *NUMBERS)
    fields = {"id": rng.choice(ids), "text": rng.choice(("sea dog", *TEXTS))}
    if rng.random() < 0.3:
        fields["labels"] = rng.choice((["a", "b"], "a,b", "," * 60, *VALUES))
    return request("POST", "/items", json.dumps(fields).encode(), token=token)


def remove(rng, token):
    """Removals: none, twice, of what is not there, of what was added."""
    names = [*ESCAPES, *(urllib.parse.quote(t, errors="ignore") for t in TEXTS)]
    names += [f"added-{rng.randrange(200)}", f"new{rng.randrange(10**6)}"]
    query = "&".join(f"id={rng.choice(names)}" for _ in range(rng.choice((0, 1, 1, 2))))
    return request(
        "DELETE", f"/items?{query[:8000]}".encode(errors="ignore"), token=token
    )


def like(rng, token):
    """More like this, and pictures, of ids that are not there or lead elsewhere."""
    name = rng.choice((*ESCAPES, *TEXTS, "0.jpg", 5, None, [], {"a": 1}))
    if rng.random() < 0.5:
        return request(
            "POST", "/search", json.dumps({"like": name}).encode(), token=token
        )
    quoted = name if name in ESCAPES else urllib.parse.quote(str(name), errors="ignore")
    return request("GET", f"/picture?id={quoted}", token=token)


def some(rng, token):
    """The beginning of the collection, of odd numbers, and odd queries."""
    values = [urllib.parse.quote(str(n), errors="ignore") for n in NUMBERS]
    query = rng.choice(
        (
            f"k={rng.choice(values)}",
            "&".join(["k=3"] * 500),
            "k",
            "=3",
            "%6b=3",
            "k=%",
            "k=%zz",
            ";k=3",
            "k[]=3",
            "k=3#x",
            "&" * 3000,
        )
    )
    return request("GET", f"/items?{query}", token=token)


def static(rng, token):
    """Paths that lead out of the folder, and targets of other forms."""
    way = rng.random()
    if way < 0.5:
        prefix = rng.choice(("/", "//", "/page.js/", "/%2f", "/picture/"))
        return request("GET", prefix + rng.choice(ESCAPES), token=token)
    targets = (
        *(b"*", b"localhost:80", b"http://localhost/page.js", b"http://evil.test/"),
        *(b"http://[::1", b"http://localhost:99999/", b"?", b"#", b"/#x", b"/\xff\xfe"),
        *(
            b"/\xc3\xa9",
            b"/ /x",
            b"/%",
            b"/%zz",
            b"/a\0b",
            b"",
            b"//",
            b"///",
            b"/;a=b",
        ),
        *(b"/" + b"a/" * 3000, b"javascript:alert(1)", b"/page.js?" + b"a=b&" * 2000),
    )
    method = rng.choice(("GET", "GET", "CONNECT", "OPTIONS"))
    return request(method, rng.choice(targets), token=token, answers=0)


def method(rng, token):
    """Other methods of every path, with bodies where there should be none."""
    body = rng.choice((b"", b"", json_body(rng)))
    way, path = rng.choice(METHODS), rng.choice((*PATHS, "/", "/nothing"))
    return request(way, path, body, token=token)


def metrics(rng, token):
    """The server's own numbers, asked for with odd headers."""
    headers = rng.sample(
        (
            b"Accept: " + rng.randbytes(20).translate(None, bytes(range(32)) + b"\x7f"),
            b"Accept-Encoding: gzip;q=nan",
            b"Range: bytes=0-,-1,5-3",
            b"If-None-Match: *",
            b"If-Modified-Since: never",
            b"X-Forwarded-For: 1.2.3.4, \xff",
            b"X-HTTP-Method-Override: DELETE",
            b"Cookie: modal_aware_token=" + b"a" * 3000,
            b"Cookie: " + b"a=b; " * 500,
            b"Cookie: =;=;;\x80",
            b"Authorization: Bearer",
            b"Authorization: Basic \xff\xff",
            b"Authorization: Bearer " + b"\xe9" * 20,
            b"Origin: null",
            b"Origin: http://localhost",
            b"Origin: ://localhost",
            b"Sec-Fetch-Site: cross-site",
            b"Sec-Fetch-Mode: navigate",
            b"Content-Length: 5",
        ),
        rng.randint(1, 4),
    )
    body = b"Content-Length: 5" in headers
    made = request("GET", rng.choice(("/metrics", "/status")), b"", "", *headers)
    return made._replace(answers=0) if body else made


def head(rng, token):
    """Request lines and headers with bytes changed, or of other protocols."""
    right = request("POST", "/search", b'{"text": "sea"}', token=token).head
    top, _, body = right.partition(b"\r\n\r\n")
    way = rng.randrange(6)
    if way < 3:
        return Request(mutate(rng, top) + b"\r\n\r\n" + body, 0)
    line = rng.choice(
        (
            *(b"GET / HTTP/0.9", b"GET /", b"GET / HTTP/1.2", b"GET / HTTP/9.9"),
            *(
                b"PRI * HTTP/2.0",
                b"get / http/1.1",
                b"GET  /  HTTP/1.1",
                b" GET / HTTP/1.1",
            ),
            *(b"GET /\tHTTP/1.1", b"G\xcbT / HTTP/1.1", b"A" * 9000 + b" / HTTP/1.1"),
            *(b"GET / HTTP/1.0", b"GET / HTTPS/1.1", b"\0\0\0", b"GET / ICE/1.0"),
        )
    )
    if way == 3:
        return Request(line + b"\r\nHost: localhost\r\n\r\n", 0)
    odd = rng.choice(
        (
            *(b"Host: evil.test", b"Host:", b"Host : localhost", b"Host: localhost:x"),
            *(b"Host: [::1]:80", b"Host: [::1", b"Host: \xff", b"Host: localhost,a"),
            *(b"X\xff: a", b": a", b"X", b"X: a\0b", b"X: a\rb", b" X: a", b"X: a\n b"),
            *(b"Content-Length: 0\r\nContent-Length: 5", b"Content-Length: -5"),
            *(b"Content-Length: 0x5", b"Content-Length: 5, 5", b"Content-Length: \xb2"),
            *(b"Content-Length: " + b"9" * 50, b"Content-Length: 99999999999"),
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            *(b"Transfer-Encoding: nonsense", b"Transfer-Encoding: chunked, chunked"),
            *(b"Transfer-Encoding: identity", b"Transfer-Encoding : chunked"),
            *(b"Connection: " + b"close," * 900, b"Keep-Alive: timeout=-1"),
        )
    )
    start = b"GET /status HTTP/1.1\r\n"
    if way == 4 or not odd.startswith(b"Host"):
        start += b"Host: localhost\r\n"
    return Request(start + odd + b"\r\n\r\n" + b"12345" * (way == 5), 0)


def huge(rng, token):
    """Heads of many or of long headers, and long lines."""
    size = rng.choice((1000, 20_000, 70_000, 300_000, 2_000_000))
    start = b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    way = rng.randrange(4)
    if way == 0:
        return Request(start + b"X: " + b"a" * size + b"\r\n\r\n", 0)
    if way == 1:
        return Request(
            start + b"".join(b"X%d: a\r\n" % i for i in range(size // 8)) + b"\r\n", 0
        )
    if way == 2:
        return Request(
            b"GET /" + b"a" * size + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 0
        )
    return Request(start + b"Cookie: " + b"a=" * (size // 2) + b"\r\n\r\n", 0)


def chunked(rng, token):
    """Bodies in chunks: sizes, ends, extensions and trailers that are wrong."""
    body = rng.choice((b'{"text": "sea"}', json_body(rng)))
    places = sorted(rng.randrange(len(body) + 1) for _ in range(rng.randint(0, 5)))
    edges = [0, *places, len(body)]
    pieces = [body[a:b] for a, b in zip(edges, edges[1:], strict=False) if b > a]
    sent = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    way = rng.randrange(6)
    if way == 0:  # right
        sent, answers = sent + b"0\r\n\r\n", 1
    elif way == 1:  # right, too
        sent, answers = sent + b"0\r\nX: a\r\nContent-Length: 5\r\n\r\n", 0
    elif way == 2:
        sizes = (b"ffffffffffffffff", b"-1", b"g", b"", b" 1", b"0x1", b"1" * 200)
        sent, answers = sent + rng.choice(sizes) + b"\r\na\r\n0\r\n\r\n", 0
    elif way == 3:
        long = b"1;" + b"a=b;" * rng.choice((10, 30_000))
        sent, answers = sent + long + b"\r\n \r\n0\r\n\r\n", 0
    elif way == 4:
        sent, answers = cut(rng, sent), 0
    else:
        sent, answers = mutate(rng, sent + b"0\r\n\r\n"), 0
    lines = b"POST /search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if token:
        lines += b"Authorization: Bearer " + token.encode() + b"\r\n"
    lines += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Request(lines + sent, answers)


def length(rng, token):
    """Bodies cut short, and longer or shorter than they say."""
    made = rng.choice((search, form, picture))(rng, token).head
    top, _, body = made.partition(b"\r\n\r\n")
    if rng.random() < 0.6:
        return Request(cut(rng, made), 0)
    said = rng.choice((0, 1, len(body) // 2, len(body) + 1, 2**24, 2**24 + 1, 2**40))
    top = top.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % said)
    return Request(top + b"\r\n\r\n" + body, 0)


def slices(rng, token):
    """A request in many small pieces, each sent on its own."""
    made = rng.choice((search, form, like))(rng, token).head
    places = sorted(rng.randrange(1, len(made)) for _ in range(20))
    edges = [0, *places, len(made)]
    pieces = [made[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    return Request(pieces[0], 1, tuple(pieces[1:]))


def pipeline(rng, token):
    """Several requests behind each other on one connection."""
    kinds, count = (search, like, some, add), rng.randint(2, 20)
    made = [rng.choice(kinds)(rng, token).head for _ in range(count)]
    kept = [one.replace(b"Connection: close\r\n", b"", 1) for one in made[:-1]]
    if rng.random() < 0.3:
        return Request(b"".join(kept) + rng.randbytes(30), 0)
    return Request(b"".join(kept) + made[-1], 0)


def upgrade(rng, token):
    """Other protocols asked for, and bodies that wait to be asked for."""
    headers = rng.choice(
        (
            b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: A",
            b"Upgrade: \xff\r\nConnection: upgrade",
            b"Expect: 100-continue\r\nContent-Length: 100",
            b"Expect: nonsense\r\nContent-Length: 2\r\n\r\n{}",
            b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
            b"TE: trailers, deflate;q=0.5\r\nContent-Length: 0",
        )
    )
    way = rng.choice(
        (b"GET /status", b"POST /search", b"GET /", b"CONNECT localhost:1")
    )
    start = way + b" HTTP/1.1\r\nHost: localhost\r\n"
    kind = b"Content-Type: application/json\r\n"
    more = b"" if b"\r\n\r\n" in headers else b"\r\n\r\n"
    return Request(
        start + kind + headers + more + rng.randbytes(rng.choice((0, 50))), 0
    )


def login(rng, token):
    """Tokens that are wrong, of wrong types, or brought in odd ways."""
    tokens = ("", token[:-1], f"{token} ", token.upper(), "é" * 20, *VALUES)
    given = rng.choice(tokens)
    if rng.random() < 0.5:
        return request("POST", "/login", json.dumps({"token": given}).encode())
    text = (
        str(given).encode("utf-8", "ignore").translate(None, bytes(range(32)) + b"\x7f")
    )
    name = rng.choice((b"Authorization: Bearer ", b"Cookie: modal_aware_token="))
    return request("GET", "/status", b"", "", name + text[:3000])


def noise(rng, token):
    """What is no HTTP at all."""
    return Request(
        rng.choice(
            (
                rng.randbytes(rng.choice((1, 50, 5000))),
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(400),
                b"\r\n" * rng.choice((1, 5000)),
                b"\n",
                b"SSH-2.0-OpenSSH_9.6\r\n",
                b"\x05\x01\x00",
                b"HELO localhost\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            )
        ),
        0,
    )


KINDS = {
    made.__name__: made
    for made in (
        *(
            search,
            form,
            picture,
            add,
            remove,
            like,
            some,
            static,
            method,
            metrics,
            head,
        ),
        *(huge, chunked, length, slices, pipeline, upgrade, login, noise),
    )
}
