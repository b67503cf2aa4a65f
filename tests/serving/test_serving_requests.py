"""One image and its options out of any request: forms, repairs, caps."""

import base64
import json
from urllib.parse import urlencode

import pytest
from flask import Request
from painted import COLOURS, encode, paint
from werkzeug.test import EnvironBuilder

from imagesieve.errors import ClassifierError, EmptyImageError
from imagesieve.serving import errors
from imagesieve.serving.limits import MAX_OBJECT_BYTES
from imagesieve.serving.requests import (
    ImageRequest,
    decode_base64,
    read_image,
    read_images,
    read_object,
)
from imagesieve.serving.schemas import (
    MAX_TOP_K,
    Activation,
    BatchBody,
    Correction,
    Nothing,
    PredictOptions,
)

IMAGE = encode(paint(COLOURS["red"]))
TEXT = base64.b64encode(IMAGE).decode()
URLENCODED = "application/x-www-form-urlencoded"
BOUNDARY = "multipart/form-data; boundary=b"


def request(data: bytes | str | dict[str, object], kind: str = "", query: str = "") -> Request:
    return Request(
        EnvironBuilder(
            method="POST", data=data, content_type=kind or None, query_string=query
        ).get_environ()
    )


def read(data: bytes | str, kind: str, query: str = "") -> tuple[bytes, PredictOptions]:
    image, options = read_image(request(data, kind, query), PredictOptions)
    return image.read(None), options


def batch(data: bytes | str, kind: str, query: str = "") -> list[ImageRequest]:
    return read_images(request(data, kind, query))


def part(name: str, value: bytes, file: str | None = None) -> bytes:
    file_name = f'; filename="{file}"' if file is not None else ""
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{file_name}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def multipart(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


FORMS = {
    "raw": (IMAGE, "image/jpeg"),
    "raw of another type": (IMAGE, "image/x-anything"),
    "octets": (IMAGE, "application/octet-stream"),
    "no type": (IMAGE, ""),
    "curl --data-binary": (IMAGE, URLENCODED),
    **{f"file {n}": (multipart(part(n, IMAGE, "x.jpg")), BOUNDARY)
       for n in ("image", "file", "data", "f1", "upload")},
    "text part": (multipart(part("imageBase64String", TEXT.encode())), BOUNDARY),
    "text part image": (multipart(part("image", TEXT.encode())), BOUNDARY),
    "form": (urlencode({"imageBase64String": TEXT}), URLENCODED),
    "form image": (urlencode({"image": TEXT}), URLENCODED),
    "form, unescaped": (f"image={TEXT}", URLENCODED),
    "form, lower-case escapes": (
        "image=" + TEXT.replace("/", "%2f").replace("+", "%2b").replace("=", "%3d"), URLENCODED),
    "json": (json.dumps({"image": TEXT}), "application/json"),
    "json with charset": (json.dumps({"image": TEXT}), "application/json; charset=utf-8"),
    "data URI": (json.dumps({"image": f"data:image/jpeg;base64,{TEXT}"}), "application/json"),
    "data URI in a form": (
        urlencode({"image": f"data:image/jpeg;base64,{TEXT}"}), URLENCODED),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_bytes(form: str) -> None:
    assert read(*FORMS[form])[0] == IMAGE


def test_options_are_read_from_query_form_part_and_json() -> None:
    expected = IMAGE, PredictOptions(data_id="shop-77/3", top_k=2, threshold=0.25, frames=3)
    options = {"data_id": "shop-77/3", "top_k": "2", "threshold": ".25", "frames": "3"}
    assert read(IMAGE, "image/jpeg", urlencode(options)) == expected
    assert read(urlencode({"image": TEXT, **options}), URLENCODED) == expected
    parts = [part(name, value.encode()) for name, value in options.items()]
    assert read(multipart(part("f1", IMAGE, "x"), *parts), BOUNDARY) == expected
    body = json.dumps({"image": TEXT, **options, "top_k": 2, "threshold": 0.25, "frames": 3})
    assert read(body, "application/json") == expected
    integral = f'{{"image": "{TEXT}", "top_k": 2.0, "threshold": 1}}'
    assert read(integral, "application/json")[1] == PredictOptions(top_k=2, threshold=1.0)


def test_threshold_is_written_in_any_way_that_numbers_are() -> None:
    for text in ("0", "1.0", ".5", "1e-3", "2.5E-05", "5e-324", "-0.0"):
        assert read(IMAGE, "image/jpeg", f"threshold={text}")[1].threshold == float(text)


def test_data_id_is_any_text_whose_plus_signs_are_spaces_unless_escaped() -> None:
    name = "Ünïcødé\u00a0\u202e菜单 🍜"
    assert read(IMAGE, "image/jpeg", urlencode({"data_id": name}))[1].data_id == name
    assert read(f"image={TEXT}&data_id=a+b%2Bc", URLENCODED)[1].data_id == "a b+c"


NO_IMAGE = errors.MissingImageError
SEVERAL = errors.SeveralImagesError
BAD = errors.BadParameterError
MALFORMED = errors.MalformedBodyError
FIELDS = errors.TooManyFieldsError
BASE64 = errors.BadBase64Error
JSON = "application/json"

FAULTS: dict[str, tuple[bytes | str, str, str, type[ClassifierError]]] = {
    "no body": (b"", "image/jpeg", "", NO_IMAGE),
    "form without an image": ("data_id=1", URLENCODED, "", NO_IMAGE),
    "empty field": ("image=", URLENCODED, "", EmptyImageError),
    "empty file": (multipart(part("image", b"", "x.jpg")), BOUNDARY, "", EmptyImageError),
    "file and text": (multipart(part("image", IMAGE, "x"), part("image", TEXT.encode())),
                      BOUNDARY, "", SEVERAL),
    "plain text": ("hello", "text/plain", "", errors.UnsupportedMediaTypeError),
    "unknown file field": (multipart(part("photo", IMAGE, "x")), BOUNDARY, "", BAD),
    "part without a name": (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
                            BOUNDARY, "", BAD),
    "other boundary": (b"nothing", BOUNDARY, "", MALFORMED),
    "17 fields": ("&".join("a=1" for _ in range(17)), URLENCODED, "", FIELDS),
    "long option": (f"image={TEXT}&data_id={'x' * 2000}", URLENCODED, "", MALFORMED),
    "duplicate name": (f'{{"image": "{TEXT}", "image": "{TEXT}"}}', JSON, "", MALFORMED),
    "duplicate name in an object": ('{"image": "x", "data_id": {"a": 1, "a": 1}}', JSON, "",
                                    MALFORMED),
    **{f"{name} null": (f'{{"{name}": null}}', JSON, "", BAD)
       for name in ("image", "url", "data_id", "top_k", "threshold", "frames")},
    "half a character as a name": (f'{{"image": "{TEXT}", "\\ud800": 1}}', JSON, "", MALFORMED),
    "name like a path": (f'{{"image": "{TEXT}", "x` - at `$.y[7]": 1}}', JSON, "", BAD),
    "number as image": ('{"image": 1}', JSON, "", BAD),
    "URL": ('{"url": "https://example.org/x.jpg"}', JSON, "", BAD),
    "unknown option": (IMAGE, "image/jpeg", "treshold=0.5", BAD),
    "empty option name": (IMAGE, "image/jpeg", "=1", BAD),
    **{f"threshold {value}": (IMAGE, "image/jpeg", f"threshold={value}", BAD)
       for value in ("nan", "2", "-1", "1e3", "1e", "inf", "", ".", "0x1", "1.0001", "true")},
    **{f"{name} as text": (f'{{"image": "{TEXT}", "{name}": "1"}}', JSON, "", BAD)
       for name in ("top_k", "threshold", "frames")},
    **{f"frames {value}": (IMAGE, "image/jpeg", f"frames={value}", BAD)
       for value in ("0", "9", "all")},
    "image and URL": (f"image={TEXT}&url=https://example.org", URLENCODED, "", SEVERAL),
    "option twice": (f"image={TEXT}&top_k=1", URLENCODED, "top_k=1", BAD),
    **{f"top_k {value}": (IMAGE, "image/jpeg", f"top_k={value}", BAD)
       for value in ("-1", "0", "1e9", "abc", "", "1.5", str(MAX_TOP_K + 1), "9" * 40, "%d9%a3")},
    "top_k true": (f'{{"image": "{TEXT}", "top_k": true}}', JSON, "", BAD),
    "long data_id": (IMAGE, "image/jpeg", "data_id=" + "x" * 129, BAD),
    "empty data_id": (IMAGE, "image/jpeg", "data_id=", BAD),
    "unprintable data_id": (IMAGE, "image/jpeg", "data_id=a%0Ab", BAD),
    "file sent as text": (multipart(part("image", IMAGE)), BOUNDARY, "", BASE64),
    "data URI without Base64": ('{"image": "data:x,%"}', JSON, "", BASE64),
    "half a character as an image": ('{"image": "\\ud800"}', JSON, "", MALFORMED),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_own_error(fault: str) -> None:
    body, kind, query, error = FAULTS[fault]
    with pytest.raises(error) as caught:
        read(body, kind, query)
    assert type(caught.value) is error
    assert str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76)),
        lambda text: text.replace("+", " "),
        lambda text: text.replace("+", "-").replace("/", "_"),
        lambda text: text.rstrip("="),
        lambda text: f"DATA:;base64,{text}\n",
    ],
    ids=["line breaks", "spaces for plus", "URL-safe", "no padding", "data URI"],
)
@pytest.mark.parametrize("size", [300, 301, 302])
def test_base64_as_it_arrives_from_the_world_is_repaired(change, size: int) -> None:
    data = bytes(range(256)) + IMAGE[: size - 256]
    assert decode_base64(change(base64.b64encode(data).decode())) == data


def test_an_address_is_fetched_by_whoever_does_that_here() -> None:
    for body, kind in (
        (json.dumps({"url": "https://example.org/x"}), JSON),
        ("url=https%3A%2F%2Fexample.org%2Fx", URLENCODED),
        (multipart(part("url", b"https://example.org/x")), BOUNDARY),
    ):
        image, _ = read_image(request(body, kind), PredictOptions)
        assert image.read({"https://example.org/x": IMAGE}.__getitem__) == IMAGE


def test_a_batch_comes_as_files_or_as_a_list() -> None:
    files = multipart(*(part("image", bytes([n]), f"{n}.jpg") for n in range(32)))
    asked = batch(files, BOUNDARY, "top_k=2")
    assert [one.image.read(None) for one in asked] == [bytes([n]) for n in range(32)]
    assert [one.options for one in asked] == [PredictOptions(top_k=2)] * 32
    items = [{"image": f"data:image/jpeg;base64,{TEXT}", "data_id": f"{n}"} for n in range(32)]
    asked = batch(json.dumps({"images": items, "threshold": 0.5}), JSON)
    assert [one.image.read(None) for one in asked] == [IMAGE] * 32
    assert [one.options for one in asked] == [
        PredictOptions(data_id=f"{number}", threshold=0.5) for number in range(32)
    ]


BATCH_FAULTS: dict[str, tuple[bytes | str, str, type[ClassifierError]]] = {
    "no images": ('{"images": []}', JSON, NO_IMAGE),
    "no files": (multipart(part("top_k", b"1")), BOUNDARY, NO_IMAGE),
    "33 images": (json.dumps({"images": [{"image": TEXT}] * 33}), JSON,
                    errors.TooManyImagesError),
    "33 files": (multipart(*[part("image", b"x", "x")] * 33), BOUNDARY,
                 errors.TooManyImagesError),
    "item without an image": ('{"images": [{"data_id": "x"}]}', JSON, NO_IMAGE),
    "item with two": ('{"images": [{"image": "x", "url": "y"}]}', JSON, NO_IMAGE),
    "data_id for all": ('{"images": [{"image": "x"}], "data_id": "y"}', JSON, BAD),
}  # fmt: skip


@pytest.mark.parametrize("fault", BATCH_FAULTS)
def test_every_fault_of_a_batch_has_its_own_error(fault: str) -> None:
    body, kind, error = BATCH_FAULTS[fault]
    with pytest.raises(error) as caught:
        batch(body, kind)
    assert type(caught.value) is error


def test_a_small_object_is_read_strictly() -> None:
    assert read_object(request(b"", JSON), Nothing) == Nothing()
    asked = read_object(request('{"version": "a"}', JSON), Activation)
    assert asked == Activation("a", allow_other_classes=False)
    for body, kind, error in (
        ('{"b": 1}', JSON, BAD),
        ("[]", JSON, MALFORMED),
        ("a=1", URLENCODED, errors.UnsupportedMediaTypeError),
        (b"{}" + b" " * MAX_OBJECT_BYTES, JSON, errors.BodyTooLargeError),
    ):
        with pytest.raises(error):
            read_object(request(body, kind), Nothing)
    for empty in ("{}", b""):
        with pytest.raises(errors.MissingImageError):
            read_images(request(empty, JSON))


SENTENCES: dict[tuple[type, str], str] = {
    (PredictOptions, '{"top_k": 0}'): "top_k: expected `int` >= 1.",
    (PredictOptions, '{"top_k": "2"}'): "top_k: expected `int`, got `str`.",
    (PredictOptions, '{"frames": 9}'): "frames: expected `int` <= 8.",
    (PredictOptions, '{"data_id": "a\\u0000"}'): "data_id: has characters that cannot be printed.",
    (PredictOptions, '{"treshold": 1}'): (
        "There is no option 'treshold': use top_k, threshold, frames, data_id."
    ),
    (BatchBody, "{}"): "The request: object missing required field `images`.",
    (BatchBody, '{"images": {}}'): "images: expected `array`, got `object`.",
    (BatchBody, '{"images": ["x"]}'): "images[0]: expected `object`, got `str`.",
    (BatchBody, '{"images": [{"image": "x"}, {"image": 1}]}'): (
        "images[1].image: expected `str`, got `int`."
    ),
    (BatchBody, '{"images": [{"top_k": 1}]}'): "images[0]: object contains unknown field `top_k`.",
    (Activation, '{"version": "a", "allow_other_classes": 1}'): (
        "allow_other_classes: expected `bool`, got `int`."
    ),
    (Correction, '{"sha256": "x"}'): ("sha256: expected `str` matching regex '^[0-9a-fA-F]{64}$'."),
}


@pytest.mark.parametrize(("schema", "body"), SENTENCES)
def test_error_names_the_field_and_what_was_expected(schema: type, body: str) -> None:
    with pytest.raises(errors.RequestError) as caught:
        read_object(request(body, JSON), schema)
    assert str(caught.value) == SENTENCES[schema, body]
