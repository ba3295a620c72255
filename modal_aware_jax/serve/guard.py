"""Who may ask, how much they may send, and what every answer tells a browser."""

import asyncio
import hashlib
import hmac
import json

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser

COOKIE = "modal_aware_token"
LEAST_TOKEN = 16  # characters
MOST_BYTES = 16 * 2**20  # of a request's body
MOST_HEAD = 64 * 1024  # of a request's target and headers
MOST_AT_ONCE = 512 * 2**20  # of all bodies that are read or answered together
MOST_SECONDS = 30.0  # for a whole body to arrive
LOCAL = ("localhost", "127.0.0.1", "::1")
OPEN = ("/", "/page.js", "/page.css", "/icon.svg", "/login")  # without the token
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' blob:; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Refused(Exception):
    """A request that is answered by a status and a message."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


class Guard:
    """ASGI middleware before everything else.

    - Without a token only a browser or program on this machine asks: the `Host` must be
      this machine's, so that no page of the web reaches it under a name of its own.
    - With a token: `Authorization: Bearer TOKEN`, or the cookie that `/login` set.
    - A page of another origin changes nothing and reads nothing.
    - A head is of at most `MOST_HEAD` bytes.
    - A body is of at most `most_bytes`, and arrives within `most_seconds`; those that
      are here at the same time are of at most `most_at_once` together.

    Args:
      app: what is guarded.
      token: None on loopback alone.
      most_bytes, most_seconds: of a request's body.
      most_at_once: of all bodies together.
    """

    def __init__(
        self,
        app,
        *,
        token: str | None = None,
        most_bytes: int = MOST_BYTES,
        most_seconds: float = MOST_SECONDS,
        most_at_once: int = MOST_AT_ONCE,
    ):
        self.app, self.token = app, token
        self.most_bytes, self.most_seconds = most_bytes, most_seconds
        self.most_at_once, self._here = most_at_once, 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, seen = False, [0]

        async def answer(message):
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, self._limited(receive, seen), answer)
        except Refused as refused:
            if started:
                raise
            await _refuse(refused, answer)
        finally:
            self._here -= seen[0]

    def _check(self, scope):
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in scope["headers"])
        if size > MOST_HEAD:
            raise Refused(431, f"At most {MOST_HEAD:,} bytes of headers are read.")
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.token is None and _name_of(host) not in LOCAL:
            raise Refused(421, "This server answers on this machine: http://localhost.")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused(403, "Another site may not ask.")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            navigates = headers.get("sec-fetch-mode") == "navigate"
            if not (navigates and scope["method"] == "GET" and scope["path"] == "/"):
                raise Refused(403, "Another site may not ask.")
        if self.token is not None and scope["path"] not in OPEN:
            given = headers.get("authorization", "")
            bearer = given[7:] if given[:7].lower() == "bearer " else ""
            if not (_same(bearer, self.token) or _has_cookie(headers, self.token)):
                raise Refused(401, "The token is needed: Authorization: Bearer TOKEN.")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()):
            raise Refused(400, "The content length is no number.")
        if len(length) > 15 or int(length) > self.most_bytes:
            raise Refused(413, self._too_large())

    def _too_large(self):
        return f"At most {self.most_bytes:,} bytes are read."

    def _limited(self, receive, seen):
        """`receive` that stops at too many bytes, or after too long.

        `seen[0]` counts those of this body.
        """
        ends, whole = None, False
        clock = asyncio.get_running_loop().time

        async def limited():
            nonlocal ends, whole
            if whole:  # what comes now is that the client has gone
                return await receive()
            ends = clock() + self.most_seconds if ends is None else ends
            try:
                async with asyncio.timeout_at(ends):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, "The request took too long to arrive.") from None
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                seen[0], self._here = seen[0] + size, self._here + size
                whole = not message.get("more_body", False)
            if seen[0] > self.most_bytes:
                raise Refused(413, self._too_large())
            if self._here > self.most_at_once:
                raise Refused(503, "Too much is sent at once. Try again.")
            return message

        return limited


def cookie_of(token: str) -> str:
    """The value of the cookie that stands for a token."""
    return hmac.new(token.encode(), b"cookie", hashlib.sha256).hexdigest()


def _has_cookie(headers, token):
    found = cookie_parser(headers.get("cookie", "")).get(COOKIE)
    return found is not None and _same(found, cookie_of(token))


def _same(given: str, expected: str) -> bool:
    """Whether two texts are the same, in a time that does not tell how alike."""
    return hmac.compare_digest(given.encode(), expected.encode())


def same_token(given: str, token: str) -> bool:
    """Whether a token that was typed is the right one."""
    return _same(given, token)


def _name_of(host: str) -> str:
    """The name in a `Host` header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


async def _refuse(refused: Refused, send) -> None:
    body = json.dumps({"error": refused.message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what was sent on is not read
    ]
    if refused.status == 503:
        headers.append((b"retry-after", b"1"))
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    start = {"type": "http.response.start", "status": refused.status}
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})
