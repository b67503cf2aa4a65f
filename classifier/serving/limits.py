"""What one request, and all requests together, may cost."""

import contextlib
import dataclasses
import io
import threading
from collections.abc import Iterator

from PIL import Image

from classifier import images
from classifier.serving.problems import OverloadedError

_PICTURES = images.Limits(max_bytes=10 * 2**20)  # a good photo at full size


@dataclasses.dataclass(frozen=True)
class ServingLimits:
    """The limits of the service, each with its unit."""

    pictures: images.Limits = _PICTURES  # bytes, pixels and sides of one picture
    # Bytes. The largest picture as Base64 with its signs percent-encoded and its lines broken fits.
    max_body_bytes: int = 16 * 2**20
    max_form_fields: int = 16  # urlencoded fields, multipart parts, and fields of a query
    max_part_header_bytes: int = 16_384  # of one multipart part; long file names fit
    max_escapes: int = 1000  # percent escapes in one field, those of Base64's own signs aside
    max_option_chars: int = 1000  # of a form field that is no picture, before its own check
    max_json_marks: int = 64  # of each of [ { , and : in a JSON body
    max_in_flight: int = 16  # requests being worked on; the next one is refused
    max_decoding: int = 4  # pictures decoded at once: up to 16 bytes a pixel each
    heavy_pixels: int = 8_000_000  # pictures above are decoded one after another
    max_decoding_wait: float = 20.0  # seconds to wait for a place to decode
    spare_threads: int = 16  # they answer health probes and refusals while all places are taken
    max_connections: int = 1000
    idle_seconds: int = 30  # a silent connection is closed
    retry_after_seconds: int = 1  # what refused callers are told
    drain_seconds: float = 20.0  # how long a stopping server waits for requests in flight

    @property
    def num_threads(self) -> int:
        """Threads of the HTTP server."""
        return self.max_in_flight + self.spare_threads


class Admission:
    """Hands out the places of `ServingLimits` and takes them back whatever happens."""

    def __init__(self, limits: ServingLimits) -> None:
        self._limits = limits
        self._places = threading.BoundedSemaphore(limits.max_in_flight)
        self._light_lane = threading.BoundedSemaphore(limits.max_decoding)
        self._heavy_lane = threading.BoundedSemaphore(1)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for requests in flight; never waits.

        Raises:
            OverloadedError: all are taken.
        """
        if not self._places.acquire(blocking=False):
            raise OverloadedError(
                f"{self._limits.max_in_flight} requests are being worked on already: try again "
                "in a moment."
            )
        try:
            yield
        finally:
            self._places.release()

    @contextlib.contextmanager
    def decoding(self, data: bytes) -> Iterator[None]:
        """Hold a place to decode `data`; large pictures take turns in a lane of their own.

        Raises:
            OverloadedError: no place became free in time.
        """
        heavy = announced_pixels(data) > self._limits.heavy_pixels
        lane = self._heavy_lane if heavy else self._light_lane
        if not lane.acquire(timeout=self._limits.max_decoding_wait):
            raise OverloadedError("Other pictures take too long to decode: try again in a moment.")
        try:
            yield
        finally:
            lane.release()


def announced_pixels(data: bytes) -> int:
    """Give width × height from a picture's header, or 0 when `images.decode` will refuse it."""
    picture_format = images.sniff(data)
    if picture_format is None:
        return 0
    try:
        with Image.open(io.BytesIO(data), formats=[picture_format]) as image:
            return image.width * image.height
    except Exception:  # hostile headers raise nearly anything; `decode` names the fault
        return 0
