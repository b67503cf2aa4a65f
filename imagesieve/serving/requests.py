"""A request -> its images, and its options as structs of `schemas`."""

import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from flask import Request
from msgspec import UNSET, inspect

from imagesieve.errors import EmptyImageError
from imagesieve.images import sniff
from imagesieve.serving import schemas
from imagesieve.serving.errors import (
    BadParameterError,
    MalformedBodyError,
    MissingImageError,
    RequestError,
    SeveralImagesError,
    TooManyImagesError,
    UnsupportedMediaTypeError,
)
from imagesieve.serving.forms import (
    JSON,
    LEGACY_FIELD,
    MULTIPART,
    TEXT_FIELDS,
    URLENCODED,
    Form,
    decode_base64,
    parse_body,
    parse_form,
    read_body,
)
from imagesieve.serving.limits import MAX_BATCH_BYTES, MAX_BODY_BYTES, MAX_OBJECT_BYTES
from imagesieve.serving.schemas import (
    MAX_BATCH_IMAGES,
    BatchBody,
    BatchItem,
    BatchOptions,
    PredictOptions,
)

FILE_FIELDS = ("image", "file", "data", "f1", "upload")
URL_FIELD = "url"

_RAW = ("image/*", "application/octet-stream")

_NUMBER = re.compile(r"-?[0-9]{0,3}\.?[0-9]{1,20}(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_LOCATED = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?", re.DOTALL)  # a sentence of msgspec
_UNKNOWN = re.compile("Object contains unknown field `(.*)`", re.DOTALL)

Fetch = Callable[[str], bytes]
Schema = TypeVar("Schema", bound=msgspec.Struct)
Fields = Sequence[tuple[str, Any]]


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """An image as it was sent: its bytes, Base64 text, or the URL to fetch it from."""

    value: bytes | str
    is_url: bool = False

    def read(self, fetch: Fetch | None = None) -> bytes:
        """Return the encoded image, at least one byte.

        Raises:
            RequestError: it is not Base64, or a URL where none is fetched.
            EmptyImageError: it has no bytes.
        """
        if isinstance(self.value, bytes):
            data = self.value
        elif not self.is_url:
            data = decode_base64(self.value)
        elif fetch:
            data = fetch(self.value)
        else:
            raise BadParameterError(
                "This server fetches no URLs (url): send the image itself, or start the server "
                "with --allow-url."
            )
        if not data:
            raise EmptyImageError("the image is empty (0 bytes)")
        return data


@dataclasses.dataclass(frozen=True)
class ImageRequest:
    """One image and how it is to be predicted."""

    image: ImageInput
    options: PredictOptions = dataclasses.field(default_factory=PredictOptions)


# All of these raise the child of RequestError that says what is wrong with the request.


def read_image(request: Request, options: type[Schema]) -> tuple[ImageInput, Schema]:
    """Read the one image of a request, in any of the accepted forms, and its options."""
    kinds = (*_RAW, MULTIPART, URLENCODED, JSON)
    form = _read_form(request, options, kinds, MAX_BODY_BYTES)
    texts = ("image",) if request.mimetype == JSON else TEXT_FIELDS
    in_fields = [field for field in form.fields if field[0] in (*texts, URL_FIELD)]
    others = [field for field in form.fields if field[0] not in (*texts, URL_FIELD)]
    images = _files(form, FILE_FIELDS) + [_image_of(*field) for field in in_fields]
    checked = read_options(request, options, others)
    if not images:
        raise MissingImageError(
            "No image was sent: post its bytes as the body, as a file named image, or as Base64 "
            f"in a field named {LEGACY_FIELD}."
        )
    return _only(images), checked


def read_images(request: Request) -> list[ImageRequest]:
    """Read the images of a batch: files of a multipart form, or a list in JSON.

    Options count for all of them; items of a list may have a `data_id`.
    """
    kinds = (MULTIPART, JSON)
    form = _read_form(request, BatchOptions, kinds, MAX_BATCH_BYTES, MAX_BATCH_IMAGES)
    items: Sequence[BatchItem | ImageInput]
    options: BatchOptions
    if request.mimetype == JSON:
        options = batch = read_options(request, BatchBody, form.fields)
        items = batch.images
    else:
        items = _files(form, FILE_FIELDS)
        options = read_options(request, BatchOptions, form.fields)
    if not items:
        raise MissingImageError("No image was sent: a batch has one or more.")
    if len(items) > MAX_BATCH_IMAGES:
        raise TooManyImagesError(
            f"The batch has {len(items)} images: send at most {MAX_BATCH_IMAGES}."
        )
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
        raise BadParameterError(
            "Say which image is meant: by id, by sha256, or by the image itself as a file "
            "named image."
        )
    if asked.sha256 is not UNSET:
        asked.sha256 = asked.sha256.lower()
    return asked, image


def read_legacy_image(request: Request) -> ImageInput | None:
    """Read the first generation's one field from the query or the form; None when it is missing.

    Other fields are ignored, as they were then.
    """
    fields: list[tuple[str, Any]] = [*parse_form(request.query_string)]
    body = read_body(request, MAX_BODY_BYTES)
    if request.mimetype in (URLENCODED, MULTIPART):
        fields += parse_body(request, body).fields
    texts = (value for name, value in fields if name == LEGACY_FIELD and value)
    return next(map(ImageInput, texts), None)


def read_options(request: Request, schema: type[Schema], fields: Fields = ()) -> Schema:
    """Read the query of a request, together with fields of its body."""
    return _checked((*_with_numbers(parse_form(request.query_string), schema), *fields), schema)


def read_object(
    request: Request,
    schema: type[Schema],
    *,
    max_bytes: int = MAX_OBJECT_BYTES,
    num_images: int = 0,
    kinds: Sequence[str] = (JSON,),
) -> Schema:
    """Read a JSON object that may hold `num_images`; no body counts as `{}`, "" is no type."""
    form = _read_form(request, schema, kinds, max_bytes, num_images)
    return _checked(form.fields, schema)


def _read_form(
    request: Request,
    schema: type[msgspec.Struct],
    kinds: Collection[str],
    max_bytes: int,
    num_images: int = 0,
) -> Form:
    """Read a body of one of some media types; an image alone becomes a file."""
    body = read_body(request, max_bytes)
    kind = request.mimetype
    if not body:
        return Form()
    is_raw = kind in ("", *_RAW) or kind.startswith("image/")
    # An image as urlencoded: what `curl --data-binary` says by default.
    if "image/*" in kinds and (is_raw or (kind == URLENCODED and sniff(body))):
        return Form(files=[("image", body)])
    if kind not in kinds:
        accepted = " or ".join(filter(None, kinds))
        raise UnsupportedMediaTypeError(
            f"The Content-Type {kind[:100]!r} is not accepted here: use {accepted}."
        )
    form = parse_body(request, body, num_images)
    if kind in (URLENCODED, MULTIPART):
        return form._replace(fields=_with_numbers(form.fields, schema))
    return form


def _files(form: Form, names: Sequence[str]) -> list[ImageInput]:
    for name, _ in form.files:
        if name not in names:
            raise BadParameterError(
                f"There is no file field {name[:100]!r}: use {', '.join(names)}."
            )
    return [ImageInput(data) for _, data in form.files]


def _image_of(name: str, value: Any) -> ImageInput:
    if isinstance(value, str):
        return ImageInput(value, is_url=name == URL_FIELD)
    expected = "text" if name == URL_FIELD else "Base64 text"
    raise BadParameterError(f"The field {name} must be a {expected}.")


def _only(images: Sequence[ImageInput]) -> ImageInput:
    if len(images) > 1:
        raise SeveralImagesError(f"{len(images)} images were sent: send exactly one.")
    return images[0]


def _batch_request(item: BatchItem | ImageInput, options: BatchOptions) -> ImageRequest:
    common = options.top_k, options.threshold, options.frames
    if isinstance(item, ImageInput):
        return ImageRequest(item, PredictOptions(*common))
    if (item.image is UNSET) == (item.url is UNSET):
        raise MissingImageError("Each of images must have exactly one image.")
    image = ImageInput(item.image or item.url or "", is_url=item.image is UNSET)
    return ImageRequest(image, PredictOptions(*common, item.data_id))


def _with_numbers(texts: Fields, schema: type[msgspec.Struct]) -> list[tuple[str, object]]:
    """Read the numbers and booleans of a form or query, which has texts only."""
    return [(name, _read_text(value, _types(schema).get(name))) for name, value in texts]


def _read_text(text: str, kind: inspect.Type | None) -> object:
    if isinstance(kind, inspect.BoolType):
        return {"true": True, "false": False}.get(text, text)
    if isinstance(kind, inspect.IntType | inspect.FloatType) and _NUMBER.fullmatch(text):
        number = float(text)
        return int(number) if number.is_integer() else number
    return text


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
