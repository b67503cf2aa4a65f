"""The store of corrections: what people say of images, and how to take it back."""

import collections
import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from imagesieve.feedback import AUDIT, CORRECT, REJECT, SENT, UNDO, Entry, stored_name
from imagesieve.serving.errors import BadParameterError, UnknownImageError
from imagesieve.serving.feedback.folder import FeedbackFolder, FeedbackLimits
from imagesieve.serving.feedback.state import Step


@dataclasses.dataclass(frozen=True)
class Remark:
    """What goes into the journal beside the correction; see `feedback_lines.Entry`."""

    predicted: Mapping[str, Any] | None = None
    model: str | None = None
    reason: str = SENT
    reviewer: str | None = None
    caller: str | None = None
    note: str | None = None


@dataclasses.dataclass(frozen=True)
class Correction:
    """What holds for an image now.

    Attributes:
        sha256: of the image as it was sent.
        label: its class; None when it is rejected or nothing holds.
        is_rejected: whether it belongs to no class.
        previous: the label before.
        stored: path of the image in the feedback folder.
        is_new: whether nothing held before.
        is_changed: whether anything was written.
    """

    sha256: str
    label: str | None
    is_rejected: bool
    previous: str | None
    stored: str | None
    is_new: bool
    is_changed: bool


class FeedbackStore:
    """Keeps corrections; any thread and any process may use the same folder."""

    def __init__(
        self,
        folder: Path,
        to_jpeg: Callable[[bytes], bytes],
        limits: FeedbackLimits | None = None,
    ) -> None:
        """Name the folder; it is made with the first correction.

        Args:
            folder: for the images and the journal.
            to_jpeg: decodes an encoded image and encodes it anew, for keeping.
            limits: what is kept at most.
        """
        limits = limits or FeedbackLimits()
        self._folder = FeedbackFolder(folder, limits)
        self._to_jpeg = to_jpeg
        self._removed = _RemovedImages(limits.max_removed_bytes)

    def open(self) -> None:
        """Read what earlier runs left, and put in order what a killed one did.

        Raises:
            FeedbackUnavailableError, FeedbackFullError: the folder is there but cannot be used.
        """
        self._folder.open()

    def correct(
        self, sha256: str, label: str | None, remark: Remark, data: bytes | None = None
    ) -> Correction:
        """Say that an image is of a class, or of none. The same again changes nothing.

        Args:
            sha256: of the image as it was sent.
            label: a class whose name is fit for a folder; None keeps the image out of all.
            remark: what else goes into the journal.
            data: the encoded image; may be missing when it is stored already.

        Raises:
            UnknownImageError: it is not stored, and `data` is missing.
            ImageError: it cannot be decoded.
            FeedbackFullError: there is no room.
            FeedbackUnavailableError: it could not be written; nothing was changed.
        """
        jpeg = None
        if label is not None and data is not None and not self._is_stored(sha256):
            jpeg = self._to_jpeg(data)  # what is no image is found out before a folder is made
        is_held = data is not None
        return self._encoding_outside(
            lambda jpeg: self._correct(sha256, label, remark, jpeg, is_held=is_held), data, jpeg
        )

    def undo(self, sha256: str, remark: Remark, data: bytes | None = None) -> Correction:
        """Take back the last thing that was said of an image; what was said before holds again.

        Args:
            sha256: of the image as it was sent.
            remark: who does it.
            data: the encoded image, in case it has to come back.

        Raises:
            UnknownImageError: there is nothing to undo; or the image, which was rejected, is
                not held any more.
            ImageError: it has to come back, and cannot be decoded.
            FeedbackFullError, FeedbackUnavailableError: as for `correct`.
        """
        return self._encoding_outside(lambda jpeg: self._undo(sha256, remark, jpeg), data)

    def is_settled(self, sha256: str, label: str | None) -> bool:
        """Tell whether that is what holds, as far as is known without looking at the disk."""
        with self._folder.reading():
            steps = self._folder.state.steps(self._folder.state.key_of(sha256))
            return bool(steps) and steps[-1].label == label

    def is_corrected(self, sha256: str) -> bool:
        """Tell whether anything holds of an image; it may wait while a correction is written."""
        return bool(self.corrected_among([sha256]))

    def corrected_among(self, images: Iterable[str]) -> set[str]:
        """Give those images, by SHA-256, of which something holds."""
        with self._folder.reading():
            state = self._folder.state
            return {sha256 for sha256 in images if state.steps(state.key_of(sha256))}

    def image(self, sha256: str) -> bytes | None:
        """Give the stored JPEG of an image, or None when it, with all its digits, is not there.

        Raises:
            FeedbackUnavailableError: it cannot be read.
        """
        with self._folder.reading():
            state = self._folder.state
            stored = None if state.is_other(sha256) else state.stored(state.key_of(sha256))
            return None if stored is None else self._folder.files.read(stored)

    def num_corrected(self) -> int:
        """Count the images of which something holds, rejected ones included."""
        with self._folder.reading():
            return self._folder.state.num_corrected()

    def audit(self, class_of_interest: str | None) -> tuple[int, int]:
        """Count audited images: reviewed, missed; see `FeedbackState.audit`."""
        with self._folder.reading():
            return self._folder.state.audit(class_of_interest)

    def export(self) -> tuple[BinaryIO, int]:
        """Give the journal, open for reading, and how many bytes of it are whole lines.

        What other processes wrote is in it, and so is a journal that can be read but not written.

        Raises:
            FeedbackUnavailableError: it cannot be read.
        """
        with self._folder.reading():
            try:
                return self._folder.journal.open_to_read()
            except FileNotFoundError:
                return io.BytesIO(), 0

    def _encoding_outside(
        self,
        change: Callable[[bytes | None], Correction],
        data: bytes | None,
        jpeg: bytes | None = None,
    ) -> Correction:
        """Make a change; if it needs the image, encode that where nobody has to wait for it.

        Args:
            change: gets the image encoded anew, or None. What holds may change between two
                calls, so each finds out afresh, while it keeps all others out, what it needs.
            data: the encoded image as it was sent.
            jpeg: what it became, where that is done already.
        """
        try:
            return change(jpeg)
        except _ImageNeededError:
            if data is None:
                raise
        return change(self._to_jpeg(data))

    def _correct(
        self, sha256: str, label: str | None, remark: Remark, jpeg: bytes | None, *, is_held: bool
    ) -> Correction:
        with self._folder.exclusive():
            key = self._key_of(sha256)
            steps = self._folder.state.steps(key)
            if self._holds(key, steps, label):
                return self._now(sha256, key, steps, is_changed=False)
            if not steps and not is_held and key not in self._removed:
                raise _ImageNeededError()
            action = REJECT if label is None else CORRECT
            return self._change(action, sha256, label, _with_past(remark, steps), jpeg)

    def _undo(self, sha256: str, remark: Remark, jpeg: bytes | None) -> Correction:
        with self._folder.exclusive():
            steps = self._folder.state.steps(self._key_of(sha256))
            if not steps:
                raise UnknownImageError("There is no correction of this image.")
            label = steps[-2].label if len(steps) > 1 else None
            return self._change(UNDO, sha256, label, _with_prediction(remark, steps[-1]), jpeg)

    def _key_of(self, sha256: str) -> str:
        if self._folder.state.is_other(sha256):
            raise BadParameterError(
                "Another image's SHA-256 begins with the same digits: this one cannot be kept."
            )
        return self._folder.state.key_of(sha256)

    def _is_stored(self, sha256: str) -> bool:
        with self._folder.reading():
            return self._folder.state.num_bytes_of(self._folder.state.key_of(sha256)) > 0

    def _holds(self, key: str, steps: tuple[Step, ...], label: str | None) -> bool:
        """Tell whether that is what holds, and the image is where it should be."""
        stored = self._folder.state.stored(key)
        is_there = stored is None or self._folder.files.num_bytes(stored) > 0
        return bool(steps) and steps[-1].label == label and is_there

    def _change(
        self, action: str, sha256: str, label: str | None, remark: Remark, jpeg: bytes | None
    ) -> Correction:
        state, files = self._folder.state, self._folder.files
        key = state.key_of(sha256)
        before = state.steps(key)
        old = state.stored(key)
        stored = None if label is None else stored_name(label, key)
        image = files.read(old) if old is not None else None
        entry = Entry(
            action=action, sha256=sha256, label=label, stored=stored, **dataclasses.asdict(remark)
        )
        if stored is None:
            self._folder.write(key, entry, None)
            self._removed.put(key, image)
        else:
            image = image or self._removed.get(key) or jpeg
            if image is None:
                raise _ImageNeededError()
            self._folder.write(key, entry, image)
        return self._now(sha256, key, before, is_changed=True)

    def _now(
        self, sha256: str, key: str, before: tuple[Step, ...], *, is_changed: bool
    ) -> Correction:
        steps = self._folder.state.steps(key)
        return Correction(
            sha256=sha256,
            label=steps[-1].label if steps else None,
            is_rejected=bool(steps) and steps[-1].label is None,
            previous=before[-1].label if before else None,
            stored=self._folder.state.stored(key),
            is_new=not before,
            is_changed=is_changed,
        )


class _RemovedImages:
    """The images that were taken out last, in memory: an undo may want them back."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._images: collections.OrderedDict[str, bytes] = collections.OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._images

    def get(self, key: str) -> bytes | None:
        return self._images.get(key)

    def put(self, key: str, image: bytes | None) -> None:
        if image is None:
            return
        self._images[key] = image
        self._images.move_to_end(key)
        while sum(map(len, self._images.values())) > self._max_bytes:
            self._images.popitem(last=False)


class _ImageNeededError(UnknownImageError):
    """A change cannot be made without the image."""

    def __init__(self) -> None:
        super().__init__("The image is not held any more: send it again, as a file.")


def _with_past(remark: Remark, steps: tuple[Step, ...]) -> Remark:
    """Keep what was known of the prediction; what was drawn for the audit stays in it."""
    if not steps or steps[-1].predicted is None:
        return remark
    if steps[-1].reason == AUDIT or remark.predicted is None:
        return _with_prediction(remark, steps[-1])
    return remark


def _with_prediction(remark: Remark, step: Step) -> Remark:
    return dataclasses.replace(
        remark, predicted=step.predicted, model=step.model, reason=step.reason
    )
