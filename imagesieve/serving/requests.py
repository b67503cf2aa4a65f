"""A request -> its images and options, in any of the forms that are accepted."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from flask import Request
from msgspec import UNSET

from imagesieve.errors import EmptyImageError
from imagesieve.images import sniff
from imagesieve.serving.errors import (
    BadParameterError,
    MalformedBodyError,
    MissingImageError,
    SeveralImagesError,
    TooManyImagesError,
    UnsupportedMediaTypeError,
)
from imagesieve.serving.forms import (
    FILE_FIELDS,
    JSON,
    LEGACY_FIELD,
    MULTIPART,
    TEXT_FIELDS,
    URLENCODED,
    Form,
    decode_base64,
    parse_form,
    parse_json,
    read_body,
    read_form,
)
from imagesieve.serving.limits import ServingLimits
from imagesieve.serving.schemas import BatchBody, BatchItem, BatchOptions, PredictOptions
from imagesieve.serving.validation import check, unique, with_numbers

URL_FIELD = "url"

_RAW = ("", "application/octet-stream")
_MARKS_PER_ITEM = 8  # of each sign in the JSON of one image of a batch; a data URI has some too

Fetch = Callable[[str], bytes]
Schema = TypeVar("Schema", bound=msgspec.Struct)


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """An image as it was sent: its bytes, Base64 text, or the URL to fetch it from."""

    value: bytes | str
    is_url: bool = False

    def read(self, fetch: Fetch | None) -> bytes:
        """Return the encoded image, at least one byte.

        Raises:
            RequestError: it is not Base64, or a URL where none is fetched.
            EmptyImageError: it has no bytes.
        """
        if isinstance(self.value, bytes):
            data = self.value
        elif self.is_url:
            data = _fetched(self.value, fetch)
        else:
            data = decode_base64(self.value)
        if not data:
            raise EmptyImageError("the image is empty (0 bytes)")
        return data


@dataclasses.dataclass(frozen=True)
class ImageRequest:
    """One image and how it is to be predicted."""

    image: ImageInput
    options: PredictOptions


class _Found(NamedTuple):
    """Images and other fields of a body, before anything was checked."""

    images: Sequence[ImageInput] = ()
    fields: Sequence[tuple[str, object]] = ()


def read_image(
    request: Request, limits: ServingLimits, options: type[Schema]
) -> tuple[ImageInput, Schema]:
    """Read the one image of a request, in any of the accepted forms, and its options.

    Args:
        request: not read so far.
        limits: of its parts.
        options: the struct of those that are accepted here.

    Raises:
        RequestError: a child of it that says what is wrong.
    """
    found = _read_body(request, limits, options)
    checked = _options(request, found.fields, options, limits)
    if not found.images:
        raise MissingImageError(
            "No image was sent: post its bytes as the body, as a file named image, or as Base64 "
            f"in a field named {LEGACY_FIELD}."
        )
    if len(found.images) > 1:
        raise SeveralImagesError(f"{len(found.images)} images were sent: send exactly one.")
    return found.images[0], checked


def read_images(request: Request, limits: ServingLimits) -> list[ImageRequest]:
    """Read the images of a batch: files of a multipart form, or a list in JSON.

    The options of the whole go for every image; in JSON each may have a `data_id`.

    Raises:
        RequestError: a child of it that says what is wrong with the request as a whole.
    """
    body = read_body(request, limits.max_batch_bytes)
    items: Sequence[BatchItem | ImageInput] = ()
    options: BatchOptions
    if not body:
        options = _options(request, (), BatchOptions, limits)
    elif request.mimetype == MULTIPART:
        most = limits.max_batch_images + limits.max_form_fields
        form = read_form(request, body, limits, max_parts=most)
        items = _files(form)
        options = _options(request, with_numbers(form.fields, BatchOptions), BatchOptions, limits)
    elif request.mimetype == JSON:
        value = parse_json(body, limits, _MARKS_PER_ITEM * (limits.max_batch_images + 1))
        if not isinstance(value, dict):
            raise MalformedBodyError("The JSON body must be an object.")
        options = batch = _options(request, list(value.items()), BatchBody, limits)
        items = batch.images
    else:
        raise UnsupportedMediaTypeError(
            f"The Content-Type {request.mimetype[:100]!r} carries no batch: use {MULTIPART} with "
            f'files, or {JSON} with {{"images": [{{"image": "<Base64>"}}]}}.'
        )
    if not items:
        raise MissingImageError("No image was sent: a batch has one or more.")
    if len(items) > limits.max_batch_images:
        raise TooManyImagesError(
            f"The batch has {len(items)} images: send at most {limits.max_batch_images}."
        )
    return [_batch_request(item, options) for item in items]


def read_legacy_image(request: Request, limits: ServingLimits) -> bytes | None:
    """Read the first generation's one field from the query or the form; None when it is missing.

    Other fields are ignored, as they were then.

    Raises:
        RequestError: the field is not Base64, or the form cannot be read.
    """
    fields = list(parse_form(request.query_string, limits))
    body = read_body(request, limits.max_body_bytes)
    if request.mimetype in (URLENCODED, MULTIPART):
        fields += read_form(request, body, limits).fields
    for name, value in fields:
        if name == LEGACY_FIELD and value:
            return decode_base64(value)
    return None


def read_options(request: Request, limits: ServingLimits, options: type[Schema]) -> Schema:
    """Read the query of a request.

    Raises:
        RequestError: an option is unknown or wrong.
    """
    return _options(request, (), options, limits)


def read_object(request: Request, limits: ServingLimits, schema: type[Schema]) -> Schema:
    """Read a small JSON object, such as `{}`; no body at all counts as one.

    Raises:
        RequestError: it does not suit the schema.
    """
    body = read_body(request, limits.max_object_bytes)
    if body and request.mimetype != JSON:
        raise UnsupportedMediaTypeError(f"Send {JSON}, not {request.mimetype[:100]!r}.")
    return check(parse_json(body, limits) if body else {}, schema, limits)


def _options(
    request: Request,
    fields: Sequence[tuple[str, object]],
    schema: type[Schema],
    limits: ServingLimits,
) -> Schema:
    """Return the options of the query and of the body together."""
    query = with_numbers(parse_form(request.query_string, limits), schema)
    return check(unique((*query, *fields)), schema, limits)


def _read_body(request: Request, limits: ServingLimits, options: type[msgspec.Struct]) -> _Found:
    body = read_body(request, limits.max_body_bytes)
    mimetype = request.mimetype
    if not body:
        return _Found()
    if mimetype.startswith("image/") or mimetype in _RAW:
        return _Found([ImageInput(body)])
    if mimetype == URLENCODED and sniff(body):  # what `curl --data-binary` says by default
        return _Found([ImageInput(body)])
    if mimetype in (URLENCODED, MULTIPART):
        form = read_form(request, body, limits)
        images, fields = _split(form.fields, TEXT_FIELDS)
        return _Found([*_files(form), *images], with_numbers(fields, options))
    if mimetype == JSON:
        value = parse_json(body, limits)
        if not isinstance(value, dict):
            raise MalformedBodyError(
                'The JSON body must be an object such as {"image": "<Base64>"}.'
            )
        return _split(list(value.items()), ("image",))
    raise UnsupportedMediaTypeError(
        f"The Content-Type {mimetype[:100]!r} carries no image: use image/*, "
        f"application/octet-stream, {MULTIPART}, {URLENCODED} or {JSON}."
    )


def _files(form: Form) -> list[ImageInput]:
    for name, _ in form.files:
        if name not in FILE_FIELDS:
            raise BadParameterError(
                f"There is no file field {name[:100]!r}: use {', '.join(FILE_FIELDS)}."
            )
    return [ImageInput(data) for _, data in form.files]


def _split(fields: Sequence[tuple[str, Any]], texts: Sequence[str]) -> _Found:
    """Part the fields that carry an image from those that are options."""
    images, options = [], []
    for name, value in fields:
        if name not in (*texts, URL_FIELD):
            options.append((name, value))
        elif isinstance(value, str):
            images.append(ImageInput(value, is_url=name == URL_FIELD))
        else:
            expected = "text" if name == URL_FIELD else "Base64 text"
            raise BadParameterError(f"The field {name} must be a {expected}.")
    return _Found(images, options)


def _batch_request(item: BatchItem | ImageInput, options: BatchOptions) -> ImageRequest:
    common = {name: getattr(options, name) for name in BatchOptions.__struct_fields__}
    if isinstance(item, ImageInput):
        return ImageRequest(item, PredictOptions(**common))
    if (item.image is UNSET) == (item.url is UNSET):
        raise MissingImageError("Each of images must have exactly one image.")
    image = ImageInput(item.image or item.url or "", is_url=item.image is UNSET)
    return ImageRequest(image, PredictOptions(**common, data_id=item.data_id))


def _fetched(url: str, fetch: Fetch | None) -> bytes:
    if fetch is None:
        raise BadParameterError(
            "This server fetches no URLs (url): send the image itself, or start the server with "
            "--allow-url."
        )
    return fetch(url)
