"""The images of a class on disk, and where a new one may go.

A class has one folder, or one for each side of a split. The images that are there already, in them
and in the other folders of the data set, decide whether a new one is added: never twice in a class,
never (nor nearly so) on two sides of a split, and with a warning when another class has it too.
"""

import collections
import concurrent.futures
import dataclasses
import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from imagesieve import files, images
from imagesieve.collecting.candidates import Candidate
from imagesieve.collecting.journal import HISTORY_NAME, JOURNAL_NAME, KEPT, Entry, read_entries
from imagesieve.collecting.targets import Side, Target, neighbours, split_of
from imagesieve.cores import cpu_count
from imagesieve.errors import ImageError, UnreadableImageError
from imagesieve.images import DEFAULT_LIMITS, Limits, fingerprints

DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near duplicate"
OTHER_SPLIT = "in another split"
NO_ROOM = "no room"

_ENLARGES = 1.2  # times the pixels of a near-duplicate: only then a new image replaces it
_FINGERPRINT = re.compile(f"[0-9a-f]{{{2 * fingerprints.NUM_BYTES}}}")

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class StoredImage:
    """A good image on disk."""

    path: Path
    sha256: str  # of the file
    fingerprint: bytes  # for near-duplicates
    num_pixels: int  # width times height
    # Whether it is what a journal says that we wrote; what others put there, or changed, is never
    # replaced.
    is_ours: bool


@dataclasses.dataclass(frozen=True)
class Destination:
    """Where a new image goes."""

    folder: Path
    replaces: StoredImage | None = None  # a smaller near-duplicate whose place it takes
    also_in: tuple[Path, ...] = ()  # the same or nearly the same image in other classes


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a new image is not added."""

    reason: str  # `DUPLICATE`, `NEAR_DUPLICATE`, `OTHER_SPLIT` or `NO_ROOM`
    twin: StoredImage | None = None  # the image that it repeats


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

        Args:
            others: class folders besides those of the target's data set.
            limits: a file that does not keep to them is not counted.
            keeps_near_duplicates: keep what is nearly the same, on the side where the first is.
            scanned: absolute folder -> the images in it, of classes scanned before; those that are
                scanned now are added.
        """
        self._target = target
        self._keeps_near_duplicates = keeps_near_duplicates
        self._lock = threading.Lock()
        self._own: dict[str, StoredImage] = {}
        self._unwritten: set[str] = set()  # SHA-256 of those in `_own` that are not on disk yet
        self._not_ours: dict[Path, StoredImage] = {}
        self._others: dict[str, list[StoredImage]] = collections.defaultdict(list)
        self._index = fingerprints.FingerprintIndex()
        self._counts = dict.fromkeys([side.folder for side in target.sides], 0)
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
            if folder.absolute() not in scanned:
                scanned[folder.absolute()] = _good(scan(folder, limits, trusting=True))
            for image in scanned[folder.absolute()]:
                self._others[image.sha256].append(image)
                self._index.add(image.sha256, image.fingerprint)

    @property
    def num_missing(self) -> int:
        """Images that the target still lacks; those being written count as there."""
        # Without the lock, since every waiting thread asks this: each count is right by itself.
        return sum(map(self._room, self._target.sides))

    def images(self) -> dict[Path, list[StoredImage]]:
        """Return the images in each of the target's folders, absolute, as they are now."""
        found: dict[str, list[StoredImage]] = {str(folder): [] for folder in self._counts}
        with self._lock:
            for image in self._own.values():
                found[os.path.dirname(image.path) or os.curdir].append(image)
        return {Path(folder).absolute(): images for folder, images in found.items()}

    def has(self, sha256: str) -> bool:
        """Return whether a folder of the target has this very image."""
        with self._lock:
            return sha256 in self._own

    def has_anywhere(self, sha256: str) -> bool:
        """Return whether the target, or a class that it keeps apart from, has this image."""
        with self._lock:
            return sha256 in self._own or bool(self._others.get(sha256))

    def place(self, candidate: Candidate) -> Destination | Refusal:
        """Decide where an image goes. A destination is taken until `release`."""
        # Comparing takes the longest, so only what comes meanwhile is compared under the lock.
        num_compared = len(self._index)
        found = self._index.find(candidate.fingerprint)
        with self._lock:
            if twin := self._own.get(candidate.sha256):
                return Refusal(DUPLICATE, twin)
            found += self._index.find(candidate.fingerprint, num_compared)
            twins = dict.fromkeys(found)  # each only once
            own = [self._own[sha256] for sha256 in twins if sha256 in self._own]
            alike = [candidate.sha256, *(twin for twin in twins if twin != candidate.sha256)]
            others = [image for sha256 in alike for image in self._others.get(sha256, ())]
            return self._place_among(candidate, own, others)

    def settle(self, candidate: Candidate) -> None:
        """Note that an image lies on disk; until then no larger one replaces it."""
        with self._lock:
            self._unwritten.discard(candidate.sha256)

    def release(self, candidate: Candidate, destination: Destination) -> None:
        """Undo `place` for an image that could not be written."""
        with self._lock:
            self._unwritten.discard(candidate.sha256)
            if candidate.sha256 not in self._own:
                return
            del self._own[candidate.sha256]
            self._counts[destination.folder] -= 1
            if destination.replaces is not None:
                self._own[destination.replaces.sha256] = destination.replaces
                self._counts[destination.folder] += 1

    def _place_among(
        self, candidate: Candidate, own: Sequence[StoredImage], others: Sequence[StoredImage]
    ) -> Destination | Refusal:
        replaces = None
        if own and not self._keeps_near_duplicates:
            if len(own) > 1 or not self._is_better(candidate, own[0]):
                return Refusal(NEAR_DUPLICATE, own[0])
            replaces, folder = own[0], own[0].path.parent
        else:
            bound = {image.path.parent for image in own}
            if len(bound) > 1:  # nearly the same images lie on both sides already
                return Refusal(OTHER_SPLIT, own[0])
            sides = [side for side in self._sides(candidate) if not bound or side.folder in bound]
            free = [side.folder for side in sides if self._room(side) > 0]
            if not free:
                return Refusal(NO_ROOM)
            folder = free[0]
        if taken := self._not_ours.get(folder / candidate.file_name):  # ours once, then changed
            return Refusal(DUPLICATE, taken)
        elsewhere = [image for image in others if split_of(image.path.parent) != split_of(folder)]
        if elsewhere:
            return Refusal(OTHER_SPLIT, elsewhere[0])
        self._take(candidate, folder, replaces)
        return Destination(folder, replaces, tuple(image.path for image in others))

    def _is_better(self, candidate: Candidate, image: StoredImage) -> bool:
        is_smaller = image.num_pixels * _ENLARGES < candidate.num_pixels
        return image.is_ours and is_smaller and image.sha256 not in self._unwritten

    def _sides(self, candidate: Candidate) -> list[Side]:
        """Return the sides in the order in which the image's content prefers them."""
        share = int(candidate.sha256[:8], 16) / 2**32
        prefers_validation = share < self._target.validation_fraction
        return list(reversed(self._target.sides) if prefers_validation else self._target.sides)

    def _take(self, candidate: Candidate, folder: Path, replaces: StoredImage | None) -> None:
        if replaces is not None:
            del self._own[replaces.sha256]
            self._counts[folder] -= 1
        self._own[candidate.sha256] = StoredImage(
            folder / candidate.file_name,
            candidate.sha256,
            candidate.fingerprint,
            candidate.num_pixels,
            is_ours=True,
        )
        self._unwritten.add(candidate.sha256)
        self._index.add(candidate.sha256, candidate.fingerprint)
        self._counts[folder] += 1

    def _room(self, side: Side) -> int:
        return max(0, side.limit - self._counts[side.folder])

    def _read_own(self, folder: Path, limits: Limits) -> None:
        finish_replacements(folder)
        found = scan(folder, limits)
        good = _good(found)
        self.unusable += [path for path, seen in found.items() if isinstance(seen, ImageError)]
        self._not_ours.update({image.path: image for image in good if not image.is_ours})
        for image in good:
            if image.sha256 not in self._own:  # a copy does not count twice
                self._own[image.sha256] = image
                self._index.add(image.sha256, image.fingerprint)
                self._counts[folder] += 1


def _apart(target: Target, others: Iterable[Path]) -> Iterator[Path]:
    """Yield each folder once that the target's images are compared with."""
    seen = {side.folder.absolute() for side in target.sides}
    beside = [folder for side in target.sides for folder in neighbours(side.folder)]
    for folder in [*beside, *others]:
        if folder.absolute() not in seen:
            seen.add(folder.absolute())
            yield folder


def _good(scanned: Mapping[Path, StoredImage | ImageError]) -> list[StoredImage]:
    for seen in scanned.values():
        if isinstance(seen, ImageError):
            _log.warning("not counted: %s", seen)
    return [seen for seen in scanned.values() if isinstance(seen, StoredImage)]


def scan(
    folder: Path, limits: Limits, *, trusting: bool = False
) -> dict[Path, StoredImage | ImageError]:
    """Read every file of a folder, except hidden ones and subfolders.

    A file that is still what the journal says is not decoded again: its SHA-256 decides, or if
    `trusting` already its size in bytes. The folder may be missing.

    Returns:
        path -> the good image, or what is wrong with the file; in order of their names.
    """
    paths = [
        path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if not path.name.startswith(".") and path.name != HISTORY_NAME and path.is_file()
    ]
    written = {entry["path"]: entry for entry in _written(folder)}

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
            is_as_written = _is_as_written(path, entry, trusting=trusting)
        except OSError as error:
            reason = f"the file cannot be read ({error.strerror or error})"
            raise UnreadableImageError(reason, str(path)) from error
        if is_as_written:
            fingerprint = bytes.fromhex(entry["fingerprint"])
            num_pixels = entry["width"] * entry["height"]
            return StoredImage(path, entry["sha256"], fingerprint, num_pixels, is_ours=True)
    image = images.decode(path, limits, image_size=fingerprints.CHECK_SIZE)
    fingerprint = fingerprints.fingerprint(image.pixels)
    return StoredImage(path, image.sha256, fingerprint, image.width * image.height, is_ours=False)


def _is_as_written(path: Path, entry: Entry, *, trusting: bool = False) -> bool:
    is_same_size = path.stat().st_size == entry["bytes"]
    return is_same_size and (trusting or files.sha256_of(path) == entry["sha256"])


def _written(folder: Path) -> list[Entry]:
    entries = read_entries(folder / JOURNAL_NAME)
    return [entry for entry in entries if entry.get("status") == KEPT and _is_complete(entry)]


def _is_complete(entry: Entry) -> bool:
    numbers = all(isinstance(entry.get(name), int) for name in ("bytes", "width", "height"))
    texts = all(isinstance(entry.get(name), str) for name in ("path", "sha256", "fingerprint"))
    return (
        numbers
        and texts
        and Path(entry["path"]).name == entry["path"]
        and _FINGERPRINT.fullmatch(entry["fingerprint"]) is not None
    )


def finish_replacements(folder: Path) -> None:
    """Remove an image whose larger copy was written just before the run was killed."""
    written = _written(folder)
    by_name = {entry["path"]: entry for entry in written}
    replaced: dict[str, str] = {}  # the smaller image -> the larger
    for entry in written:
        replaced.pop(entry["path"], None)  # it was written once more, beside the larger
        if isinstance(old := entry.get("replaces"), str) and old in by_name:
            replaced[old] = entry["path"]
    with files.reporting_output_errors(folder):
        for pair in replaced.items():
            # Only if both are ours and unchanged: better a copy too many than a loss.
            if all(
                (folder / name).is_file() and _is_as_written(folder / name, by_name[name])
                for name in pair
            ):
                (folder / pair[0]).unlink()
