"""Held images on disk, so that reviewing goes on after a restart.

Each is a pair `<sha256>.bin` (the encoded image, as it came) and `<sha256>.json` (what the model
said). A thread of its own writes them: a prediction neither waits for the disk nor fails with it.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import queue
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagesieve import files
from imagesieve.errors import OutputError
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving.feedback.recent import REASONS, HeldImage

FOLDER_NAME = ".held"

_LOCK_NAME = ".lock"
_OURS = re.compile(r"([0-9a-f]{64})\.(bin|json)")
_MAX_WAITING = 32  # images for the writer
_CLOSE_SECONDS = 5.0
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class KeptLimits:
    """How much is kept on disk; the oldest go first."""

    max_images: int = 2000
    max_bytes: int = 512 * 2**20  # encoded


class KeptImages:
    """The pairs of files in one folder, which one process alone may use."""

    def __init__(
        self,
        folder: Path,
        limits: KeptLimits | None = None,
        is_corrected: Callable[[str], bool] = lambda sha256: False,
    ) -> None:
        """Name the folder; `open` and `put` touch the disk.

        Args:
            folder: for the pairs.
            limits: what is kept at most.
            is_corrected: tells of an image, by SHA-256, whether it was corrected, so that it is
                not kept however often it is judged again. Only the thread that writes asks: this
                may wait for a disk.
        """
        self._folder = folder
        self._limits = limits or KeptLimits()
        self._is_corrected = is_corrected
        self._lock = threading.Lock()
        self._images: collections.OrderedDict[str, HeldImage] = collections.OrderedDict()
        self._by_id: dict[str, str] = {}
        self._num_bytes = 0
        # Those that wait to be written, by SHA-256. One that was removed and put again meanwhile is
        # another object, so that whoever writes the former knows.
        self._wanted: dict[str, HeldImage] = {}
        self._waiting: queue.Queue[tuple[HeldImage, bytes] | None] = queue.Queue(_MAX_WAITING)
        self._writer: threading.Thread | None = None
        self._process_lock = -1
        self._num_lost = 0  # images that could not be written

    def open(self) -> None:
        """Read what an earlier run kept, and start to write.

        When the folder cannot be used, that is said once, and nothing is kept.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._process_lock = _lock_alone(self._folder / _LOCK_NAME)
            self._load()
        except BlockingIOError:
            _log.warning("Another server keeps its images in %s: none is kept.", self._folder)
        except OSError as error:
            _log.warning("No image is kept. %s", files.output_error(self._folder, error))
        else:
            self._writer = threading.Thread(target=self._write_all, name="keep", daemon=True)
            self._writer.start()

    def close(self) -> None:
        """Write what waits, for some seconds at most, and let go of the folder."""
        if self._writer is not None:
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=_CLOSE_SECONDS)
            self._writer.join(_CLOSE_SECONDS)
            self._writer = None
            if self._num_lost:
                _log.warning("Not kept for review: %d images.", self._num_lost)
        if self._process_lock >= 0:
            os.close(self._process_lock)
            self._process_lock = -1

    def put(self, image: HeldImage, data: bytes) -> None:
        """Have an image written soon; one that is there already is not written again."""
        if len(data) > self._limits.max_bytes:
            return
        with self._lock:
            is_known = image.sha256 in self._images or image.sha256 in self._wanted
            if self._writer is None or is_known:
                return
            self._wanted[image.sha256] = image
        try:
            self._waiting.put_nowait((image, data))
        except queue.Full:
            self._lose(image, "The disk is too slow to keep all images.")

    def wait(self) -> None:
        """Wait until all that was put is written."""
        self._waiting.join()

    def by_id(self, image_id: str) -> HeldImage | None:
        """Give the image of a prediction, or None."""
        with self._lock:
            return self._images.get(self._by_id.get(image_id, ""))

    def by_sha256(self, sha256: str) -> HeldImage | None:
        """Give an image by its content, or None."""
        with self._lock:
            return self._images.get(sha256)

    def all(self) -> list[HeldImage]:
        """Give all, the oldest first."""
        with self._lock:
            return list(self._images.values())

    def data(self, sha256: str) -> bytes | None:
        """Give the encoded image, or None; one that was changed on disk is removed."""
        if self.by_sha256(sha256) is None:
            return None
        path = self._path(sha256, "bin")
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:  # it may be readable again later
            _log.warning("The kept image %s cannot be read: %s.", path, error.strerror)
            return None
        if hashlib.sha256(data).hexdigest() == sha256:
            return data
        _log.warning("The kept image %s is damaged, and is removed.", path)
        self.remove(sha256)
        return None

    def remove(self, sha256: str) -> None:
        """Remove an image from the disk, if it is there."""
        with self._lock:
            self._wanted.pop(sha256, None)
            is_there = self._forget(sha256)
        if is_there:
            self._unlink(sha256)

    def _write_all(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._write(*item)
            except OutputError as error:
                self._lose(item[0], str(error))
            finally:
                self._waiting.task_done()
        self._waiting.task_done()

    def _write(self, image: HeldImage, data: bytes) -> None:
        if self._wanted.get(image.sha256) is not image:  # it was removed while it waited
            return
        if self._is_corrected(image.sha256):
            with self._lock:
                self._no_longer_wanted(image)
            return
        text = json.dumps(dataclasses.asdict(image), allow_nan=False)
        try:
            files.write_bytes(self._path(image.sha256, "bin"), data, must_outlive_power=False)
            files.write_text(self._path(image.sha256, "json"), text)
        except OutputError:
            self._unlink(image.sha256)
            raise
        with self._lock:
            is_wanted = self._no_longer_wanted(image)
            superfluous = self._add(image) if is_wanted else [image.sha256]
        self._unlink(*superfluous)

    def _no_longer_wanted(self, image: HeldImage) -> bool:
        """Note that nobody waits for it to be written; tell whether somebody did."""
        if self._wanted.get(image.sha256) is not image:
            return False
        del self._wanted[image.sha256]
        return True

    def _lose(self, image: HeldImage, reason: str) -> None:
        with self._lock:
            self._no_longer_wanted(image)
            self._num_lost += 1
            is_first = self._num_lost == 1
        if is_first:  # how many there were is told at the end
            _log.warning("Images are not kept for review. %s", reason)

    def _load(self) -> None:
        found = {path.name for path in self._folder.iterdir()}
        for name in found:
            if name.startswith(files.PARTIAL_PREFIX):
                (self._folder / name).unlink()
        keys = {match[1] for name in found if (match := _OURS.fullmatch(name))}
        good, damaged, unreadable = [], [], []
        for sha256 in sorted(keys):
            try:
                image = self._read(sha256)
            except OSError as error:
                unreadable.append(error)
                continue
            if image is None:
                damaged.append(sha256)
            else:
                good.append(image)
        self._unlink(*damaged)
        if damaged:
            _log.warning("Removed %d damaged images from %s.", len(damaged), self._folder)
        if unreadable:  # they may be readable again later
            _log.warning(
                "%d kept images stay in %s but cannot be read: %s.",
                len(unreadable),
                self._folder,
                unreadable[0].strerror,
            )
        for image in sorted(good, key=lambda image: (image.created, image.sha256)):
            self._unlink(*self._add(image))

    def _read(self, sha256: str) -> HeldImage | None:
        """Give an image of an earlier run, or None when it is damaged.

        Its bytes are looked at when they are needed: to read all of them now would delay the start.

        Raises:
            OSError: it is there, but cannot be read now.
        """
        try:
            image = _from_json(json.loads(self._path(sha256, "json").read_bytes()))
            num_bytes = self._path(sha256, "bin").stat().st_size
        except (FileNotFoundError, *_DAMAGED):
            return None
        return image if (image.sha256, image.num_bytes) == (sha256, num_bytes) else None

    def _add(self, image: HeldImage) -> list[str]:
        """Add an image and give those that have to make room for it."""
        self._images[image.sha256] = image
        self._by_id.update(dict.fromkeys(image.ids, image.sha256))
        self._num_bytes += image.num_bytes
        limits = self._limits
        crowded_out = []
        while len(self._images) > limits.max_images or self._num_bytes > limits.max_bytes:
            crowded_out.append(next(iter(self._images)))
            self._forget(crowded_out[-1])
        return crowded_out

    def _forget(self, sha256: str) -> bool:
        image = self._images.pop(sha256, None)
        if image is None:
            return False
        self._num_bytes -= image.num_bytes
        for image_id in image.ids:
            self._by_id.pop(image_id, None)
        return True

    def _unlink(self, *images: str) -> None:
        """Remove pairs of files, the one that says what the other is first."""
        try:
            for sha256 in images:
                for ending in ("json", "bin"):
                    self._path(sha256, ending).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("Kept images stay in %s: %s.", self._folder, error.strerror)

    def _path(self, sha256: str, ending: str) -> Path:
        return self._folder / f"{sha256}.{ending}"


def _lock_alone(path: Path) -> int:
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _from_json(value: dict[str, Any]) -> HeldImage:
    """Read what `dataclasses.asdict` gave of an image.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is something else.
    """
    shares = {
        str(name): float(share) for name, share in value["prediction"]["probabilities"].items()
    }
    prediction = Prediction(
        label=str(value["prediction"]["label"]),
        probability=float(value["prediction"]["probability"]),
        probabilities=shares,
        decision=str(value["prediction"]["decision"]),
    )
    if prediction.label not in shares or not all(0 <= share <= 1 for share in shares.values()):
        raise ValueError("no probabilities")
    if value["reason"] not in REASONS:
        raise ValueError("an unknown reason")
    return HeldImage(
        sha256=str(value["sha256"]),
        ids=tuple(map(str, value["ids"])),
        prediction=prediction,
        digest=str(value["digest"]),
        name=str(value["name"]),
        created=str(value["created"]),
        reason=value["reason"],
        num_bytes=int(value["num_bytes"]),
    )
