"""One picture and its options out of any request: forms, repairs, caps."""

import base64
import json
import time
from urllib.parse import quote_plus, urlencode

import pytest
from flask import Request
from painted import COLOURS, encode, paint
from werkzeug.test import EnvironBuilder

from classifier.errors import ClassifierError, EmptyImageError
from classifier.serving import problems
from classifier.serving.limits import ServingLimits
from classifier.serving.requests import (
    MAX_TOP_K,
    PictureRequest,
    decode_base64,
    parse_form,
    read_legacy_picture,
    read_picture,
)

LIMITS = ServingLimits()
PICTURE = encode(paint(COLOURS["red"]))
TEXT = base64.b64encode(PICTURE).decode()
URLENCODED = "application/x-www-form-urlencoded"
BOUNDARY = "multipart/form-data; boundary=b"


def request(data: bytes | str | dict[str, object], kind: str = "", query: str = "") -> Request:
    return Request(
        EnvironBuilder(
            method="POST", data=data, content_type=kind or None, query_string=query
        ).get_environ()
    )


def read(data: bytes | str, kind: str, query: str = "") -> PictureRequest:
    return read_picture(request(data, kind, query), LIMITS)


def part(name: str, value: bytes, file: str | None = None) -> bytes:
    file_name = f'; filename="{file}"' if file is not None else ""
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{file_name}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def multipart(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


FORMS = {
    "raw": (PICTURE, "image/jpeg"),
    "raw of another type": (PICTURE, "image/x-anything"),
    "octets": (PICTURE, "application/octet-stream"),
    "no type": (PICTURE, ""),
    "curl --data-binary": (PICTURE, URLENCODED),
    **{f"file {n}": (multipart(part(n, PICTURE, "x.jpg")), BOUNDARY)
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
    assert read(*FORMS[form]).data == PICTURE


def test_options_are_read_from_query_form_part_and_json() -> None:
    expected = PictureRequest(PICTURE, "shop-77/3", 2)
    options = {"data_id": "shop-77/3", "top_k": "2"}
    assert read(PICTURE, "image/jpeg", urlencode(options)) == expected
    assert read(urlencode({"image": TEXT, **options}), URLENCODED) == expected
    parts = [part(name, value.encode()) for name, value in options.items()]
    assert read(multipart(part("f1", PICTURE, "x"), *parts), BOUNDARY) == expected
    body = json.dumps({"image": TEXT, **options, "top_k": 2})
    assert read(body, "application/json") == expected


def test_plus_signs_in_an_option_are_spaces_and_escaped_ones_are_not() -> None:
    assert read(f"image={TEXT}&data_id=a+b%2Bc", URLENCODED).data_id == "a b+c"


NO_IMAGE = problems.MissingImageError
SEVERAL = problems.SeveralImagesError
BAD = problems.BadParameterError
MALFORMED = problems.MalformedBodyError
FIELDS = problems.TooManyFieldsError
BASE64 = problems.BadBase64Error
JSON = "application/json"

FAULTS: dict[str, tuple[bytes | str, str, str, type[ClassifierError]]] = {
    "no body": (b"", "image/jpeg", "", NO_IMAGE),
    "no body, JSON": (b"", JSON, "", NO_IMAGE),
    "form without a picture": ("data_id=1", URLENCODED, "", NO_IMAGE),
    "JSON without a picture": ("{}", JSON, "", NO_IMAGE),
    "empty field": ("image=", URLENCODED, "", EmptyImageError),
    "empty text": ('{"image": ""}', JSON, "", EmptyImageError),
    "empty file": (multipart(part("image", b"", "x.jpg")), BOUNDARY, "", EmptyImageError),
    "two files": (multipart(part("image", PICTURE, "x"), part("file", PICTURE, "y")), BOUNDARY, "",
                  SEVERAL),
    "file and text": (multipart(part("image", PICTURE, "x"), part("image", TEXT.encode())),
                      BOUNDARY, "", SEVERAL),
    "two fields": (f"image={TEXT}&imageBase64String={TEXT}", URLENCODED, "", SEVERAL),
    "plain text": ("hello", "text/plain", "", problems.UnsupportedMediaTypeError),
    "unknown file field": (multipart(part("photo", PICTURE, "x")), BOUNDARY, "", BAD),
    "part without a name": (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
                            BOUNDARY, "", BAD),
    "no boundary": (multipart(part("image", PICTURE, "x")), "multipart/form-data", "", MALFORMED),
    "other boundary": (b"nothing", BOUNDARY, "", MALFORMED),
    "part without a header": (b"--b\r\n\r\nx\r\n--b--\r\n", BOUNDARY, "", MALFORMED),
    "1001 parts": (multipart(*[part("a", b"")] * 1001), BOUNDARY, "", FIELDS),
    "17 fields": ("&".join("a=1" for _ in range(17)), URLENCODED, "", FIELDS),
    "17 query fields": (PICTURE, "image/jpeg", "a&" * 17, FIELDS),
    "long option": (f"image={TEXT}&data_id={'x' * 2000}", URLENCODED, "", MALFORMED),
    "JSON list": (f'["{TEXT}"]', JSON, "", MALFORMED),
    "deep JSON": ("[" * 100_000, JSON, "", MALFORMED),
    "flat JSON": ("[" + "1," * 1000 + "1]", JSON, "", MALFORMED),
    "NaN": ('{"image": NaN}', JSON, "", MALFORMED),
    "duplicate name": (f'{{"image": "{TEXT}", "image": "{TEXT}"}}', JSON, "", MALFORMED),
    "BOM": (b"\xef\xbb\xbf{}", JSON, "", MALFORMED),
    "UTF-16": ('{"image": "x"}'.encode("utf-16"), JSON, "", MALFORMED),
    "broken JSON": ('{"image": ', JSON, "", MALFORMED),
    "huge number": ('{"top_k": ' + "9" * 5000 + "}", JSON, "", MALFORMED),
    "number as picture": ('{"image": 1}', JSON, "", BAD),
    "URL": ('{"url": "https://example.org/x.jpg"}', JSON, "", BAD),
    "unknown option": (PICTURE, "image/jpeg", "threshold=0.5", BAD),
    "option twice": (f"image={TEXT}&top_k=1", URLENCODED, "top_k=1", BAD),
    **{f"top_k {value}": (PICTURE, "image/jpeg", f"top_k={value}", BAD)
       for value in ("-1", "0", "1e9", "abc", "", "1.5", str(MAX_TOP_K + 1), "9" * 40, "%d9%a3")},
    "top_k true": (f'{{"image": "{TEXT}", "top_k": true}}', JSON, "", BAD),
    "long data_id": (PICTURE, "image/jpeg", "data_id=" + "x" * 129, BAD),
    "empty data_id": (PICTURE, "image/jpeg", "data_id=", BAD),
    "unprintable data_id": (PICTURE, "image/jpeg", "data_id=a%0Ab", BAD),
    "file sent as text": (multipart(part("image", PICTURE)), BOUNDARY, "", BASE64),
    **{f"Base64 {value!r}": (json.dumps({"image": value}), JSON, "", BASE64)
       for value in ("====", "A", "AB=CD", "AAAA====", "!!!!", "ñandú===", "data:x,%", "\ud800")},
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_own_error(fault: str) -> None:
    body, kind, query, error = FAULTS[fault]
    with pytest.raises(error) as caught:
        read(body, kind, query)
    assert type(caught.value) is error
    assert str(caught.value)


def test_body_over_the_limit_is_refused() -> None:
    for length in (LIMITS.max_body_bytes + 1, 2 * LIMITS.max_body_bytes):
        with pytest.raises(problems.BodyTooLargeError, match="16,777,216 bytes"):
            read(bytes(length), "image/jpeg")


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
    data = bytes(range(256)) + PICTURE[: size - 256]
    assert decode_base64(change(base64.b64encode(data).decode())) == data


@pytest.mark.parametrize("size", [300_000, 450_000, 4_500_000, 10 * 2**20])
@pytest.mark.parametrize("fill", [b"\xff", b"\xfb\xef\xbe", b"\x00\x10\x83"])
def test_megabytes_of_base64_pass_as_form_and_as_text_part(size: int, fill: bytes) -> None:
    """Werkzeug's own limit of 500 kB for a text would refuse all but the first."""
    data = (fill * size)[:size]
    text = base64.b64encode(data)
    escaped = quote_plus(text) if size < 2**20 else text.decode()
    start = time.perf_counter()
    assert read(f"image={escaped}", URLENCODED).data == data
    assert read(multipart(part("image", text)), BOUNDARY).data == data
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"a&" * 8_000_000, FIELDS),
        (b"%41=%41&" * 2_000_000, FIELDS),
        (b"image=" + b"%41" * 5_000_000, MALFORMED),
        (b"%41" * 5_000_000 + b"=1", MALFORMED),
    ],
    ids=["fields", "escaped fields", "escapes in a picture", "escapes in a name"],
)
def test_hostile_forms_are_refused_before_they_cost_anything(
    body: bytes, error: type[ClassifierError]
) -> None:
    start = time.perf_counter()
    with pytest.raises(error):
        parse_form(body, LIMITS)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n" * 7_000_000,
        b"--b\r\nContent-Disposition: form-data\r\n" + b"X: y\r\n" * 2_000_000 + b"\r\n\r\n--b--",
        multipart(part("image", b"x", "y" * 20_000)),
        multipart(*[part("a", b"")] * 200_000),
        b"--b\r\n" * 2_000_000,
    ],
    ids=["line breaks", "part headers", "file name", "parts", "boundaries"],
)
def test_hostile_multipart_is_refused_before_it_costs_anything(body: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises((MALFORMED, FIELDS)):
        read(body, BOUNDARY)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("unit", [b"[],", b'"a":1,', b"{},", b"1,"])
def test_hostile_json_is_refused_before_it_costs_anything(unit: bytes) -> None:
    body = b"[" + unit * (15_000_000 // len(unit)) + b"1]"
    start = time.perf_counter()
    with pytest.raises(MALFORMED):
        read(body, JSON)
    assert time.perf_counter() - start < 1


def test_legacy_field_is_read_from_query_form_and_part() -> None:
    assert read_legacy_picture(
        request(b"", query=urlencode({"imageBase64String": TEXT})), LIMITS
    ) == (PICTURE)
    assert read_legacy_picture(request(f"imageBase64String={TEXT}", URLENCODED), LIMITS) == PICTURE
    parts = multipart(part("other", b"x"), part("imageBase64String", TEXT.encode()))
    assert read_legacy_picture(request(parts, BOUNDARY), LIMITS) == PICTURE


@pytest.mark.parametrize("body", ["", "image=x", "imageBase64String=", "other=1"])
def test_missing_legacy_field_is_none(body: str) -> None:
    assert read_legacy_picture(request(body, URLENCODED), LIMITS) is None
