"""The images predicted last, in memory: they can be corrected by the id of their prediction."""

import dataclasses
import threading
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

import cachetools

from imagesieve.feedback import AUDIT, UNCERTAIN
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving import schemas

if TYPE_CHECKING:
    from imagesieve.serving.feedback.image_store import ImageStore

Reason = Literal["uncertain", "audit", "recent"]

_IDS_PER_IMAGE = 16  # on average: the same image may be sent again and again


@dataclasses.dataclass(frozen=True, eq=False)
class RecentImage:
    """An image and the last prediction of it.

    Attributes:
        sha256: of the encoded bytes.
        id: of the prediction.
        prediction: what was answered.
        digest: of the model that made it.
        name: of that model.
        reason: why it should be reviewed, from `Selection.reason`.
        num_bytes: of the encoded image.
        created: ISO 8601, UTC.
    """

    sha256: str
    id: str
    prediction: Prediction
    digest: str
    name: str
    reason: Reason
    num_bytes: int
    created: str = dataclasses.field(
        default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    )

    def to_review(self) -> schemas.ReviewImage:
        """Return the image as an answer."""
        return schemas.ReviewImage(
            sha256=self.sha256,
            id=self.id,
            reason=self.reason,
            created=self.created,
            **dataclasses.asdict(self.prediction),
        )


@dataclasses.dataclass(frozen=True)
class RecentLimits:
    """How many images, and how many bytes of them, are held; the oldest make room for others."""

    max_images: int = 1000
    max_bytes: int = 64 * 2**20


class RecentImages:
    """Holds images for any number of threads; `add` never waits for a disk."""

    def __init__(
        self,
        limits: RecentLimits | None = None,
        disk: "ImageStore | None" = None,
        reasons_to_store: Collection[str] = (UNCERTAIN, AUDIT),
    ) -> None:
        """Start empty.

        Args:
            limits: of the memory.
            disk: where images are stored too; None stores none.
            reasons_to_store: which reasons bring an image there.
        """
        limits = limits or RecentLimits()
        self._max_images = limits.max_images
        self._disk = disk
        self._reasons_to_store = frozenset(reasons_to_store)
        self._lock = threading.Lock()
        self._images: cachetools.FIFOCache[str, tuple[RecentImage, bytes]]
        self._images = cachetools.FIFOCache(limits.max_bytes, getsizeof=lambda item: len(item[1]))
        self._sha256: cachetools.FIFOCache[str, str]
        self._sha256 = cachetools.FIFOCache(_IDS_PER_IMAGE * max(1, limits.max_images))

    def add(self, image: RecentImage, data: bytes) -> bool:
        """Hold an image that was just predicted; return whether its id can be corrected now.

        Args:
            image: what was predicted.
            data: the encoded image.
        """
        if len(data) > self._images.maxsize or self._max_images < 1:
            return False
        with self._lock:
            self._images[image.sha256] = image, data
            self._sha256[image.id] = image.sha256
            while len(self._images) > self._max_images:
                self._images.popitem()
        self._store(image, data)
        return True

    def by_id(self, image_id: str) -> RecentImage | None:
        """Return the image of a prediction, or None."""
        with self._lock:
            found = self._images.get(self._sha256.get(image_id, ""))
        if found is not None:
            return found[0]
        return self._disk.by_id(image_id) if self._disk else None

    def by_sha256(self, sha256: str) -> RecentImage | None:
        """Return an image by its content, or None."""
        with self._lock:
            found = self._images.get(sha256)
        if found is not None:
            return found[0]
        return self._disk.by_sha256(sha256) if self._disk else None

    def data(self, sha256: str) -> bytes | None:
        """Return the encoded image, or None when it is not there any more."""
        with self._lock:
            found = self._images.get(sha256)
        if found is not None:
            return found[1]
        return self._disk.data(sha256) if self._disk else None

    def all(self) -> list[RecentImage]:
        """Return all images, in memory and on disk."""
        stored = self._disk.all() if self._disk else []
        with self._lock:
            in_memory = {sha256: image for sha256, (image, _) in self._images.items()}
        return [*(image for image in stored if image.sha256 not in in_memory), *in_memory.values()]

    def note_corrected(self, sha256: str) -> None:
        """Remove an image from the disk. In memory it stays for a while."""
        if self._disk:
            self._disk.remove(sha256)

    def note_undone(self, sha256: str) -> None:
        """Store an image again, if it is still in memory: its correction was undone."""
        with self._lock:
            found = self._images.get(sha256)
        if found is not None:
            self._store(*found)

    def _store(self, image: RecentImage, data: bytes) -> None:
        if self._disk is not None and image.reason in self._reasons_to_store:
            self._disk.put(image, data)
