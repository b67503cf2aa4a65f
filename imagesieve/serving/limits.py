"""What one request, and all requests together, may cost."""

import contextlib
import dataclasses
import io
import math
import random
import threading
import time
from collections.abc import Callable, Iterator

from PIL import Image

from imagesieve.images import Limits, containers, sniff
from imagesieve.serving.errors import OverloadedError

BATCH_PATH = "/v1/predict/batch"  # the HTTP server lets larger bodies through to it
_IMAGES = Limits(max_bytes=10 * 2**20)  # a good photo at full size
_NEWEST = 0.1  # weight of the last request in how long they take of late


@dataclasses.dataclass(frozen=True)
class ServingLimits:
    """The limits of the service, each with its unit."""

    images: Limits = _IMAGES  # bytes, pixels and sides of one image
    # Bytes. The largest image as Base64 with its signs percent-encoded and its lines broken fits.
    max_body_bytes: int = 16 * 2**20
    max_form_fields: int = 16  # urlencoded fields, multipart parts, and fields of a query
    max_part_header_bytes: int = 16_384  # of one multipart part; long file names fit
    max_escapes: int = 1000  # percent escapes in one field, those of Base64's own signs aside
    max_option_chars: int = 1000  # of a form field that is no image, before its own check
    max_json_marks: int = 64  # of each of [ { , and : in a JSON body
    max_object_bytes: int = 65_536  # of a JSON body that carries no image
    max_batch_images: int = 32
    max_batch_bytes: int = 32 * 2**20
    max_batches: int = 2  # at once: each holds all its images
    max_fetches: int = 4  # images being fetched from addresses at once
    max_frames: int = 8  # of an animation
    max_in_flight: int = 16  # requests being worked on
    max_waiting: int = 48  # requests that wait for one of those places; the next one is refused
    max_waiting_seconds: float = 0.5  # then they are refused too: to come back soon costs more
    max_decoding: int = 4  # images decoded at once: up to 16 bytes a pixel each
    heavy_pixels: int = 8_000_000  # images above are decoded one after another
    max_decoding_wait: float = 20.0  # seconds to wait for a place to decode
    spare_threads: int = 16  # they answer health probes and refusals while all places are taken
    max_connections: int = 1000
    max_waiting_bytes: int = 512 * 2**20  # of all bodies being received or waiting, together
    idle_seconds: int = 30  # a silent connection is closed
    deadline_seconds: float = 20.0  # from the request's arrival to the engine's answer
    batch_deadline_seconds: float = 60.0
    cache_entries: int = 10_000  # answers known by content; 0 asks the model every time
    drain_seconds: float = 20.0  # how long a stopping server waits for requests in flight

    @property
    def num_threads(self) -> int:
        """Threads of the HTTP server."""
        return self.max_in_flight + self.max_waiting + self.spare_threads


class Admission:
    """Hands out the places of `ServingLimits` and takes them back whatever happens.

    Attributes:
        limits: how many there are, and what else a request may cost.
    """

    def __init__(self, limits: ServingLimits | None = None) -> None:
        self.limits = limits = limits or ServingLimits()
        self._places = threading.BoundedSemaphore(limits.max_in_flight)
        self._waiting_room = threading.BoundedSemaphore(limits.max_waiting)
        self._batch_places = threading.BoundedSemaphore(limits.max_batches)
        self._light_lane = threading.BoundedSemaphore(limits.max_decoding)
        self._heavy_lane = threading.BoundedSemaphore(1)
        self._lock = threading.Lock()
        self._in_flight = 0
        self._seconds = 0.0  # that a request holds its place, of late

    @property
    def in_flight(self) -> int:
        """Requests being worked on."""
        return self._in_flight

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for requests in flight; some callers may wait a moment for it.

        Raises:
            OverloadedError: none became free.
        """
        with _holding(self._places, f"{self.limits.max_in_flight} requests", self._wait):
            begun = time.monotonic()
            with self._lock:
                self._in_flight += 1
            try:
                yield
            finally:
                with self._lock:
                    self._in_flight -= 1
                    self._seconds += _NEWEST * (time.monotonic() - begun - self._seconds)

    def _wait(self) -> bool:
        if not self._waiting_room.acquire(blocking=False):
            return False
        try:
            return self._places.acquire(timeout=self.limits.max_waiting_seconds)
        finally:
            self._waiting_room.release()

    @contextlib.contextmanager
    def batch_place(self) -> Iterator[None]:
        """Hold a place for a batch besides; never waits.

        Raises:
            OverloadedError: all are taken.
        """
        with _holding(self._batch_places, f"{self.limits.max_batches} batches"):
            yield

    def retry_after(self) -> int:
        """Give the seconds in which a place should become free, 1 to 30.

        A fifth is left to chance, so that those who were refused together do not come back
        together.
        """
        spread = random.uniform(0.8, 1.2)  # noqa: S311 (no secret)
        return min(30, max(1, math.ceil(spread * self._seconds)))

    @contextlib.contextmanager
    def decoding(self, data: bytes, deadline: float = math.inf) -> Iterator[None]:
        """Hold a place to decode `data`; large images take turns in a lane of their own.

        Args:
            data: the encoded image.
            deadline: of the request, by `time.monotonic`.

        Raises:
            OverloadedError: no place became free in time.
        """
        width, height = announced_size(data)
        heavy = width * height > self.limits.heavy_pixels
        lane = self._heavy_lane if heavy else self._light_lane
        wait = min(self.limits.max_decoding_wait, max(0.0, deadline - time.monotonic()))
        if not lane.acquire(timeout=wait):
            raise OverloadedError("Other images take too long to decode: try again in a moment.")
        try:
            yield
        finally:
            lane.release()


@contextlib.contextmanager
def _holding(
    places: threading.BoundedSemaphore, what: str, wait: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    if not places.acquire(blocking=False) and not wait():
        raise OverloadedError(f"{what} are being worked on already: try again in a moment.")
    try:
        yield
    finally:
        places.release()


def announced_size(data: bytes) -> tuple[int, int]:
    """Give width and height from an image's header, before orientation.

    Both are 0 when `decode` will refuse it.
    """
    image_format = sniff(data)
    if image_format is None:
        return 0, 0
    try:
        containers.check(image_format, data)
        with Image.open(io.BytesIO(data), formats=[image_format]) as image:
            return image.size
    except Exception:  # hostile headers raise nearly anything; `decode` names the fault
        return 0, 0
