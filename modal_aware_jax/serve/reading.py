"""What a request asks for, checked: everything else is refused with a reason."""

import json
from typing import Any

import numpy as np
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from modal_aware_jax.serve.guard import MOST_BYTES, Refused
from modal_aware_jax.serve.service import MOST_RESULTS

MOST_TEXT = 2000  # characters
FEW = 30  # results where nothing else is asked for
MOST_LABELS = 50
MOST_JSON = 2 * 2**20  # bytes: 50 labels and words of 2,000 characters, all escaped

TEXTS = ("text", "like", "id", "code", "labels", "token")


async def fields_of(request: Request, known: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a body: JSON, or a form with a file named `image`.

    Args:
      request: of which the body is read.
      known: names of fields; another one is refused.

    Returns:
      Texts without surrogates, `k` as a whole number, `image` as bytes; an empty file
      is none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        fields = _from_json(await _short_body(request))
    elif kind == "multipart/form-data":
        fields = await _from_form(request)
    else:
        raise Refused(415, "Send application/json or multipart/form-data.")
    strange = [name for name in fields if name not in known]
    if strange:
        raise Refused(
            400, f"A field is unknown; the known ones are {', '.join(known)}."
        )
    return {name: _checked(name, value) for name, value in fields.items()}


async def _short_body(request):
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_JSON:
            raise Refused(413, f"At most {MOST_JSON:,} bytes of JSON are read.")
    return bytes(body)


def _from_json(body):
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "The body is no JSON.") from None
    if not isinstance(fields, dict):
        raise Refused(400, "The body is no JSON object.")
    if "image" in fields:
        raise Refused(400, "Send a picture in multipart/form-data.")
    return fields


async def _from_form(request):
    try:
        async with request.form(
            max_files=1, max_fields=10, max_part_size=64 * 1024
        ) as form:
            fields = {}
            for name, value in form.multi_items():
                if name in fields:
                    raise Refused(400, "A field is given twice.")
                if isinstance(value, UploadFile) != (name == "image"):
                    raise Refused(400, "`image` is a file, and nothing else is.")
                is_file = isinstance(value, UploadFile)
                fields[name] = await value.read(MOST_BYTES) if is_file else value
            return fields
    except (MultiPartException, HTTPException, ValueError, LookupError) as error:
        reason = getattr(error, "detail", "")
        raise Refused(400, f"The form cannot be read. {reason}".strip()) from None


def _checked(name, value):
    if name == "image":
        return value or None
    if name == "k":
        return number_of(value)
    if name == "labels" and isinstance(value, list):
        return labels_of(value)
    if name in ("like", "id") and type(value) is int:  # as answers have such ids
        value = str(value)
    if not isinstance(value, str):
        raise Refused(400, f"The field {name} is no text.")
    text = text_of(name, value)
    return labels_of(text.split(",")) if name == "labels" else text


def text_of(name: str, value: str) -> str:
    """A text that can be kept and sent: no surrogates, no NUL, not too long."""
    if len(value) > MOST_TEXT:
        raise Refused(400, f"The field {name} has more than {MOST_TEXT} characters.")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Refused(400, f"The field {name} holds what is no text.")
    return value


def number_of(value) -> int:
    """How many results: a whole number, from 1 to 200."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:9])
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(400, "The field k is no whole number.")
    if not 1 <= value <= MOST_RESULTS:
        raise Refused(400, f"The field k is from 1 to {MOST_RESULTS}.")
    return value


def labels_of(values: list) -> list[str]:
    """Labels without spaces around, empty ones left out."""
    if len(values) > MOST_LABELS:
        raise Refused(400, f"At most {MOST_LABELS} labels are kept.")
    if not all(isinstance(value, str) for value in values):
        raise Refused(400, "The field labels is no list of texts.")
    labels = [text_of("labels", value).strip() for value in values]
    return [label for label in labels if label]


def code_of(text: str, num_bits: int) -> np.ndarray:
    """A packed code from hexadecimal words, first word first -> uint32 [Wd].

    >>> code_of("0000000f00000001", 64).tolist()
    [15, 1]
    """
    words = -(-num_bits // 32)
    hexadecimal = all(letter in "0123456789abcdefABCDEF" for letter in text)
    if len(text) != 8 * words or not hexadecimal:
        raise Refused(
            400, f"A code is {words} words of 8 hexadecimal digits each, one text."
        )
    return np.array([int(text[i : i + 8], 16) for i in range(0, len(text), 8)], "u4")
