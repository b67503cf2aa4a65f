"""What the fake Bing lists: many ordinary images, or the hostile set."""

import base64
import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from downloads_rig import images
from downloads_rig.answers import (
    Answer,
    drip,
    endless,
    hang,
    in_turn,
    redirect,
    send,
    send_pieces,
)

_JPEG, _PNG, _WEBP = ("jpg", "jpeg"), ("png",), ("webp",)
_LARGE_MIB = 60
_INFLATED_MIB = 100


@dataclasses.dataclass(frozen=True)
class Link:
    """One result of the search."""

    name: str  # what it is, in few words
    path: str  # of its address, as it stands in the result page
    answer: Answer  # of its host
    is_good: bool  # whether a downloader should keep it
    # of the files that it may become on disk; none if it can become no whole file
    sha256s: tuple[str, ...] = ()
    md5: str = ""  # Bing's digest of the image; from the name when no image is behind it
    endings: tuple[str, ...] = _JPEG  # of a file name that fit its content
    copy_of: str = ""  # the name of the link that shows the same image, or ""
    others: tuple[tuple[str, Answer], ...] = ()  # further paths of its host, for redirects

    def __post_init__(self) -> None:
        if not self.md5:
            object.__setattr__(self, "md5", _md5(self.name.encode()))

    @property
    def thumbnail_id(self) -> str:
        """Bing's name for the thumbnail, made from the digest as Bing makes it."""
        return "OIP." + base64.urlsafe_b64encode(bytes.fromhex(self.md5)).decode().rstrip("=")


def throughput_set(num_links: int) -> list[Link]:
    """Return ordinary JPEGs, no two alike."""
    return [
        _good(f"image {number}", f"/images/{number}.jpg", images.jpeg(number))
        for number in range(num_links)
    ]


def hostile_set(without: Sequence[str] = ()) -> list[Link]:
    """Return what the web is like: one result page, with what takes longest at its end."""
    links = [*_ordinary(), *_odd_images(), *_odd_answers(), *_not_images(), *_traps(), *_slow()]
    return [link for link in links if link.name not in without]


def _ordinary() -> list[Link]:
    return [
        _good(f"JPEG {number}", f"/ordinary/{number}.jpg", images.jpeg(10_000 + number))
        for number in range(6)
    ]


def _odd_images() -> list[Link]:
    png = images.encode(images.noise(11_000), "PNG")
    webp = images.encode(images.noise(11_001), "WEBP")
    return [
        _good("PNG behind .jpg", "/really-png.jpg", png, endings=_PNG),
        _good("WebP behind .jpg", "/really-webp.jpg", webp, endings=_WEBP),
        _good("16-bit PNG", "/deep.png", images.deep_png(11_002), endings=_PNG),
        _good("Adobe CMYK JPEG", "/cmyk.jpg", images.cmyk_jpeg(11_003)),
        _good("EXIF-rotated JPEG", "/rotated.jpg", images.rotated_jpeg(11_004)),
        _good("& in the address", "/of.jpg?a=1&b=2", images.jpeg(11_005)),
        _good("non-ASCII address", "/Grüße/寿司.jpg", images.jpeg(11_006)),
        _good("no ending in the address", "/image/42", images.jpeg(11_007)),
    ]


def _odd_answers() -> list[Link]:
    busy = send(b"later", 503, Content_Type="text/plain")
    wait = send(b"later", 429, Content_Type="text/plain", Retry_After="1")
    once, again, moved = (images.jpeg(seed) for seed in (12_000, 12_001, 12_002))
    there = (("/moved/there.jpg", send(moved)),)
    go_there = redirect("/moved/there.jpg")
    return [
        _good("503 once, then there", "/busy.jpg", once, in_turn(busy, send(once))),
        _good("429 with Retry-After: 1", "/wait.jpg", again, in_turn(wait, send(again))),
        _good("redirect to an image", "/moved.jpg", moved, go_there, others=there),
    ]


def _not_images() -> list[Link]:
    whole = images.jpeg(13_000)
    page = b"<!DOCTYPE html><html><body>Please subscribe.</body></html>"
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"><rect/></svg>'
    dot = images.encode(images.noise(13_001, (1, 1)), "PNG")
    gone = send(b"gone", 404, Content_Type="text/html")
    return [
        _bad("truncated JPEG", "/half.jpg", whole[: len(whole) // 2]),
        _bad("JPEG without its last byte", "/almost.jpg", images.jpeg(13_002)[:-1]),
        _bad("HTML as image/jpeg", "/page.jpg", page),
        _bad("SVG", "/drawing.svg", svg, send(svg, Content_Type="image/svg+xml")),
        _bad("0 bytes", "/nothing.jpg", b""),
        _bad("1x1 pixel", "/dot.png", dot, send(dot, Content_Type="image/png")),
        _bad("404", "/gone.jpg", b"gone", gone),
    ]


def _traps() -> list[Link]:
    first, shrunk = images.jpeg(10_000), images.smaller(images.noise(10_001))
    bomb, secret, large = images.png_bomb(), images.jpeg(14_000), images.jpeg(14_001)
    zipped = images.gzip_bomb(large, _INFLATED_MIB)
    small = images.encode(shrunk)
    to_loop = (("/loop/b.jpg", redirect("/loop/a.jpg")),)
    send_large = send_pieces(lambda: images.padded(large, _LARGE_MIB), _LARGE_MIB * 2**20)
    large_digest = _digest(images.padded(large, _LARGE_MIB))
    zipped_digests = (_digest([zipped]), _digest(images.padded(large, _INFLATED_MIB)))
    send_zipped = send(zipped, Content_Encoding="gzip")
    return [
        _bad("same bytes again", "/copies/first.jpg", first, copy_of="JPEG 0"),
        _bad("resized near-duplicate", "/copies/small.jpg", small, copy_of="JPEG 1"),
        _bad("X-Robots-Tag: noai", "/mine.jpg", secret, send(secret, X_Robots_Tag="noai")),
        _bad("PNG of 256 Mpixel", "/bomb.png", bomb, send(bomb, Content_Type="image/png")),
        Link("60 MB", "/large.jpg", send_large, False, (large_digest,)),
        Link("gzip of 100 MB", "/zipped.jpg", send_zipped, False, zipped_digests),
        Link("redirect loop", "/loop/a.jpg", redirect("/loop/b.jpg"), False, others=to_loop),
        Link("redirect to file:", "/inside.jpg", redirect("file:///etc/hostname"), False),
    ]


def _slow() -> list[Link]:
    start = images.jpeg(15_000)
    return [
        _bad("1 byte a second", "/drip.jpg", start[:24], drip(start[:24], 1.0)),
        Link("never answers", "/hang.jpg", hang, False),
        Link("endless body", "/endless.jpg", endless(start, 1_000_000), False),
    ]


def _good(name: str, path: str, body: bytes, answer: Answer | None = None, **more: Any) -> Link:
    return Link(name, path, answer or send(body), True, (_digest([body]),), _md5(body), **more)


def _bad(name: str, path: str, body: bytes, answer: Answer | None = None, **more: Any) -> Link:
    return Link(name, path, answer or send(body), False, (_digest([body]),), _md5(body), **more)


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
