"""Bodies and queries -> fields, files and JSON values, with every cap applied before that.

Flask's own parsers stay unused: their limits differ between patch releases of Werkzeug, and a few
megabytes of `a&a&a` or `[[],[],` would cost them seconds and hundreds of megabytes.
"""

import base64
import binascii
import io
import json
import urllib.parse
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser

from imagesieve.serving.errors import (
    BadBase64Error,
    BodyTooLargeError,
    MalformedBodyError,
    TooManyFieldsError,
)

LEGACY_FIELD = "imageBase64String"
TEXT_FIELDS = (LEGACY_FIELD, "image")

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
JSON = "application/json"

_MAX_FIELDS = 16  # urlencoded fields, multipart parts, and fields of a query
_MAX_PART_HEADER_BYTES = 16_384  # of one multipart part; long file names fit
_MAX_ESCAPES = 1000  # percent escapes in one field, those of Base64's own signs aside
_MAX_OPTION_BYTES = 1000  # of a form field without an image, before its own check
_MAX_MARKS = 64  # of each of [ { , and : in a JSON body
_MARKS_PER_IMAGE = 8  # more of them in the JSON of several images; a data URI has some too

# Spaces were plus signs before a form decoder saw them; - and _ are the URL-safe alphabet.
_REPAIRS = bytes.maketrans(b" -_", b"++/")
_LINE_BREAKS = b"\r\n\t"

# A white image is one long row of slashes in Base64, and each of them may come as %2F: the
# escapes of Base64's own signs are undone in bulk, as millions one by one would take seconds.
_BASE64_ESCAPES = {code: urllib.parse.unquote_to_bytes(code) for code in (
    b"%2B", b"%2F", b"%3D", b"%2D", b"%5F", b"%20", b"%0D", b"%0A")}  # fmt: skip


class Form(NamedTuple):
    """What a body holds, in the order sent: (name, value) of each field, (name, bytes) of files."""

    fields: Sequence[tuple[str, Any]] = ()
    files: Sequence[tuple[str, bytes]] = ()


def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the whole body; raise BodyTooLargeError beyond `max_bytes`, and read no further."""
    request.max_content_length = max_bytes
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge as error:
        raise BodyTooLargeError(f"The request has more than {max_bytes:,} bytes.") from error


def parse_body(request: Request, body: bytes, num_images: int = 0) -> Form:
    """Take a form or a JSON object apart, which may hold `num_images` besides other fields.

    Raises:
        TooManyFieldsError: it has more parts.
        MalformedBodyError: it is not what the media type says.
    """
    if request.mimetype == URLENCODED:
        return Form(parse_form(body))
    if request.mimetype == MULTIPART:
        boundary = request.mimetype_params.get("boundary", "")
        return _parse_multipart(boundary, body, _MAX_FIELDS + num_images)
    return Form(_parse_json(body, _MAX_MARKS + _MARKS_PER_IMAGE * num_images))


def decode_base64(text: str) -> bytes:
    """Decode Base64 as it arrives from the world, then strictly.

    Undone first: a `data:...,` prefix, line breaks, plus signs that became spaces, the URL-safe
    alphabet, missing padding. Nothing that is not Base64 is skipped.

    Raises:
        BadBase64Error: it still is not Base64.
    """
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    refusal = "The image is not Base64 text: {}."
    try:
        digits = text.encode("ascii").translate(_REPAIRS, delete=_LINE_BREAKS)
    except UnicodeEncodeError as error:
        reason = "it has characters outside of ASCII (a file part needs a file name)"
        raise BadBase64Error(refusal.format(reason)) from error
    bare = digits.rstrip(b"=")
    if len(digits) - len(bare) > 2:
        raise BadBase64Error(refusal.format("it ends with more than two = signs"))
    try:
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except binascii.Error as error:
        raise BadBase64Error(refusal.format(error)) from error


def parse_form(encoded: bytes) -> list[tuple[str, str]]:
    """Take apart an urlencoded form or query; fields are counted before anything is allocated.

    Plus signs of a Base64 field stay plus signs, whether the caller escaped them or not. Raises as
    `parse_body` does.
    """
    if encoded.count(b"&") >= _MAX_FIELDS:
        raise TooManyFieldsError(f"The form has more than {_MAX_FIELDS} fields.")
    pairs = (pair.partition(b"=") for pair in encoded.split(b"&") if pair)
    return [_parse_pair(name, value) for name, _, value in pairs]


def _parse_pair(raw_name: bytes, raw_value: bytes) -> tuple[str, str]:
    name = _unquote(raw_name)
    if name not in TEXT_FIELDS:
        return name, _unquote(raw_value)
    value = raw_value
    for escape, sign in _BASE64_ESCAPES.items():
        value = value.replace(escape, sign).replace(escape.lower(), sign)
    if value.count(b"%") > _MAX_ESCAPES:
        raise MalformedBodyError(f"The field {name} is full of percent escapes: send Base64.")
    return name, urllib.parse.unquote_to_bytes(value).decode("utf-8", "replace")


def _unquote(raw: bytes) -> str:
    if len(raw) > _MAX_OPTION_BYTES:
        raise MalformedBodyError(
            f"A form field without an image has more than {_MAX_OPTION_BYTES:,} characters."
        )
    return urllib.parse.unquote_plus(raw.decode("utf-8", "replace"))


def _parse_json(body: bytes, max_marks: int) -> list[tuple[str, Any]]:
    """Return the members of an object in strict UTF-8 JSON: no NaN, no name twice."""
    # Each list, object or value costs a hundred bytes or more; Base64 has none of these signs.
    if any(_has_more(body, mark, max_marks) for mark in (b"[", b"{", b",", b":")):
        raise MalformedBodyError("The JSON body has far more values than a request needs.")
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_constant=_no_constant,
            parse_float=_number,
            object_pairs_hook=_unique,
        )
        if rb"\u" in body:  # which may be half a character, that no answer could repeat
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise MalformedBodyError(f"The body is not the JSON it says it is: {error}.") from error
    if not isinstance(value, dict):
        raise MalformedBodyError("The JSON body must be an object.")
    return list(value.items())


def _has_more(body: bytes, mark: bytes, most: int) -> bool:
    """Return whether a sign is there more often than allowed; `count` takes ten times as long."""
    start = -1
    for _ in range(most + 1):
        start = body.find(mark, start + 1)
        if start < 0:
            return False
    return True


def _number(text: str) -> int | float:
    """Return 2.0 as 2: JSON has one kind of number."""
    number = float(text)
    return int(number) if number.is_integer() else number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name is there twice")
    return dict(pairs)


def _parse_multipart(boundary: str, body: bytes, max_parts: int) -> Form:
    if not boundary or not boundary.isascii():
        raise MalformedBodyError("The Content-Type of the multipart body names no boundary.")
    _check_parts(b"\r\n" + body, b"\r\n--" + boundary.encode(), max_parts)
    parser = MultiPartParser(
        stream_factory=lambda *_args, **_kwargs: io.BytesIO(),
        max_form_memory_size=len(body),
        max_form_parts=max_parts,
    )
    try:
        fields, files = parser.parse(io.BytesIO(body), boundary.encode(), len(body))
    except RequestEntityTooLarge as error:
        raise TooManyFieldsError(f"The form has more than {max_parts} parts.") from error
    except (ValueError, KeyError) as error:
        raise MalformedBodyError(f"The multipart body cannot be read: {error}.") from error
    return Form(
        [(name or "", value) for name, value in fields.items(multi=True)],
        [(name or "", file.read()) for name, file in files.items(multi=True)],
    )


def _check_parts(body: bytes, delimiter: bytes, max_parts: int) -> None:
    """Refuse many parts, long part headers and a long preamble; Werkzeug has no cap for these."""
    if body.count(delimiter) > max_parts + 1:  # one more closes the last part
        raise TooManyFieldsError(f"The form has more than {max_parts} parts.")
    start = body.find(delimiter, 0, _MAX_PART_HEADER_BYTES)
    if start < 0:
        raise MalformedBodyError("The multipart body does not begin with its boundary.")
    while start >= 0:
        start += len(delimiter)
        if body.startswith(b"--", start):
            return
        end = body.find(b"\r\n\r\n", start, start + _MAX_PART_HEADER_BYTES)
        if end < 0:
            raise MalformedBodyError("A part of the multipart body has far too long headers.")
        start = body.find(delimiter, end)
