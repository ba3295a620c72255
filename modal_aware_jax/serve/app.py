"""The page and the JSON interface, as an ASGI application.

GET  /            the page, with /page.js, /page.css and /icon.svg
GET  /status      name, number of items, bits, whether words and pictures can be asked
GET  /items       some of the items, ?k= many
POST /search      {"text": ..., "k": ...}, {"like": ID} or {"code": HEX}; or a form with
                  text and a file `image` -> {"items": [...], "unknown": [...]}
POST /items       a form or JSON with text, image, labels, id -> 201, the item
DELETE /items     ?id=
GET  /picture     ?id= -> JPEG
GET  /metrics     Prometheus's text format
POST /login       {"token": ...} sets a cookie for the page

A mistake is answered by its status and {"error": ...}.
"""

import contextlib
import pathlib
import time
import traceback
import urllib.parse

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from modal_aware_jax.data.stored_image import ImageProblem
from modal_aware_jax.serve import metrics, reading
from modal_aware_jax.serve.batcher import Busy
from modal_aware_jax.serve.guard import (
    COOKIE,
    MOST_BYTES,
    Guard,
    Refused,
    cookie_of,
    same_token,
)
from modal_aware_jax.serve.live_index import Conflict, Missing, Mistake
from modal_aware_jax.serve.service import Service

FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
PLACE = pathlib.Path(__file__).with_name("page")


def make_app(
    service: Service, *, token: str | None = None, most_bytes: int = MOST_BYTES
) -> Starlette:
    """The application over a service, which it closes when it ends.

    Args:
      service: what is searched.
      token: that a request must bring; None: none, and only this machine may ask.
      most_bytes: of a request's body.
    """
    asked = metrics.Counter("modal_aware_requests_total", "Requests, by answer.")
    seconds = metrics.Histogram(
        "modal_aware_request_seconds", "Time to answer.", metrics.SECONDS
    )
    memory = metrics.Gauge(
        "process_resident_memory_bytes", "Memory in use.", metrics.resident_bytes
    )
    numbers = [asked, seconds, *service.metrics, memory]

    def timed(path, answer):
        async def endpoint(request: Request) -> Response:
            started, status = time.perf_counter(), 500
            try:
                response = await answer(request)
                status = response.status_code
                return response
            except Exception as error:
                response = _answer_to(error)
                status = response.status_code
                return response
            finally:
                passed = time.perf_counter() - started
                where = f"{request.method} {path}"
                seconds.add(passed, request=where)
                asked.add(request=where, status=str(status))

        return endpoint

    def route(path, answer, *methods):
        return Route(path, timed(path, answer), methods=methods)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        await service.close()

    interface = _Interface(service, token, numbers)
    return Starlette(
        routes=[
            *(route(path, _file(path), "GET") for path in FILES),
            route("/status", interface.status, "GET"),
            route("/items", interface.some, "GET"),
            route("/search", interface.search, "POST"),
            route("/items", interface.add, "POST"),
            route("/items", interface.remove, "DELETE"),
            route("/picture", interface.picture, "GET"),
            route("/metrics", interface.metrics, "GET"),
            route("/login", interface.login, "POST"),
        ],
        middleware=[Middleware(Guard, token=token, most_bytes=most_bytes)],
        exception_handlers={HTTPException: _not_found},
        lifespan=lifespan,
    )


class _Interface:
    """What the routes answer."""

    def __init__(self, service, token, numbers):
        self.service, self.token, self.numbers = service, token, numbers

    async def status(self, request):
        return JSONResponse(
            {
                "name": self.service.name,
                "items": len(self.service.index),
                "num_bits": self.service.index.num_bits,
                "can_encode": self.service.encoder is not None,
            }
        )

    async def some(self, request):
        k = reading.number_of(request.query_params.get("k", reading.FEW))
        return JSONResponse(_with_pictures(await self.service.some(k)))

    async def search(self, request):
        fields = await reading.fields_of(
            request, ("text", "image", "like", "code", "k")
        )
        k = fields.get("k", reading.FEW)
        if "like" in fields or "code" in fields:
            if len(fields.keys() - {"k"}) > 1:
                raise Refused(400, "Give `like` or `code` alone.")
            if "like" in fields:
                found = await self.service.search_like(fields["like"], k)
            else:
                code = reading.code_of(fields["code"], self.service.index.num_bits)
                found = await self.service.search_code(code, k)
        else:
            found = await self.service.search(
                text=fields.get("text", ""), image=fields.get("image"), k=k
            )
        return JSONResponse(_with_pictures(found))

    async def add(self, request):
        fields = await reading.fields_of(request, ("text", "image", "labels", "id"))
        item = await self.service.add(
            text=fields.get("text", ""),
            image=fields.get("image"),
            labels=fields.get("labels"),
            name=fields.get("id", ""),
        )
        return JSONResponse(_with_picture(item), 201)

    async def remove(self, request):
        name = _id_of(request)
        await self.service.remove(name)
        return JSONResponse({"removed": name})

    async def picture(self, request):
        picture = await self.service.picture(_id_of(request))
        if picture is None:
            raise Refused(404, "There is no such picture.")
        return Response(picture, media_type="image/jpeg")

    async def metrics(self, request):
        text = metrics.render(self.numbers)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def login(self, request):
        fields = await reading.fields_of(request, ("token",))
        if self.token is None or not same_token(fields.get("token", ""), self.token):
            raise Refused(401, "The token is not this one.")
        response = JSONResponse({"status": "logged in"})
        response.set_cookie(
            COOKIE, cookie_of(self.token), httponly=True, samesite="strict"
        )
        return response


def _file(path):
    name, kind = FILES[path]
    content = (PLACE / name).read_bytes()

    async def answer(request):
        return Response(content, headers={"content-type": kind})

    return answer


def _id_of(request):
    names = request.query_params.getlist("id")
    if len(names) != 1:
        raise Refused(400, "Name one item: ?id=.")
    return reading.text_of("id", names[0])


def _with_picture(item):
    """The item with where its picture is; its id is escaped, whatever it holds."""
    shown = {**item, "picture": None}
    if shown.pop("has_picture"):
        name = urllib.parse.quote(str(item["id"]), safe="")
        shown["picture"] = f"/picture?id={name}"
    return shown


def _with_pictures(found):
    return {**found, "items": [_with_picture(item) for item in found["items"]]}


def _answer_to(error: Exception) -> Response:
    """The answer to a mistake of whoever asks, or of our own, told on stderr."""
    headers = {}
    if isinstance(error, Refused):
        status, message = error.status, error.message
        if status in (408, 413, 503):
            headers["connection"] = "close"  # the rest is not read
    elif isinstance(error, ClientDisconnect):
        status, message = 400, "The request ended too early."  # nobody reads it
    elif isinstance(error, Busy):
        status, message = 503, "Too much is asked at once. Try again."
        headers["retry-after"] = "1"
    elif isinstance(error, Mistake):
        status = {Conflict: 409, Missing: 404}.get(type(error), 400)
        message = str(error)
    elif isinstance(error, ImageProblem):
        status, message = 400, f"The picture cannot be read: {error}."
    elif isinstance(error, OSError):
        status, message = 507, f"It could not be written: {error.strerror}."
    else:
        traceback.print_exception(error)
        status, message = 500, "The server made a mistake; its output says which."
    return JSONResponse({"error": message}, status, headers)


async def _not_found(request, error):
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
