"""A request -> its images, and its options as structs of `schemas`.

Every cap is applied before what it bounds. Flask's own parsers stay unused: their limits differ
between patch releases of Werkzeug, and a few megabytes of `a&a&a` or `[[],[],` would cost them
seconds and hundreds of megabytes.
"""

import base64
import binascii
import dataclasses
import functools
import io
import json
import re
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgspec
from flask import Request
from msgspec import UNSET, inspect
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser

from imagesieve.errors import EmptyImageError
from imagesieve.images import sniff
from imagesieve.serving import schemas
from imagesieve.serving.errors import (
    BadBase64Error,
    BadParameterError,
    BodyTooLargeError,
    MalformedBodyError,
    MissingImageError,
    RequestError,
    SeveralImagesError,
    TooManyFieldsError,
    TooManyImagesError,
    UnsupportedMediaTypeError,
)
from imagesieve.serving.limits import MAX_BATCH_BYTES, MAX_BODY_BYTES, MAX_OBJECT_BYTES
from imagesieve.serving.schemas import (
    MAX_BATCH_IMAGES,
    BatchBody,
    BatchItem,
    ImageOptions,
    PredictOptions,
)

LEGACY_FIELD = "imageBase64String"
TEXT_FIELDS = (LEGACY_FIELD, "image")
FILE_FIELDS = ("image", "file", "data", "f1", "upload")
URL_FIELD = "url"

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
JSON = "application/json"
_RAW = ("image/*", "application/octet-stream")

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

_NUMBER = re.compile(r"-?[0-9]{0,3}\.?[0-9]{1,20}(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_LOCATED = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?", re.DOTALL)  # a sentence of msgspec
_UNKNOWN = re.compile("Object contains unknown field `(.*)`", re.DOTALL)

Fetch = Callable[[str], bytes]
Schema = TypeVar("Schema", bound=msgspec.Struct)
Fields = Sequence[tuple[str, Any]]


class _Form(NamedTuple):
    """What a body holds, in the order sent: (name, value) of each field, (name, bytes) of files."""

    fields: Sequence[tuple[str, Any]] = ()
    files: Sequence[tuple[str, bytes]] = ()


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """An image as it was sent: its bytes, Base64 text, or the URL to fetch it from."""

    value: bytes | str
    is_url: bool = False

    def read(self, fetch: Fetch | None = None) -> bytes:
        """Return the encoded image, at least one byte."""
        if isinstance(self.value, bytes):
            data = self.value
        elif not self.is_url:
            data = decode_base64(self.value)
        elif fetch:
            data = fetch(self.value)
        else:
            raise BadParameterError(
                "This server fetches no URLs (url): send the image, or start it with --allow-url."
            )
        if not data:
            raise EmptyImageError("the image is empty (0 bytes)")
        return data


class ImageRequest(NamedTuple):
    image: ImageInput
    options: PredictOptions


# All of these raise the child of RequestError that says what is wrong.


def read_image(request: Request, options: type[Schema]) -> tuple[ImageInput, Schema]:
    """Read the one image of a request, in any of the accepted forms, and its options."""
    form = _read_form(request, options, (*_RAW, MULTIPART, URLENCODED, JSON), MAX_BODY_BYTES)
    texts = ("image",) if request.mimetype == JSON else TEXT_FIELDS
    in_fields = [field for field in form.fields if field[0] in (*texts, URL_FIELD)]
    others = [field for field in form.fields if field[0] not in (*texts, URL_FIELD)]
    images = _files(form, FILE_FIELDS) + [_image_of(*field) for field in in_fields]
    checked = read_options(request, options, others)
    if not images:
        ways = f"as the body, as a file named image, or as Base64 in a field {LEGACY_FIELD}"
        raise MissingImageError(f"No image was sent: post it {ways}.")
    return _only(images), checked


def read_images(request: Request) -> list[ImageRequest]:
    """Read the images of a batch, files of a form or a list in JSON, each with the options."""
    kinds = (MULTIPART, JSON)
    form = _read_form(request, ImageOptions, kinds, MAX_BATCH_BYTES, MAX_BATCH_IMAGES)
    items: Sequence[BatchItem | ImageInput]
    options: ImageOptions
    if request.mimetype == JSON and form.fields:
        options = batch = read_options(request, BatchBody, form.fields)
        items = batch.images
    else:
        items = _files(form, FILE_FIELDS)
        options = read_options(request, ImageOptions, form.fields)
    if not items:
        raise MissingImageError("No image was sent: a batch has one or more.")
    if len(items) > MAX_BATCH_IMAGES:
        raise TooManyImagesError(f"{len(items)} images were sent: {MAX_BATCH_IMAGES} at most.")
    return [_batch_request(item, options) for item in items]


def read_correction(request: Request) -> tuple[schemas.Correction, bytes | None]:
    """Read a correction, as JSON or as a form, and the encoded image if a form has it."""
    read_options(request, schemas.Nothing)
    most = MAX_BODY_BYTES if request.mimetype == MULTIPART else MAX_OBJECT_BYTES
    form = _read_form(request, schemas.Correction, (JSON, MULTIPART), most)
    image = _only(_files(form, ["image"])).read() if form.files else None
    asked = _checked(form.fields, schemas.Correction)
    if (asked.label is not UNSET) == asked.reject:
        raise BadParameterError("Give either label or reject, to say what the image is.")
    if image is None and (asked.id is UNSET) == (asked.sha256 is UNSET):
        raise BadParameterError("Say which image is meant: by id, sha256, or a file named image.")
    if asked.sha256 is not UNSET:
        asked.sha256 = asked.sha256.lower()
    return asked, image


def read_legacy_image(request: Request) -> ImageInput | None:
    """Read the first generation's one field from the query or the form; others are ignored."""
    fields: list[tuple[str, Any]] = [*_parse_form(request.query_string)]
    body = _read_body(request, MAX_BODY_BYTES)
    if request.mimetype in (URLENCODED, MULTIPART):
        fields += _parse_body(request, body).fields
    texts = (value for name, value in fields if name == LEGACY_FIELD and value)
    return next(map(ImageInput, texts), None)


def read_options(request: Request, schema: type[Schema], fields: Fields = ()) -> Schema:
    """Read the query of a request, together with fields of its body."""
    return _checked((*_with_numbers(_parse_form(request.query_string), schema), *fields), schema)


def read_object(
    request: Request,
    schema: type[Schema],
    *,
    max_bytes: int = MAX_OBJECT_BYTES,
    num_images: int = 0,
    kinds: Sequence[str] = (JSON,),
) -> Schema:
    """Read a JSON object that may hold `num_images`; no body counts as `{}`, "" is no type."""
    return _checked(_read_form(request, schema, kinds, max_bytes, num_images).fields, schema)


def _read_form(
    request: Request,
    schema: type[msgspec.Struct],
    kinds: Collection[str],
    max_bytes: int,
    num_images: int = 0,
) -> _Form:
    """Read a body of one of the media types; an image alone becomes a file."""
    body = _read_body(request, max_bytes)
    kind = request.mimetype
    if not body:
        return _Form()
    is_raw = kind in ("", *_RAW) or kind.startswith("image/")
    # An image as urlencoded: what `curl --data-binary` says by default.
    if "image/*" in kinds and (is_raw or (kind == URLENCODED and sniff(body))):
        return _Form(files=[("image", body)])
    if kind not in kinds:
        accepted = " or ".join(filter(None, kinds))
        raise UnsupportedMediaTypeError(
            f"The Content-Type {kind[:100]!r} is not accepted here: use {accepted}."
        )
    form = _parse_body(request, body, num_images)
    if kind in (URLENCODED, MULTIPART):
        return form._replace(fields=_with_numbers(form.fields, schema))
    return form


def _files(form: _Form, names: Sequence[str]) -> list[ImageInput]:
    for name, _ in form.files:
        if name not in names:
            about = f"There is no file field {name[:100]!r}: use {', '.join(names)}."
            raise BadParameterError(about)
    return [ImageInput(data) for _, data in form.files]


def _image_of(name: str, value: Any) -> ImageInput:
    if isinstance(value, str):
        return ImageInput(value, is_url=name == URL_FIELD)
    raise BadParameterError(f"The field {name} must be a text.")


def _only(images: Sequence[ImageInput]) -> ImageInput:
    if len(images) > 1:
        raise SeveralImagesError(f"{len(images)} images were sent: send exactly one.")
    return images[0]


def _batch_request(item: BatchItem | ImageInput, options: ImageOptions) -> ImageRequest:
    common = {name: getattr(options, name) for name in ImageOptions.__struct_fields__}
    if isinstance(item, ImageInput):
        return ImageRequest(item, PredictOptions(**common))
    if (item.image is UNSET) == (item.url is UNSET):
        raise MissingImageError("Each of images must have exactly one image.")
    image = ImageInput(item.image or item.url or "", is_url=item.image is UNSET)
    return ImageRequest(image, PredictOptions(**common, data_id=item.data_id))


def _with_numbers(texts: Fields, schema: type[msgspec.Struct]) -> list[tuple[str, object]]:
    """Read the numbers and booleans of a form or query, which has texts only."""
    return [(name, _read_text(value, _types(schema).get(name))) for name, value in texts]


def _read_text(text: str, kind: inspect.Type | None) -> object:
    if isinstance(kind, inspect.BoolType):
        return {"true": True, "false": False}.get(text, text)
    is_number = isinstance(kind, inspect.IntType | inspect.FloatType) and _NUMBER.fullmatch(text)
    return _number(text) if is_number else text


@functools.cache
def _types(schema: type[msgspec.Struct]) -> dict[str, inspect.Type]:
    """Return the type of each field, without what describes it."""
    kinds = {field.name: inspect.type_info(field.type) for field in msgspec.structs.fields(schema)}
    return {
        name: kind.type if isinstance(kind, inspect.Metadata) else kind
        for name, kind in kinds.items()
    }


def _checked(fields: Iterable[tuple[str, object]], schema: type[Schema]) -> Schema:
    """Return fields, of JSON types, as a struct; each may be there once."""
    found: dict[str, object] = {}
    for name, value in fields:
        if name in found:
            raise BadParameterError(f"The option {name[:100]} was given twice.")
        found[name] = value
    try:
        return msgspec.convert(found, schema)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), schema) from error


def _refusal(sentence: str, schema: type[msgspec.Struct]) -> RequestError:
    """Return the error for what msgspec says, such as "Expected `int` <= 8 - at `$.frames`"."""
    located = _LOCATED.fullmatch(sentence)
    what, path = (located[1], located[2] or "") if located else (sentence, "")
    unknown = _UNKNOWN.fullmatch(what)
    if unknown and not path:
        names = ", ".join(schema.__struct_fields__) or "none"
        return BadParameterError(f"There is no option {unknown[1][:100]!r}: use {names}.")
    if " matching regex '^[^" in what:
        what = "has characters that cannot be printed"
    message = f"{path or 'The request'}: {what[:1].lower()}{what[1:]}."[:300]
    is_container = what.startswith(("Expected `object`", "Expected `array`"))
    return MalformedBodyError(message) if is_container else BadParameterError(message)


# Bodies and queries, taken apart.


def _read_body(request: Request, max_bytes: int) -> bytes:
    """Return the whole body; raise BodyTooLargeError beyond `max_bytes`, and read no further."""
    request.max_content_length = max_bytes
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge as error:
        raise BodyTooLargeError(f"The request has more than {max_bytes:,} bytes.") from error


def _parse_body(request: Request, body: bytes, num_images: int = 0) -> _Form:
    """Take a form or a JSON object apart, which may hold `num_images` besides other fields."""
    if request.mimetype == URLENCODED:
        return _Form(_parse_form(body))
    if request.mimetype == MULTIPART:
        boundary = request.mimetype_params.get("boundary", "")
        return _parse_multipart(boundary, body, _MAX_FIELDS + num_images)
    return _Form(_parse_json(body, _MAX_MARKS + _MARKS_PER_IMAGE * num_images))


def decode_base64(text: str) -> bytes:
    """Decode Base64 as it arrives from the world, then strictly.

    Undone first: a `data:...,` prefix, line breaks, plus signs that became spaces, the URL-safe
    alphabet, missing padding. Nothing that is not Base64 is skipped.
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


def _parse_form(encoded: bytes) -> list[tuple[str, str]]:
    """Take apart an urlencoded form or query; fields are counted before anything is allocated.

    Plus signs of a Base64 field stay plus signs, whether the caller escaped them or not.
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
        raise MalformedBodyError(f"A form field has more than {_MAX_OPTION_BYTES:,} characters.")
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


def _parse_multipart(boundary: str, body: bytes, max_parts: int) -> _Form:
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
    return _Form(
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
