"""Requests as they come to a service over the years: every form, many faults, callers who leave."""

import dataclasses
import io
import random
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import requests
from downloads_rig import images
from PIL import Image

OK, REFUSED, LEFT = "ok", "refused", "left"  # 2xx; 4xx; without an answer


@dataclasses.dataclass(frozen=True)
class Request:
    """A whole HTTP request and how it should end."""

    name: str  # of its kind
    data: bytes  # what is sent
    expected: str  # `OK`, `REFUSED` or `LEFT`


Make = Callable[[bytes], bytes]  # an image -> a whole request


class Mixture:
    """Requests in a random but repeatable order, each image with content of its own."""

    def __init__(self, images: Sequence[bytes], seed: int = 0) -> None:
        self._images = images
        self._chance = random.Random(seed)
        self._prefix = seed.to_bytes(4)
        self._count = 0
        self._names: list[str] = []

    def __next__(self) -> Request:
        """Return the next; in as many requests as there are kinds, every kind comes once."""
        if not self._names:
            self._names = list(KINDS)
            self._chance.shuffle(self._names)
        name = self._names.pop()
        make, expected = KINDS[name]
        self._count += 1
        image = self._images[self._count % len(self._images)]
        return Request(name, make(image + self._prefix + self._count.to_bytes(8)), expected)


def request(
    method: str, path: str, body: bytes = b"", kind: str = "", length: int | None = None
) -> bytes:
    """Return a request's bytes; `length` is announced instead of the body's."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"Content-Type: {kind}"] if kind else []
    if body or length is not None:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "\r\n"]).encode() + body


def _raw(path: str = "/v1/predict", kind: str = "image/jpeg") -> Make:
    return lambda image: request("POST", path, image, kind)


def _fixed(method: str, path: str, *arguments: Any, **options: Any) -> Make:
    return lambda _image: request(method, path, *arguments, **options)


def _post(path: str, make_body: Callable[[bytes], Mapping[str, Any]]) -> Make:
    """Return a maker of requests whose body is one that `requests` makes."""

    def make(image: bytes) -> bytes:
        made = requests.Request("POST", "http://127.0.0.1", **make_body(image)).prepare()
        body = made.body.encode() if isinstance(made.body, str) else made.body
        return request("POST", path, body, made.headers["Content-Type"])

    return make


def _form(path: str, **fields: str) -> Make:
    return _post(path, lambda image: {"data": {"imageBase64String": b64encode(image), **fields}})


def _json(path: str, shape: Callable[[str], object]) -> Make:
    return _post(path, lambda image: {"json": shape(b64encode(image).decode())})


def _parts(path: str, parts: Callable[[bytes], Sequence[tuple[str, str | None, bytes]]]) -> Make:
    """Return a maker of multipart bodies; a part is name, file name or None, and content."""
    return _post(path, lambda image: {"files": [(name, part) for name, *part in parts(image)]})


def _as(image_format: str) -> Make:
    def make(encoded: bytes) -> bytes:
        with Image.open(io.BytesIO(encoded)) as image:
            image.thumbnail((200, 200))
            body = images.encode(image.convert("RGB"), image_format)
        return request("POST", "/v1/predict", body, "application/octet-stream")

    return make


_PREDICT, _BATCH, _OLD = "/v1/predict", "/v1/predict/batch", "/image/detection"
_URLENCODED = "application/x-www-form-urlencoded"
_NOTE_CHUNK = (b"zTXt", b"note\0\0" + zlib.compress(bytes(20_000_000)))
_PIXELS = (b"IDAT", zlib.compress(bytes(1000)))
_BOMB = images.png((64, 48), 8, 2, _NOTE_CHUNK, _PIXELS)
_HUGE = images.png((9000, 9000), 8, 2, _PIXELS)
_NOTE = {"id": "00000000-0000-4000-8000-000000000000", "label": "no-such-class"}
_OIP = {"name": "image", "shape": [1], "datatype": "BYTES"}

KINDS: Mapping[str, tuple[Make, str]] = {
    "raw": (_raw(), OK),
    "raw, as curl sends it": (_raw(kind=_URLENCODED), OK),
    "raw with options": (_raw("/v1/predict?top_k=1&data_id=soak"), OK),
    "PNG": (_as("PNG"), OK),
    "GIF": (_as("GIF"), OK),
    "WebP": (_as("WEBP"), OK),
    "BMP": (_as("BMP"), OK),
    "form": (_form(_PREDICT), OK),
    "form with options": (_form(_PREDICT, data_id="x", top_k="2"), OK),
    "JSON": (_json(_PREDICT, lambda text: {"image": text}), OK),
    "data URI": (_json(_PREDICT, lambda text: {"image": f"data:image/jpeg;base64,{text}"}), OK),
    "file": (_parts(_PREDICT, lambda data: [("image", "../../etc/passwd", data)]), OK),
    "text part": (_parts(_PREDICT, lambda data: [("image", None, b64encode(data))]), OK),
    "batch of files": (
        _parts(_BATCH, lambda data: [("image", "a", data), ("image", "b", b"x")]), OK),
    "batch as JSON": (
        _json(_BATCH, lambda text: {"images": [{"image": text}, {"image": text[:40]}]}), OK),
    "old route": (_form(_OLD), OK),
    "old route, no image": (_fixed("POST", _OLD, b"a=b", _URLENCODED), OK),  # code 98
    "greeting": (_fixed("GET", "/helloWorld"), OK),
    "model": (_fixed("GET", "/v1/model"), OK),
    "health": (_fixed("GET", "/healthz"), OK),
    "readiness": (_fixed("GET", "/readyz"), OK),
    "metrics": (_fixed("GET", "/metrics"), OK),
    "description": (_fixed("GET", "/openapi.json"), OK),
    "page": (_fixed("GET", "/"), OK),
    "inference protocol": (_fixed("GET", "/v2/health/ready"), OK),

    "text as JPEG": (_fixed("POST", _PREDICT, b"hello", "image/jpeg"), REFUSED),
    "half an image": (lambda data: request("POST", _PREDICT, data[: len(data) // 2]), REFUSED),
    "81 megapixels": (_fixed("POST", _PREDICT, _HUGE), REFUSED),
    "text that inflates": (_fixed("POST", _PREDICT, _BOMB), REFUSED),
    "no body": (_fixed("POST", _PREDICT, length=0), REFUSED),
    "two images": (_parts(_PREDICT, lambda data: [("image", "a", data)] * 2), REFUSED),
    "unknown option": (_raw("/v1/predict?topk=1"), REFUSED),
    "a million fields": (_fixed("POST", _PREDICT, b"a&" * 1_000_000, _URLENCODED), REFUSED),
    "a thousand parts": (_parts(_PREDICT, lambda _: [("a", None, b"b")] * 1000), REFUSED),
    "deep JSON": (_fixed("POST", _PREDICT, b"[" * 100_000, "application/json"), REFUSED),
    "no Base64": (_form(_PREDICT, image="%%%"), REFUSED),
    "unknown type": (_fixed("POST", _PREDICT, b"<a/>", "application/xml"), REFUSED),
    "unknown address": (_fixed("GET", "/v1/models/..%2f..%2fetc/passwd"), REFUSED),
    "wrong method": (_fixed("PUT", _PREDICT, b"x"), REFUSED),
    "two gigabytes announced": (_fixed("POST", _PREDICT, length=2**31), REFUSED),
    "header that never ends": (_fixed("GET", f"/{'a' * 300_000}"), REFUSED),
    "no HTTP": (lambda _: b"\x16\x03\x01\x02\x00 hello\r\n\r\n", REFUSED),
    "correction of nothing": (_json("/v1/feedback", lambda _: _NOTE), REFUSED),

    "gone within the header": (lambda data: request("POST", _PREDICT, data)[:40], LEFT),
    "gone within the body": (lambda data: request("POST", _PREDICT, data)[:-2000], LEFT),
    "gone before the answer": (_raw(), LEFT),
}  # fmt: skip
