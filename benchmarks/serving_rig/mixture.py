"""Requests as they come to a service over the years: every form, many faults, callers who leave."""

import base64
import dataclasses
import io
import json
import random
import struct
import urllib.parse
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

OK, REFUSED, LEFT = "ok", "refused", "left"  # 2xx; 4xx; without an answer

_BOUNDARY = "x-soak-x"
_SIDE = 480  # pixels of painted images


@dataclasses.dataclass(frozen=True)
class Request:
    """A whole HTTP request and how it should end.

    Attributes:
        name: of its kind.
        data: what is sent.
        expected: `OK`, `REFUSED` or `LEFT`.
    """

    name: str
    data: bytes
    expected: str


Make = Callable[[bytes], bytes]  # an image -> a whole request


def painted_images(number: int) -> list[bytes]:
    """Return JPEGs of coloured noise, for when there is no folder of images."""
    chance = random.Random(0)
    images = []
    for _ in range(number):
        colour = tuple(chance.randrange(256) for _ in range(3))
        noise = Image.effect_noise((_SIDE, _SIDE * 3 // 4), 60).convert("RGB")
        images.append(_encoded(Image.blend(noise, Image.new("RGB", noise.size, colour), 0.6)))
    return images


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
    """Return a request's bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"Content-Type: {kind}"] if kind else []
    if body or length is not None:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "\r\n"]).encode() + body


def _raw(path: str = "/v1/predict", kind: str = "image/jpeg") -> Make:
    return lambda image: request("POST", path, image, kind)


def _fixed(method: str, path: str, *arguments: Any, **options: Any) -> Make:
    return lambda _image: request(method, path, *arguments, **options)


def _form(path: str, **fields: str) -> Make:
    def make(image: bytes) -> bytes:
        text = base64.b64encode(image)
        body = urllib.parse.urlencode({"imageBase64String": text, **fields}).encode()
        return request("POST", path, body, "application/x-www-form-urlencoded")

    return make


def _json(path: str, shape: Callable[[str], object]) -> Make:
    def make(image: bytes) -> bytes:
        value = shape(base64.b64encode(image).decode())
        return request("POST", path, json.dumps(value).encode(), "application/json")

    return make


def _parts(path: str, parts: Callable[[bytes], Sequence[tuple[str, str | None, bytes]]]) -> Make:
    """Return a maker of multipart bodies; a part is name, file name or None, and content."""

    def make(image: bytes) -> bytes:
        body = b""
        for name, file, content in parts(image):
            quoted = f'; filename="{file}"' if file is not None else ""
            head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{quoted}\r\n\r\n'
            body += head.encode() + content + b"\r\n"
        body += f"--{_BOUNDARY}--\r\n".encode()
        return request("POST", path, body, f"multipart/form-data; boundary={_BOUNDARY}")

    return make


def _of(encoded: bytes, image_format: str) -> bytes:
    with Image.open(io.BytesIO(encoded)) as image:
        image.thumbnail((200, 200))
        return _encoded(image.convert("RGB"), image_format)


def _encoded(image: Image.Image, image_format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format)
    return buffer.getvalue()


def _as(image_format: str) -> Make:
    return lambda image: request(
        "POST", "/v1/predict", _of(image, image_format), "application/octet-stream"
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    """Return a PNG that announces these sides and has a few pixels."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + _chunk(b"IEND", b"")


_PREDICT, _BATCH, _OLD = "/v1/predict", "/v1/predict/batch", "/image/detection"
_URLENCODED = "application/x-www-form-urlencoded"
_BOMB = _png(64, 48, _chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(20_000_000))))
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
    "text part": (_parts(_PREDICT, lambda data: [("image", None, base64.b64encode(data))]), OK),
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
    "81 megapixels": (_fixed("POST", _PREDICT, _png(9000, 9000)), REFUSED),
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
