"""A request -> its images and options, in any of the forms that are accepted."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import msgspec
from flask import Request
from msgspec import UNSET

from imagesieve.errors import EmptyImageError
from imagesieve.images import sniff
from imagesieve.serving import schemas
from imagesieve.serving.errors import (
    BadParameterError,
    MissingImageError,
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
from imagesieve.serving.limits import ServingLimits
from imagesieve.serving.schemas import BatchBody, BatchItem, BatchOptions, PredictOptions
from imagesieve.serving.validation import check, with_numbers

FILE_FIELDS = ("image", "file", "data", "f1", "upload")
URL_FIELD = "url"

_RAW = ("image/*", "application/octet-stream")

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


def read_image(
    request: Request, limits: ServingLimits, options: type[Schema]
) -> tuple[ImageInput, Schema]:
    """Read the one image of a request, in any of the accepted forms, and its options.

    Raises:
        RequestError: a child of it that says what is wrong.
    """
    form = _read_form(
        request, limits, options, (*_RAW, MULTIPART, URLENCODED, JSON), limits.max_body_bytes
    )
    texts = ("image",) if request.mimetype == JSON else TEXT_FIELDS
    in_fields = [field for field in form.fields if field[0] in (*texts, URL_FIELD)]
    others = [field for field in form.fields if field[0] not in (*texts, URL_FIELD)]
    images = _files(form, FILE_FIELDS) + [_image_of(*field) for field in in_fields]
    checked = read_options(request, limits, options, others)
    if not images:
        raise MissingImageError(
            "No image was sent: post its bytes as the body, as a file named image, or as Base64 "
            f"in a field named {LEGACY_FIELD}."
        )
    return _only(images), checked


def read_images(request: Request, limits: ServingLimits) -> list[ImageRequest]:
    """Read the images of a batch: files of a multipart form, or a list in JSON.

    The options of the whole go for every image; in JSON each may have a `data_id`.

    Raises:
        RequestError: a child of it that says what is wrong with the request as a whole.
    """
    most = limits.max_batch_images
    kinds = (MULTIPART, JSON)
    form = _read_form(request, limits, BatchOptions, kinds, limits.max_batch_bytes, most)
    items: Sequence[BatchItem | ImageInput]
    options: BatchOptions
    if request.mimetype == JSON:
        options = batch = read_options(request, limits, BatchBody, form.fields)
        items = batch.images
    else:
        items = _files(form, FILE_FIELDS)
        options = read_options(request, limits, BatchOptions, form.fields)
    if not items:
        raise MissingImageError("No image was sent: a batch has one or more.")
    if len(items) > most:
        raise TooManyImagesError(f"The batch has {len(items)} images: send at most {most}.")
    return [_batch_request(item, options) for item in items]


def read_correction(
    request: Request, limits: ServingLimits
) -> tuple[schemas.Correction, bytes | None]:
    """Read a correction, as JSON or as a form with the image itself.

    Returns:
        what an image really is, with `sha256` in lower case; the encoded image, if it was sent.

    Raises:
        RequestError: a child of it that says what is wrong.
        EmptyImageError: the image has no bytes.
    """
    read_options(request, limits, schemas.Nothing)
    most = limits.max_body_bytes if request.mimetype == MULTIPART else limits.max_object_bytes
    form = _read_form(request, limits, schemas.Correction, (JSON, MULTIPART), most)
    image = _only(_files(form, ["image"])).read() if form.files else None
    asked = check(form.fields, schemas.Correction, limits)
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


def read_legacy_image(request: Request, limits: ServingLimits) -> ImageInput | None:
    """Read the first generation's one field from the query or the form; None when it is missing.

    Other fields are ignored, as they were then.

    Raises:
        RequestError: the form cannot be read.
    """
    fields: list[tuple[str, Any]] = [*parse_form(request.query_string, limits)]
    body = read_body(request, limits.max_body_bytes)
    if request.mimetype in (URLENCODED, MULTIPART):
        fields += parse_body(request, body, limits).fields
    texts = (value for name, value in fields if name == LEGACY_FIELD and value)
    return next(map(ImageInput, texts), None)


def read_options(
    request: Request, limits: ServingLimits, schema: type[Schema], fields: Fields = ()
) -> Schema:
    """Read the query of a request, together with fields of its body.

    Raises:
        RequestError: an option is unknown or wrong.
    """
    query = with_numbers(parse_form(request.query_string, limits), schema)
    return check((*query, *fields), schema, limits)


def read_object(
    request: Request,
    limits: ServingLimits,
    schema: type[Schema],
    *,
    max_bytes: int | None = None,
    num_images: int = 0,
    kinds: Sequence[str] = (JSON,),
) -> Schema:
    """Read a JSON object that may hold `num_images`; no body at all counts as `{}`.

    It has at most `limits.max_object_bytes` unless `max_bytes` says otherwise. The media type is
    one of `kinds`; an empty one is none at all.

    Raises:
        RequestError: it does not suit the schema.
    """
    most = max_bytes or limits.max_object_bytes
    form = _read_form(request, limits, schema, kinds, most, num_images)
    return check(form.fields, schema, limits)


def _read_form(
    request: Request,
    limits: ServingLimits,
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
    form = parse_body(request, body, limits, num_images)
    if kind in (URLENCODED, MULTIPART):
        return form._replace(fields=with_numbers(form.fields, schema))
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
