"""A request -> one picture and its options, with every cap applied before data is taken apart.

Flask's own parsers stay unused: their limits differ between patch releases of Werkzeug, and a few
megabytes of `a&a&a` or `[[],[],` would cost them seconds and hundreds of megabytes.
"""

import base64
import binascii
import dataclasses
import io
import json
import re
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser

from classifier import images
from classifier.errors import EmptyImageError
from classifier.serving.limits import ServingLimits
from classifier.serving.problems import (
    BadBase64Error,
    BadParameterError,
    BodyTooLargeError,
    MalformedBodyError,
    MissingImageError,
    SeveralImagesError,
    TooManyFieldsError,
    UnsupportedMediaTypeError,
)

LEGACY_FIELD = "imageBase64String"
FILE_FIELDS = ("image", "file", "data", "f1", "upload")
TEXT_FIELDS = (LEGACY_FIELD, "image")

MAX_TOP_K = 1000
MAX_DATA_ID_CHARS = 128

_URLENCODED = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
_JSON = "application/json"
_RAW = ("", "application/octet-stream")

# Spaces were plus signs before a form decoder saw them; - and _ are the URL-safe alphabet.
_REPAIRS = bytes.maketrans(b" -_", b"++/")
_LINE_BREAKS = b"\r\n\t"

# A white picture is one long row of slashes in Base64, and each of them may come as %2F: the
# escapes of Base64's own signs are undone in bulk, as millions one by one would take seconds.
_BASE64_ESCAPES = tuple(
    (spelling, sign)
    for code, sign in (
        (b"%2B", b"+"),
        (b"%2F", b"/"),
        (b"%3D", b"="),
        (b"%2D", b"-"),
        (b"%5F", b"_"),
        (b"%20", b" "),
        (b"%0D", b""),
        (b"%0A", b""),
    )
    for spelling in sorted({code, code.lower()})
)


@dataclasses.dataclass(frozen=True)
class PictureRequest:
    """What a caller wants judged.

    Attributes:
        data: the encoded picture, at least one byte.
        data_id: the caller's own name for it, given back in the answer.
        top_k: how many classes to answer with, 1 to `MAX_TOP_K`; None for all.
    """

    data: bytes
    data_id: str | None = None
    top_k: int | None = None


@dataclasses.dataclass(frozen=True)
class _Found:
    """Pictures as bytes or Base64 text, and options, before anything was checked."""

    pictures: Sequence[bytes | str] = ()
    options: Sequence[tuple[str, object]] = ()


def read_picture(request: Request, limits: ServingLimits) -> PictureRequest:
    """Read the one picture of a request, in any of the accepted forms, and its options.

    Raises:
        RequestError: a child of it that says what is wrong.
        EmptyImageError: the picture has no bytes.
    """
    found = _read_body(request, limits)
    query = parse_form(request.query_string, limits)
    options = _checked_options([*query, *found.options])
    if not found.pictures:
        raise MissingImageError(
            "No picture was sent: post its bytes as the body, as a file named image, or as Base64 "
            f"in a field named {LEGACY_FIELD}."
        )
    if len(found.pictures) > 1:
        raise SeveralImagesError(f"{len(found.pictures)} pictures were sent: send exactly one.")
    return PictureRequest(_as_bytes(found.pictures[0]), **options)


def read_legacy_picture(request: Request, limits: ServingLimits) -> bytes | None:
    """Read the first generation's one field from the query or the form; None when it is missing.

    Other fields are ignored, as they were then.

    Raises:
        RequestError: the field is not Base64, or the form cannot be read.
    """
    fields = list(parse_form(request.query_string, limits))
    body = _body_of(request, limits)
    if request.mimetype == _URLENCODED:
        fields += parse_form(body, limits)
    elif request.mimetype == _MULTIPART:
        fields += _parse_multipart(request, body, limits)[0]
    for name, value in fields:
        if name == LEGACY_FIELD and value:
            return decode_base64(value)
    return None


def decode_base64(text: str) -> bytes:
    """Decode Base64 as it arrives from the world, then strictly.

    Undone first: a `data:...,` prefix, line breaks, plus signs that became spaces, the URL-safe
    alphabet, missing padding. Nothing that is not Base64 is skipped.

    Raises:
        BadBase64Error: it still is not Base64.
    """
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    try:
        digits = text.encode("ascii").translate(_REPAIRS, delete=_LINE_BREAKS)
        bare = digits.rstrip(b"=")
        if len(digits) - len(bare) > 2:
            _refuse_base64("it ends with more than two = signs")
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except UnicodeEncodeError as error:
        _refuse_base64("it has characters outside of ASCII (a file part needs a file name)", error)
    except binascii.Error as error:
        _refuse_base64(str(error), error)


def parse_form(encoded: bytes, limits: ServingLimits) -> list[tuple[str, str]]:
    """Take apart an urlencoded form or query; fields are counted before anything is allocated.

    Plus signs of a Base64 field stay plus signs, whether the caller escaped them or not.

    Raises:
        TooManyFieldsError: more fields than `limits.max_form_fields`.
        MalformedBodyError: a field has too many percent escapes or is too long.
    """
    if not encoded:
        return []
    if encoded.count(b"&") >= limits.max_form_fields:
        raise TooManyFieldsError(f"The form has more than {limits.max_form_fields} fields.")
    pairs = (pair.partition(b"=") for pair in encoded.split(b"&") if pair)
    return [_parse_pair(name, value, limits) for name, _, value in pairs]


def _parse_pair(raw_name: bytes, raw_value: bytes, limits: ServingLimits) -> tuple[str, str]:
    name = _unquote(raw_name, limits)
    if name not in TEXT_FIELDS:
        return name, _unquote(raw_value, limits)
    value = _unescape_base64(raw_value)
    if value.count(b"%") > limits.max_escapes:
        raise MalformedBodyError(f"The field {name} is full of percent escapes: send Base64.")
    return name, urllib.parse.unquote_to_bytes(value).decode("utf-8", "replace")


def _unquote(raw: bytes, limits: ServingLimits) -> str:
    if len(raw) > limits.max_option_chars:
        raise MalformedBodyError(
            f"A form field that is no picture has more than {limits.max_option_chars:,} characters."
        )
    return urllib.parse.unquote_plus(raw.decode("utf-8", "replace"))


def _unescape_base64(value: bytes) -> bytes:
    for escape, sign in _BASE64_ESCAPES:
        value = value.replace(escape, sign)
    return value


def _read_body(request: Request, limits: ServingLimits) -> _Found:
    body = _body_of(request, limits)
    mimetype = request.mimetype
    if not body:
        return _Found()
    if mimetype.startswith("image/") or mimetype in _RAW:
        return _Found(pictures=[body])
    if mimetype == _URLENCODED and images.sniff(body):  # what `curl --data-binary` says by default
        return _Found(pictures=[body])
    reader = _READERS.get(mimetype)
    if reader is None:
        raise UnsupportedMediaTypeError(
            f"The Content-Type {mimetype[:100]!r} carries no picture: use image/*, "
            f"application/octet-stream, {_MULTIPART}, {_URLENCODED} or {_JSON}."
        )
    return reader(request, body, limits)


def _body_of(request: Request, limits: ServingLimits) -> bytes:
    request.max_content_length = limits.max_body_bytes
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge as error:
        raise BodyTooLargeError(
            f"The request has more than {limits.max_body_bytes:,} bytes."
        ) from error


def _read_urlencoded(_request: Request, body: bytes, limits: ServingLimits) -> _Found:
    return _sorted_out(parse_form(body, limits))


def _read_multipart(request: Request, body: bytes, limits: ServingLimits) -> _Found:
    fields, files = _parse_multipart(request, body, limits)
    for name, _ in files:
        if name not in FILE_FIELDS:
            raise BadParameterError(
                f"There is no file field {name[:100]!r}: use {', '.join(FILE_FIELDS)}."
            )
    texts = _sorted_out(fields)
    pictures = [*(data for _, data in files), *texts.pictures]
    return _Found(pictures, texts.options)


def _read_json(_request: Request, body: bytes, limits: ServingLimits) -> _Found:
    value = parse_json(body, limits)
    if not isinstance(value, dict):
        raise MalformedBodyError('The JSON body must be an object such as {"image": "<Base64>"}.')
    options = [(name, option) for name, option in value.items() if name != "image"]
    if "image" not in value:
        return _Found(options=options)
    if not isinstance(value["image"], str):
        raise BadParameterError("The field image must be a Base64 text.")
    return _Found([value["image"]], options)


_READERS: Mapping[str, Callable[[Request, bytes, ServingLimits], _Found]] = MappingProxyType(
    {_URLENCODED: _read_urlencoded, _MULTIPART: _read_multipart, _JSON: _read_json}
)


def parse_json(body: bytes, limits: ServingLimits) -> Any:
    """Read strict UTF-8 JSON: no NaN, no duplicate names, few values and little nesting.

    Raises:
        MalformedBodyError: it is anything else.
    """
    # Each list, object or value costs a hundred bytes or more; Base64 has none of these signs.
    if any(body.count(mark) > limits.max_json_marks for mark in (b"[", b"{", b",", b":")):
        raise MalformedBodyError("The JSON body has far more values than are asked for.")
    try:
        return json.loads(
            body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError) as error:
        raise MalformedBodyError(f"The body is not the JSON it says it is: {error}.") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands there twice")
    return dict(pairs)


def _parse_multipart(
    request: Request, body: bytes, limits: ServingLimits
) -> tuple[list[tuple[str, str]], list[tuple[str, bytes]]]:
    """Give text fields and files; the whole body is in memory and capped already."""
    parser = MultiPartParser(
        stream_factory=lambda *_args, **_kwargs: io.BytesIO(),
        max_form_memory_size=limits.max_body_bytes,
        max_form_parts=limits.max_form_fields,
    )
    boundary = request.mimetype_params.get("boundary", "")
    if not boundary or not boundary.isascii():
        raise MalformedBodyError("The Content-Type of the multipart body names no boundary.")
    _check_parts(b"\r\n" + body, b"\r\n--" + boundary.encode(), limits)
    try:
        fields, files = parser.parse(io.BytesIO(body), boundary.encode(), len(body))
    except RequestEntityTooLarge as error:
        raise TooManyFieldsError(
            f"The form has more than {limits.max_form_fields} parts."
        ) from error
    except (ValueError, KeyError) as error:
        raise MalformedBodyError(f"The multipart body cannot be read: {error}.") from error
    return (
        [(name or "", value) for name, value in fields.items(multi=True)],
        [(name or "", file.read()) for name, file in files.items(multi=True)],
    )


def _check_parts(body: bytes, delimiter: bytes, limits: ServingLimits) -> None:
    """Refuse many parts, long part headers and a long preamble; Werkzeug has no cap for these."""
    if body.count(delimiter) > limits.max_form_fields + 1:  # one more closes the last part
        raise TooManyFieldsError(f"The form has more than {limits.max_form_fields} parts.")
    start = body.find(delimiter, 0, limits.max_part_header_bytes)
    if start < 0:
        raise MalformedBodyError("The multipart body does not begin with its boundary.")
    while start >= 0:
        start += len(delimiter)
        if body.startswith(b"--", start):
            return
        end = body.find(b"\r\n\r\n", start, start + limits.max_part_header_bytes)
        if end < 0:
            raise MalformedBodyError("A part of the multipart body has far too long headers.")
        start = body.find(delimiter, end)


def _sorted_out(fields: Sequence[tuple[str, str]]) -> _Found:
    return _Found(
        pictures=[value for name, value in fields if name in TEXT_FIELDS],
        options=[(name, value) for name, value in fields if name not in TEXT_FIELDS],
    )


def _as_bytes(picture: bytes | str) -> bytes:
    data = decode_base64(picture) if isinstance(picture, str) else picture
    if not data:
        raise EmptyImageError("the picture is empty (0 bytes)")
    return data


def _checked_options(options: Sequence[tuple[str, object]]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, value in options:
        if name not in _OPTIONS:
            raise BadParameterError(
                f"There is no option {name[:100]!r}: use {' or '.join(_OPTIONS)}."
            )
        if name in checked:
            raise BadParameterError(f"The option {name} was given twice.")
        checked[name] = _OPTIONS[name](value)
    return checked


def _data_id(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_DATA_ID_CHARS:
        raise BadParameterError(f"data_id must be a text of 1 to {MAX_DATA_ID_CHARS} characters.")
    if not value.isprintable():
        raise BadParameterError("data_id has characters that cannot be printed.")
    return value


def _top_k(value: object) -> int:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        value = int(value)
    if type(value) is not int or not 1 <= value <= MAX_TOP_K:
        raise BadParameterError(f"top_k must be a whole number from 1 to {MAX_TOP_K}.")
    return value


_OPTIONS: Mapping[str, Callable[[object], object]] = MappingProxyType(
    {"data_id": _data_id, "top_k": _top_k}
)


def _refuse_base64(reason: str, cause: Exception | None = None) -> NoReturn:
    raise BadBase64Error(f"The picture is not Base64 text: {reason}.") from cause
