"""The blocks that image files are made of, counted before a decoder goes through all of them.

Most of what decoders do with blocks costs little. But nine megabytes have room for 750,000 scans of
a JPEG, each of which goes over the whole image, which takes hours; or for millions of comments,
which Pillow reads one by one while every other thread waits.
"""

import itertools
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from imagesieve.errors import UndecodableImageError

# The format of PNG allows a single colour profile; of texts some programs write a dozen.
_PNG_EXTRAS = MappingProxyType({b"iCCP": 1, b"zTXt": 32, b"iTXt": 32})
_MOST_PNG_CHUNKS = 20_000  # pixels mostly come in chunks of 8 kB or more
_MOST_JPEG_SCANS = 64  # progressive images have ten; optimisers try a few more
_MOST_JPEG_SEGMENTS = 2000  # colour profiles and comments come in pieces of 64 kB
_MOST_JPEG_JUNK = 65_536  # bytes between segments, which belong to none
_MOST_GIF_NOTES = (
    10_000  # pieces of what is not a frame; 255 bytes each, where a program wrote them
)
_GIF_PIECE_BYTES = 64  # of frames, on average at least

_FRAME, _PIXELS, _NOTE = "frame", "pixels", "note"

_SCAN, _END = b"\xff\xda", b"\xff\xd9"
# What begins with FF and is neither data (FF00), nor filling (FFFF), nor a mark within a scan.
_JPEG_MARK = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_BARE = frozenset(bytes([0xFF, code]) for code in (0x01, *range(0xD0, 0xDA)))


def check(image_format: str, data: bytes) -> None:
    """Raise UndecodableImageError if an image has more blocks than any program writes."""
    if checker := _CHECKERS.get(image_format):
        checker(data)


def num_gif_frames(data: bytes, most: int) -> int:
    """Count the frames of a GIF, up to `most`, without decoding any."""
    frames = (kind for kind in _gif_pieces(data) if kind == _FRAME)
    return sum(1 for _ in itertools.islice(frames, most))


def _check_png(data: bytes) -> None:
    counts = dict.fromkeys(_PNG_EXTRAS, 0)
    total, position = 0, 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        total += 1
        if total > _MOST_PNG_CHUNKS:
            raise _too_many("PNG", "chunks", _MOST_PNG_CHUNKS)
        if kind in counts:
            counts[kind] += 1
            if counts[kind] > _PNG_EXTRAS[kind]:
                raise _too_many("PNG", f"blocks {kind.decode()}", _PNG_EXTRAS[kind])


def _check_jpeg(data: bytes) -> None:
    first_scan = _find_first_scan(data)
    # A quick look: those in a film behind the image are counted here as well.
    if first_scan is None or data.count(_SCAN, first_scan) <= _MOST_JPEG_SCANS:
        return
    scans = 0
    for number, mark in enumerate(_jpeg_marks(data, first_scan)):
        scans += mark == _SCAN
        if scans > _MOST_JPEG_SCANS:
            raise _too_many("JPEG", "scans", _MOST_JPEG_SCANS)
        if number > _MOST_JPEG_SEGMENTS:
            raise _too_many("JPEG", "segments", _MOST_JPEG_SEGMENTS)


def _find_first_scan(data: bytes) -> int | None:
    """Return where the first scan begins, or None if there is none."""
    junk, position = 0, 2
    for _ in range(_MOST_JPEG_SEGMENTS):
        found = _JPEG_MARK.search(data, position)
        if found is None:
            return None
        junk += found.start() - position
        if junk > _MOST_JPEG_JUNK:
            raise UndecodableImageError("the JPEG has too much between its segments: save it anew")
        if found[0] == _SCAN:
            return found.start()
        position = _behind(data, found)
    raise _too_many("JPEG", "segments", _MOST_JPEG_SEGMENTS)


def _jpeg_marks(data: bytes, position: int) -> Iterator[bytes]:
    """Yield the marks of segments up to the end of the image."""
    while (found := _JPEG_MARK.search(data, position)) and found[0] != _END:
        yield found[0]
        position = _behind(data, found)


def _behind(data: bytes, found: re.Match[bytes]) -> int:
    """Return where a segment ends; the pixels of a scan come behind that."""
    start = found.end()
    if found[0] in _JPEG_BARE or start + 2 > len(data):
        return start
    return start + max(2, int.from_bytes(data[start : start + 2]))


def _check_gif(data: bytes) -> None:
    notes = pixels = 0
    for kind in _gif_pieces(data):
        notes += kind == _NOTE
        pixels += kind == _PIXELS
        if notes > _MOST_GIF_NOTES:
            raise _too_many("GIF", "pieces of notes", _MOST_GIF_NOTES)
        if pixels > _MOST_GIF_NOTES + len(data) / _GIF_PIECE_BYTES:
            raise UndecodableImageError("the GIF has its pixels in tiny pieces: save it anew")


def _gif_pieces(data: bytes) -> Iterator[str]:
    """Yield what each piece is: a frame's beginning, some of its pixels, or anything else."""
    if len(data) < 13:
        return
    position = 13 + _colours(data[10])
    while position < len(data) and (first := data[position : position + 1]) != b";":
        if first == b",":
            yield _FRAME
            flags = data[position + 9 : position + 10] or b"\0"
            position += 11 + _colours(flags[0])
        else:
            yield _NOTE
            position += 2 if first == b"!" else 1
        if first not in (b",", b"!"):  # a byte that belongs to nothing
            continue
        while position < len(data) and (length := data[position]):
            yield _PIXELS if first == b"," else _NOTE
            position += 1 + length
        position += 1


def _colours(flags: int) -> int:
    """Return the bytes of the table of colours that the flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _too_many(image_format: str, what: str, most: int) -> UndecodableImageError:
    return UndecodableImageError(f"the {image_format} has over {most} {what}: save it anew")


_CHECKERS: Mapping[str, Callable[[bytes], None]] = MappingProxyType(
    {"PNG": _check_png, "JPEG": _check_jpeg, "GIF": _check_gif}
)
