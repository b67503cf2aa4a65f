"""The images of a class on disk, and whether and where a new one is added.

A class has one folder, or one for each side of a split. The images that are there already, in them
and in the other folders of the data set, decide whether a new one is added: never twice in a class,
never (nor nearly so) on two sides of a split, and with a warning when another class has it too.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from imagesieve import files, images
from imagesieve.class_folders import split_of
from imagesieve.collecting.journal import HISTORY_NAME, Entry, is_as_written, kept_entries
from imagesieve.collecting.targets import JPEG, KEEP, Side, Target, neighbours
from imagesieve.errors import ImageError, ImageTooSmallError, UnreadableImageError
from imagesieve.images import DEFAULT_LIMITS, Limits, fingerprints
from imagesieve.threads import cpu_count

DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near duplicate"
OTHER_SPLIT = "in another split"
NO_ROOM = "no room"

_ENLARGES = 1.2  # times the pixels of a near-duplicate: only then a new image replaces it
_JPEG_QUALITY = 92  # hardly to be distinguished from the original, at a third of its size

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A downloaded image that decodes and is large enough."""

    data: bytes = dataclasses.field(repr=False)  # to write
    sha256: str  # of `data`, 64 hexadecimal digits
    format: str  # one of `images.FORMATS`
    width: int  # pixels of `data`, as seen
    height: int
    fingerprint: bytes = dataclasses.field(repr=False)  # for near-duplicates
    source_sha256: str = ""  # of the downloaded bytes, where `data` is not them

    @property
    def file_name(self) -> str:
        """A name that only the content decides, with the extension of its format."""
        return f"{self.sha256[:16]}{images.EXTENSIONS[self.format]}"

    def journal_fields(self) -> Entry:
        return {
            "bytes": len(self.data),
            "sha256": self.sha256,
            "source_sha256": self.source_sha256,
            "fingerprint": self.fingerprint.hex(),
            "format": self.format,
            "width": self.width,
            "height": self.height,
        }


@dataclasses.dataclass(frozen=True)
class StoredImage:
    path: Path
    sha256: str  # of the file
    fingerprint: bytes  # for near-duplicates
    num_pixels: int  # width times height
    # Whether it is what a journal says that we wrote; what others put there, or changed, is never
    # replaced.
    is_ours: bool


@dataclasses.dataclass(frozen=True)
class Destination:
    path: Path
    replaces: StoredImage | None = None  # a smaller near-duplicate whose place it takes
    also_in: tuple[Path, ...] = ()  # the same or nearly the same image in other classes


@dataclasses.dataclass(frozen=True)
class NotPlaced:
    reason: str  # `DUPLICATE`, `NEAR_DUPLICATE`, `OTHER_SPLIT` or `NO_ROOM`
    twin: StoredImage | None = None  # the image that it repeats


def validate(
    data: bytes, limits: Limits, max_side: int | None = None, file_format: str = KEEP
) -> Candidate:
    """Decode a downloaded image and return what shall be written; ImageError if it is unusable.

    An image with a side over `max_side` pixels is scaled down to it; the file format `jpg` writes
    every image as an RGB JPEG.
    """
    decoded = images.decode(data, limits, image_size=fingerprints.CHECK_SIZE)
    fingerprint = fingerprints.fingerprint(decoded.pixels)
    size = _scaled_down((decoded.width, decoded.height), max_side)
    is_large = size != (decoded.width, decoded.height)
    is_plain_jpeg = (decoded.format, decoded.mode, decoded.orientation) == ("JPEG", "RGB", 1)
    if not is_large and (file_format != JPEG or is_plain_jpeg):
        return Candidate(data, decoded.sha256, decoded.format, *size, fingerprint)
    if min(size) < limits.min_side:  # the next run would not count it
        raise ImageTooSmallError(
            f"{size[0]}×{size[1]} pixels when scaled down: "
            f"both sides must have at least {limits.min_side}"
        )
    # Scaled while it is decoded, a large JPEG takes a fraction of its memory.
    written = _encode(images.decode(data, limits, image_size=size[::-1] if is_large else None))
    digest = hashlib.sha256(written).hexdigest()
    return Candidate(written, digest, "JPEG", *size, fingerprint, decoded.sha256)


def _scaled_down(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    longest = max(size)
    if max_side is None or longest <= max_side:
        return size
    width, height = (max(1, round(side * max_side / longest)) for side in size)
    return width, height


def _encode(decoded: images.DecodedImage) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(decoded.pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


class ClassFolder:
    """The folders of one target. Any thread may call any method."""

    def __init__(
        self,
        target: Target,
        others: Iterable[Path] = (),
        limits: Limits = DEFAULT_LIMITS,
        *,
        keeps_near_duplicates: bool = False,
        scanned: dict[Path, list[StoredImage]] | None = None,
    ) -> None:
        """Scan every image of the target, and of the classes that it must keep apart from.

        Those are the other classes of its data set, and `others`. What is nearly the same can be
        kept, on the side where the first is. `scanned` has the images of absolute folders that were
        scanned before; those that are scanned now are added.
        """
        self._target = target
        self._keeps_near_duplicates = keeps_near_duplicates
        self._lock = threading.Lock()
        self._own: dict[str, StoredImage] = {}  # by SHA-256
        self._unwritten: set[str] = set()  # those in `_own` that are not on disk yet
        self._not_ours: dict[Path, StoredImage] = {}
        self._others = collections.defaultdict[str, list[StoredImage]](list)
        self._index = fingerprints.FingerprintIndex()
        self._counts = {side.folder: 0 for side in target.sides}
        # Files in the folders that are not good images; they stay where they are
        self.unusable: list[Path] = []
        for side in target.sides:
            self._read_own(side.folder, limits)
        # Good images that were there at the start, up to each side's limit
        self.num_before = sum(min(self._counts[side.folder], side.limit) for side in target.sides)
        # Those over it, which cannot stand in for what the other side lacks
        self.num_surplus = sum(self._counts.values()) - self.num_before
        scanned = {} if scanned is None else scanned
        for folder in _apart(target, others):
            if folder not in scanned:
                scanned[folder] = _good(scan(folder, limits, trusting=True))
            for image in scanned[folder]:
                self._others[image.sha256].append(image)
                self._index.add(image.sha256, image.fingerprint)

    @property
    def num_missing(self) -> int:
        """Images that the target still lacks; those being written count as there."""
        # Without the lock, since every waiting thread asks this: each count is right by itself.
        return sum(map(self._room, self._target.sides))

    def images(self) -> dict[Path, list[StoredImage]]:
        """Return the images in each of the target's folders, which are absolute."""
        found: dict[Path, list[StoredImage]] = {folder: [] for folder in self._counts}
        with self._lock:
            for image in self._own.values():
                found[image.path.parent].append(image)
        return {folder.absolute(): images for folder, images in found.items()}

    def has(self, sha256: str) -> bool:
        return sha256 in self._own

    def has_anywhere(self, sha256: str) -> bool:
        """Return whether the target, or a class that it keeps apart from, has this image."""
        return sha256 in self._own or sha256 in self._others

    def place(self, candidate: Candidate) -> Destination | NotPlaced:
        """Decide where an image goes. A destination is taken; `write` must follow."""
        # Comparing takes the longest, so only what comes meanwhile is compared under the lock.
        num_compared = len(self._index)
        found = self._index.find(candidate.fingerprint)
        with self._lock:
            if twin := self._own.get(candidate.sha256):
                return NotPlaced(DUPLICATE, twin)
            found += self._index.find(candidate.fingerprint, num_compared)
            alike = list(dict.fromkeys([candidate.sha256, *found]))  # each only once
            own = [self._own[sha256] for sha256 in alike if sha256 in self._own]
            others = [image for sha256 in alike for image in self._others.get(sha256, ())]
            return self._place_among(candidate, own, others)

    def write(
        self, candidate: Candidate, destination: Destination, record: Callable[[], None]
    ) -> None:
        """Write an image to the destination that `place` returned, once `record` has noted it.

        If either fails, the destination is free again, and what it was to replace is still there.
        """
        try:
            record()
            # After a power failure the journal says what is missing.
            files.write_bytes(destination.path, candidate.data, must_outlive_power=False)
        except BaseException:
            with self._lock:
                self._remove(candidate.sha256)
                if destination.replaces is not None:
                    self._add(destination.replaces)
            raise
        finally:
            with self._lock:
                self._unwritten.discard(candidate.sha256)  # now a larger one may replace it
        if destination.replaces is not None:
            destination.replaces.path.unlink(missing_ok=True)

    def _place_among(
        self, candidate: Candidate, own: Sequence[StoredImage], others: Sequence[StoredImage]
    ) -> Destination | NotPlaced:
        replaces = None
        if own and not self._keeps_near_duplicates:
            if len(own) > 1 or not self._is_better(candidate, own[0]):
                return NotPlaced(NEAR_DUPLICATE, own[0])
            replaces, folder = own[0], own[0].path.parent
        else:
            bound = {image.path.parent for image in own}
            if len(bound) > 1:  # nearly the same images lie on both sides already
                return NotPlaced(OTHER_SPLIT, own[0])
            sides = [side for side in self._sides(candidate) if not bound or side.folder in bound]
            free = [side.folder for side in sides if self._room(side) > 0]
            if not free:
                return NotPlaced(NO_ROOM)
            folder = free[0]
        path = folder / candidate.file_name
        if taken := self._not_ours.get(path):  # ours once, then changed
            return NotPlaced(DUPLICATE, taken)
        elsewhere = [image for image in others if split_of(image.path.parent) != split_of(folder)]
        if elsewhere:
            return NotPlaced(OTHER_SPLIT, elsewhere[0])
        self._take(candidate, path, replaces)
        return Destination(path, replaces, tuple(image.path for image in others))

    def _is_better(self, candidate: Candidate, image: StoredImage) -> bool:
        is_smaller = image.num_pixels * _ENLARGES < candidate.width * candidate.height
        return image.is_ours and is_smaller and image.sha256 not in self._unwritten

    def _sides(self, candidate: Candidate) -> list[Side]:
        """Return the sides in the order in which the image's content prefers them."""
        share = int(candidate.sha256[:8], 16) / 2**32
        prefers_validation = share < self._target.validation_fraction
        return list(reversed(self._target.sides) if prefers_validation else self._target.sides)

    def _take(self, candidate: Candidate, path: Path, replaces: StoredImage | None) -> None:
        if replaces is not None:
            self._remove(replaces.sha256)
        num_pixels = candidate.width * candidate.height
        self._add(
            StoredImage(path, candidate.sha256, candidate.fingerprint, num_pixels, is_ours=True)
        )
        self._unwritten.add(candidate.sha256)
        self._index.add(candidate.sha256, candidate.fingerprint)

    def _add(self, image: StoredImage) -> None:
        self._own[image.sha256] = image
        self._counts[image.path.parent] += 1

    def _remove(self, sha256: str) -> None:
        self._counts[self._own.pop(sha256).path.parent] -= 1

    def _room(self, side: Side) -> int:
        return max(0, side.limit - self._counts[side.folder])

    def _read_own(self, folder: Path, limits: Limits) -> None:
        found = scan(folder, limits)
        good = _good(found)
        self.unusable += [path for path, seen in found.items() if isinstance(seen, ImageError)]
        self._not_ours.update({image.path: image for image in good if not image.is_ours})
        for image in good:
            if image.sha256 not in self._own:  # a copy does not count twice
                self._add(image)
                self._index.add(image.sha256, image.fingerprint)


def _apart(target: Target, others: Iterable[Path]) -> Iterator[Path]:
    """Yield each absolute folder once that the target's images are compared with."""
    seen = {side.folder.absolute() for side in target.sides}
    beside = [folder for side in target.sides for folder in neighbours(side.folder)]
    for folder in [*beside, *(other.absolute() for other in others)]:
        if folder not in seen:
            seen.add(folder)
            yield folder


def _good(scanned: Mapping[Path, StoredImage | ImageError]) -> list[StoredImage]:
    for seen in scanned.values():
        if isinstance(seen, ImageError):
            _log.warning("not counted: %s", seen)
    return [seen for seen in scanned.values() if isinstance(seen, StoredImage)]


def scan(
    folder: Path, limits: Limits, *, trusting: bool = False
) -> dict[Path, StoredImage | ImageError]:
    """Return each file of a folder, in order of names, with its image or what is wrong with it.

    Hidden files and subfolders are left out. A file that is still what the journal says is not
    decoded again: its SHA-256 decides, or if `trusting` already its size in bytes.
    """
    paths = [
        path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if not path.name.startswith(".") and path.name != HISTORY_NAME and path.is_file()
    ]
    written = {entry["path"]: entry for entry in kept_entries(folder)}

    def read(path: Path) -> StoredImage | ImageError:
        try:
            return _read(path, written.get(path.name), limits, trusting)
        except ImageError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(cpu_count()) as pool:
        return dict(zip(paths, pool.map(read, paths), strict=True))


def _read(path: Path, entry: Entry | None, limits: Limits, trusting: bool) -> StoredImage:
    if entry is not None and min(entry["width"], entry["height"]) >= limits.min_side:
        try:
            is_ours = is_as_written(path, entry, trusting=trusting)
        except OSError as error:
            reason = f"the file cannot be read ({error.strerror or error})"
            raise UnreadableImageError(reason, str(path)) from error
        if is_ours:
            fingerprint = bytes.fromhex(entry["fingerprint"])
            num_pixels = entry["width"] * entry["height"]
            return StoredImage(path, entry["sha256"], fingerprint, num_pixels, is_ours=True)
    image = images.decode(path, limits, image_size=fingerprints.CHECK_SIZE)
    fingerprint = fingerprints.fingerprint(image.pixels)
    return StoredImage(path, image.sha256, fingerprint, image.width * image.height, is_ours=False)
