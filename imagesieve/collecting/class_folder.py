"""The images on disk that a run must know, and where a new one may go.

A class has one folder, or one for each side of a split. Whatever is there already, in them and in
the other folders of the data set, decides whether a new image is wanted: never twice in a class,
never (nor nearly so) on two sides of a split, and with a warning when another class has it too.
"""

import collections
import dataclasses
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from imagesieve.collecting.candidates import Candidate
from imagesieve.collecting.on_disk import Image, finish_replacements, scan
from imagesieve.collecting.targets import SPLITS, Side, Target, neighbours
from imagesieve.images import DEFAULT_LIMITS, Limits, fingerprints

DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near duplicate"
OTHER_SPLIT = "in another split"
NO_ROOM = "no room"

_ENLARGES = 1.2  # times the pixels of a near-duplicate: only then a new image is worth the change


_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a new image goes.

    Attributes:
        folder: where to write it.
        replaces: a smaller near-duplicate whose place it takes, or None.
        also_in: the same or nearly the same image in other classes.
    """

    folder: Path
    replaces: Image | None = None
    also_in: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a new image is not wanted.

    Attributes:
        reason: `DUPLICATE`, `NEAR_DUPLICATE`, `OTHER_SPLIT` or `NO_ROOM`.
        twin: the image that it repeats, or None.
    """

    reason: str
    twin: Image | None = None


class Shelf:
    """The folders of one target. Any thread may call any method.

    Attributes:
        unusable: files in the target's folders that are no good images; they stay where they are.
        num_before: good images that were there at the start, up to each side's limit.
        num_surplus: those over it, which cannot stand in for what the other side lacks.
    """

    def __init__(
        self,
        target: Target,
        others: Iterable[Path] = (),
        limits: Limits = DEFAULT_LIMITS,
        *,
        keeps_near_duplicates: bool = False,
        scanned: dict[Path, list[Image]] | None = None,
    ) -> None:
        """Look at every image of the target, and of the classes it must keep apart from.

        Args:
            others: class folders besides those of the data set that the target belongs to.
            limits: a file that does not keep to them is not counted.
            keeps_near_duplicates: keep what is nearly the same, on the side where the first is.
            scanned: absolute folder -> the images in it, of classes looked at before; what is
                looked at now is added.
        """
        self._target = target
        self._keeps_near_duplicates = keeps_near_duplicates
        self._lock = threading.Lock()
        self._own: dict[str, Image] = {}
        self._unwritten: set[str] = set()  # SHA-256 of those in `_own` that are not on disk yet
        self._not_ours: dict[Path, Image] = {}
        self._others: dict[str, list[Image]] = collections.defaultdict(list)
        self._index = fingerprints.FingerprintIndex()
        self._counts = dict.fromkeys([side.folder for side in target.sides], 0)
        self.unusable: list[Path] = []
        for side in target.sides:
            self._read_own(side.folder, limits)
        self.num_before = sum(min(self._counts[side.folder], side.limit) for side in target.sides)
        self.num_surplus = sum(self._counts.values()) - self.num_before
        scanned = {} if scanned is None else scanned
        for folder in _apart(target, others):
            if folder.absolute() not in scanned:
                scanned[folder.absolute()] = scan(folder, limits, trusting=True)[0]
            for image in scanned[folder.absolute()]:
                self._others[image.sha256].append(image)
                self._index.add(image.sha256, image.fingerprint)

    @property
    def num_missing(self) -> int:
        """Images that are still wanted; those being written count as there."""
        # Without the lock, since every waiting thread asks this: each count is right by itself.
        return sum(map(self._room, self._target.sides))

    def images(self) -> dict[Path, list[Image]]:
        """Give the images in each of the target's folders, absolute, as they are now."""
        found: dict[str, list[Image]] = {str(folder): [] for folder in self._counts}
        with self._lock:
            for image in self._own.values():
                found[os.path.dirname(image.path) or os.curdir].append(image)
        return {Path(folder).absolute(): images for folder, images in found.items()}

    def holds(self, sha256: str) -> bool:
        """Tell whether a folder of the target has this very image."""
        with self._lock:
            return sha256 in self._own

    def knows(self, sha256: str) -> bool:
        """Tell whether the target, or a class that it keeps apart from, has this image."""
        with self._lock:
            return sha256 in self._own or bool(self._others.get(sha256))

    def place(self, candidate: Candidate) -> Place | Refusal:
        """Decide where an image goes. A place that is given is taken until `release`."""
        # Comparing takes the longest, so only what comes meanwhile is compared under the lock.
        num_compared = len(self._index)
        found = self._index.find(candidate.fingerprint)
        with self._lock:
            if twin := self._own.get(candidate.sha256):
                return Refusal(DUPLICATE, twin)
            found += self._index.find(candidate.fingerprint, num_compared)
            twins = dict.fromkeys(found)  # each only once
            own = [self._own[sha256] for sha256 in twins if sha256 in self._own]
            others = [*self._others.get(candidate.sha256, ())]
            others += [
                p for sha256 in twins if sha256 != candidate.sha256 for p in self._of(sha256)
            ]
            return self._place_among(candidate, own, others)

    def settle(self, candidate: Candidate) -> None:
        """Note that an image lies on disk; until then no larger one replaces it."""
        with self._lock:
            self._unwritten.discard(candidate.sha256)

    def release(self, candidate: Candidate, place: Place) -> None:
        """Give a place back whose image could not be written."""
        with self._lock:
            self._unwritten.discard(candidate.sha256)
            if candidate.sha256 not in self._own:
                return
            del self._own[candidate.sha256]
            self._counts[place.folder] -= 1
            if place.replaces is not None:
                self._own[place.replaces.sha256] = place.replaces
                self._counts[place.folder] += 1

    def _place_among(
        self, candidate: Candidate, own: Sequence[Image], others: Sequence[Image]
    ) -> Place | Refusal:
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
        elsewhere = [image for image in others if _split(image.path.parent) != _split(folder)]
        if elsewhere:
            return Refusal(OTHER_SPLIT, elsewhere[0])
        self._take(candidate, folder, replaces)
        return Place(folder, replaces, tuple(image.path for image in others))

    def _is_better(self, candidate: Candidate, image: Image) -> bool:
        is_smaller = image.num_pixels * _ENLARGES < candidate.num_pixels
        return image.is_ours and is_smaller and image.sha256 not in self._unwritten

    def _sides(self, candidate: Candidate) -> list[Side]:
        """Give the sides in the order in which the image's content prefers them."""
        share = int(candidate.sha256[:8], 16) / 2**32
        prefers_validation = share < self._target.validation_fraction
        return list(reversed(self._target.sides) if prefers_validation else self._target.sides)

    def _take(self, candidate: Candidate, folder: Path, replaces: Image | None) -> None:
        if replaces is not None:
            del self._own[replaces.sha256]
            self._counts[folder] -= 1
        path = folder / candidate.file_name
        image = Image(
            path, candidate.sha256, candidate.fingerprint, candidate.num_pixels, is_ours=True
        )
        self._own[candidate.sha256] = image
        self._unwritten.add(candidate.sha256)
        self._index.add(candidate.sha256, candidate.fingerprint)
        self._counts[folder] += 1

    def _room(self, side: Side) -> int:
        return max(0, side.limit - self._counts[side.folder])

    def _of(self, sha256: str) -> list[Image]:
        return self._others.get(sha256, [])

    def _read_own(self, folder: Path, limits: Limits) -> None:
        finish_replacements(folder)
        found, unusable = scan(folder, limits)
        self.unusable += unusable
        self._not_ours.update({one.path: one for one in found if not one.is_ours})
        for image in found:
            if image.sha256 not in self._own:  # a copy does not count twice
                self._own[image.sha256] = image
                self._index.add(image.sha256, image.fingerprint)
                self._counts[folder] += 1


def _apart(target: Target, others: Iterable[Path]) -> Iterator[Path]:
    """Give each folder once that the target's images are compared with."""
    seen = {side.folder.absolute() for side in target.sides}
    beside = [folder for side in target.sides for folder in neighbours(side.folder)]
    for folder in [*beside, *others]:
        if folder.absolute() not in seen:
            seen.add(folder.absolute())
            yield folder


def _split(folder: Path) -> str:
    """Name the split that a class folder belongs to, or "" outside a data set."""
    name = folder.absolute().parent.name
    return name if name in SPLITS else ""
