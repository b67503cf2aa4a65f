"""A request -> its images and options, in any of the forms that are accepted."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from flask import Request

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
    decode_base64,
    parse_form,
    parse_json,
    read_body,
    read_form,
)
from imagesieve.serving.limits import ServingLimits
from imagesieve.serving.predict_options import PredictOptions, checked_options, listed, with_numbers

URL_FIELD = "url"
LIST_FIELD = "images"

_RAW = ("", "application/octet-stream")
_MARKS_AN_ITEM = 8  # of each sign in the JSON of one image of a batch; a data URI has some too

Fetch = Callable[[str], bytes]


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """An image as it was sent: its bytes, Base64 text, or the address to fetch it from."""

    value: bytes | str
    is_url: bool = False

    def read(self, fetch: Fetch | None) -> bytes:
        """Give the encoded image, at least one byte.

        Raises:
            RequestError: it is not Base64, or an address where none is taken.
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


@dataclasses.dataclass(frozen=True)
class _Found:
    """Images and options, before anything was checked."""

    images: Sequence[ImageInput] = ()
    options: Sequence[tuple[str, object]] = ()


# What `/v1/predict` takes.
PREDICT_OPTIONS = ("data_id", "top_k", "threshold", "frames")


def read_image(
    request: Request, limits: ServingLimits, options: Sequence[str] = PREDICT_OPTIONS
) -> ImageRequest:
    """Read the one image of a request, in any of the accepted forms, and its options.

    Args:
        request: not read so far.
        limits: see there.
        options: names of those that are taken here.

    Raises:
        RequestError: a child of it that says what is wrong.
    """
    found = _read_body(request, limits)
    query = with_numbers(parse_form(request.query_string, limits))
    checked = checked_options([*query, *found.options], options, limits)
    if not found.images:
        raise MissingImageError(
            "No image was sent: post its bytes as the body, as a file named image, or as Base64 "
            f"in a field named {LEGACY_FIELD}."
        )
    if len(found.images) > 1:
        raise SeveralImagesError(f"{len(found.images)} images were sent: send exactly one.")
    return ImageRequest(found.images[0], checked)


def read_images(request: Request, limits: ServingLimits) -> list[ImageRequest]:
    """Read the images of a batch: files of a multipart form, or a list in JSON.

    The options of the whole go for every image; in JSON each may have a `data_id`.

    Raises:
        RequestError: a child of it that says what is wrong with the request as a whole.
    """
    body = read_body(request, limits.max_batch_bytes)
    query = with_numbers(parse_form(request.query_string, limits))
    match request.mimetype:
        case _ if not body:
            found: list[tuple[ImageInput, list[tuple[str, object]]]] = []
            options: list[tuple[str, object]] = []
        case mimetype if mimetype == MULTIPART:
            found, options = _batch_of_files(request, body, limits)
        case mimetype if mimetype == JSON:
            found, options = _batch_of_json(body, limits)
        case mimetype:
            raise UnsupportedMediaTypeError(
                f"The Content-Type {mimetype[:100]!r} carries no batch: use {MULTIPART} with "
                f'files, or {JSON} with {{"images": [{{"image": "<Base64>"}}]}}.'
            )
    common = checked_options([*query, *options], ("top_k", "threshold", "frames"), limits)
    if not found:
        raise MissingImageError("No image was sent: a batch has one or more.")
    if len(found) > limits.max_batch_images:
        raise TooManyImagesError(
            f"The batch has {len(found)} images: send at most {limits.max_batch_images}."
        )
    return [
        ImageRequest(
            sent,
            dataclasses.replace(common, data_id=checked_options(own, ("data_id",), limits).data_id),
        )
        for sent, own in found
    ]


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


def read_object(request: Request, limits: ServingLimits, names: Sequence[str]) -> dict[str, Any]:
    """Read a small JSON object, such as `{}`; no body at all counts as one.

    Raises:
        RequestError: it is none, or has a name that is not among `names`.
    """
    body = read_body(request, limits.max_object_bytes)
    if body and request.mimetype != JSON:
        raise UnsupportedMediaTypeError(f"Send {JSON}, not {request.mimetype[:100]!r}.")
    value = parse_json(body, limits) if body else {}
    if not isinstance(value, dict):
        raise MalformedBodyError("The JSON body must be an object.")
    for name in value:
        if name not in names:
            raise BadParameterError(f"There is no field {name[:100]!r}: use {listed(names)}.")
    return value


def _read_body(request: Request, limits: ServingLimits) -> _Found:
    body = read_body(request, limits.max_body_bytes)
    mimetype = request.mimetype
    if not body:
        return _Found()
    if mimetype.startswith("image/") or mimetype in _RAW:
        return _Found(images=[ImageInput(body)])
    if mimetype == URLENCODED and sniff(body):  # what `curl --data-binary` says by default
        return _Found(images=[ImageInput(body)])
    reader = _READERS.get(mimetype)
    if reader is None:
        raise UnsupportedMediaTypeError(
            f"The Content-Type {mimetype[:100]!r} carries no image: use image/*, "
            f"application/octet-stream, {MULTIPART}, {URLENCODED} or {JSON}."
        )
    return reader(request, body, limits)


def _read_form(request: Request, body: bytes, limits: ServingLimits) -> _Found:
    form = read_form(request, body, limits)
    _check_files(form.files)
    images = [ImageInput(data) for _, data in form.files]
    return _with_fields(images, with_numbers(form.fields))


def _read_json(_request: Request, body: bytes, limits: ServingLimits) -> _Found:
    value = parse_json(body, limits)
    if not isinstance(value, dict):
        raise MalformedBodyError('The JSON body must be an object such as {"image": "<Base64>"}.')
    return _with_fields([], list(value.items()), texts=("image",))


_READERS: Mapping[str, Callable[[Request, bytes, ServingLimits], _Found]] = MappingProxyType(
    {URLENCODED: _read_form, MULTIPART: _read_form, JSON: _read_json}
)


def _batch_of_files(
    request: Request, body: bytes, limits: ServingLimits
) -> tuple[list[tuple[ImageInput, list[tuple[str, object]]]], list[tuple[str, object]]]:
    most = limits.max_batch_images + limits.max_form_fields
    form = read_form(request, body, limits, max_parts=most)
    _check_files(form.files)
    return [(ImageInput(data), []) for _, data in form.files], with_numbers(form.fields)


def _batch_of_json(
    body: bytes, limits: ServingLimits
) -> tuple[list[tuple[ImageInput, list[tuple[str, object]]]], list[tuple[str, object]]]:
    value = parse_json(body, limits, _MARKS_AN_ITEM * (limits.max_batch_images + 1))
    items = value.get(LIST_FIELD) if isinstance(value, dict) else None
    if not isinstance(items, list):
        raise MalformedBodyError('The JSON body must be {"images": [{"image": "<Base64>"}, …]}.')
    found = []
    for item in items:
        if not isinstance(item, dict):
            raise MalformedBodyError(f"Each of {LIST_FIELD} must be an object with an image.")
        one = _with_fields([], list(item.items()), texts=("image",))
        if len(one.images) != 1:
            raise MissingImageError(f"Each of {LIST_FIELD} must have exactly one image.")
        found.append((one.images[0], list(one.options)))
    return found, [(name, option) for name, option in value.items() if name != LIST_FIELD]


def _check_files(files: Sequence[tuple[str, bytes]]) -> None:
    for name, _ in files:
        if name not in FILE_FIELDS:
            raise BadParameterError(
                f"There is no file field {name[:100]!r}: use {', '.join(FILE_FIELDS)}."
            )


def _with_fields(
    images: Sequence[ImageInput],
    fields: Sequence[tuple[str, object]],
    texts: Sequence[str] = TEXT_FIELDS,
) -> _Found:
    """Part the fields that carry an image from those that are options."""
    found, options = list(images), []
    for name, value in fields:
        if name not in (*texts, URL_FIELD):
            options.append((name, value))
        elif isinstance(value, str):
            found.append(ImageInput(value, is_url=name == URL_FIELD))
        elif name == URL_FIELD:
            raise BadParameterError("The field url must be a text.")
        else:
            raise BadParameterError(f"The field {name} must be a Base64 text.")
    return _Found(found, options)


def _fetched(url: str, fetch: Fetch | None) -> bytes:
    if fetch is None:
        raise BadParameterError(
            "This server fetches no addresses (url): send the image itself, or start the server "
            "with --allow-url."
        )
    return fetch(url)
