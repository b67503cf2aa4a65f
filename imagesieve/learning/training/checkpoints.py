"""The state of one fit after its last whole epoch, in one file, to resume from after a crash.

The file is a ZIP archive without compression, as NumPy's `.npz`: `progress.json` and one `.npy` for
each array. Its checksums show damage; nothing in it is unpickled.
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import secrets
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from imagesieve.errors import DataError
from imagesieve.files import PARTIAL_PREFIX, fsync_folder, reporting_output_errors

_log = logging.getLogger(__name__)

_FORMAT = 1  # of the file; a file of another format counts as one of another key
_PROGRESS = "progress.json"
_ARRAY_SUFFIX = ".npy"


@dataclasses.dataclass
class Progress:
    """The epochs of a fit so far.

    Attributes:
        start_loss: on the validation images, before the first epoch.
        precision: `float32` or the Keras dtype policy that the fit runs under.
        history: metric name -> value after each epoch; `val_loss` decides.
        epoch_seconds: from the start of the fit to the end of each epoch, without the time in
            which it was interrupted.
    """

    start_loss: float
    precision: str = "float32"
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    epoch_seconds: list[float] = dataclasses.field(default_factory=list)

    @property
    def epochs(self) -> int:
        """Number of whole epochs."""
        return len(self.epoch_seconds)

    @property
    def lowest(self) -> int:
        """The first epoch, from 1, with the lowest validation loss; 0 when none is a number."""
        losses = np.array(self.history.get("val_loss", []), dtype=np.float64)
        if np.isnan(losses).all():
            return 0
        return int(np.nanargmin(losses)) + 1

    @property
    def best_epoch(self) -> int:
        """The epoch with the best weights; 0 when none beats the start."""
        # A start that is not a number is beaten by any loss that is one.
        beats = self.lowest and not self.history["val_loss"][self.lowest - 1] >= self.start_loss
        return self.lowest if beats else 0

    @property
    def best_loss(self) -> float:
        """The validation loss of the best weights."""
        return self.history["val_loss"][self.best_epoch - 1] if self.best_epoch else self.start_loss

    def is_finished(self, epochs: int, patience: int) -> bool:
        """Return whether all epochs are done, or `patience` of them since the lowest loss."""
        return self.epochs >= epochs or self.epochs - self.lowest >= max(1, patience)

    def add(self, metrics: dict[str, float], seconds: float) -> None:
        """Append an epoch."""
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(value)
        self.epoch_seconds.append(seconds)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The file with the state of one fit.

    Attributes:
        path: the file; its folder need not exist.
        key: of everything that the fit depends on: images, network, settings, versions of
            libraries. A state with another key is ignored.
    """

    path: Path
    key: str

    def save(self, progress: Progress, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
        """Replace the state; a reader sees the old one or the whole new one.

        Args:
            progress: goes into the file as JSON.
            arrays: names and arrays, which are drawn one by one while the file is written.

        Raises:
            OutputError: it could not be written; the old state is untouched.
        """
        with reporting_output_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            temporary = self.path.with_name(f"{self._partial_prefix}{secrets.token_hex(8)}")
            try:
                with open(temporary, "xb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)  # so that another process leaves it alone
                    self._write(file, progress, arrays)
                    file.flush()
                    os.fsync(file.fileno())
                    os.replace(temporary, self.path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            fsync_folder(self.path.parent)

    def progress(self) -> Progress | None:
        """Return the progress, or None; as `load`, but without reading the arrays."""
        found = self._read(with_arrays=False)
        return found[0] if found else None

    def load(self) -> tuple[Progress, dict[str, np.ndarray]] | None:
        """Return the state that was saved last.

        Returns:
            None when there is none, when it has another key, and, with a warning in the log, when
            the file is damaged.

        Raises:
            DataError: the file is there but may not be read.
        """
        return self._read(with_arrays=True)

    def remove(self) -> None:
        """Remove the state, if there is one, and what killed writers left behind.

        Raises:
            OutputError: it could not be removed.
        """
        with reporting_output_errors(self.path):
            self.path.unlink(missing_ok=True)
            self._remove_leftovers()

    @property
    def _partial_prefix(self) -> str:
        return f"{PARTIAL_PREFIX}{self.path.name}-"

    def _write(
        self, file: Any, progress: Progress, arrays: Iterable[tuple[str, np.ndarray]]
    ) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            described = {
                "format": _FORMAT,
                "key": self.key,
                "progress": dataclasses.asdict(progress),
            }
            archive.writestr(_PROGRESS, json.dumps(described))  # a loss may be NaN
            for name, array in arrays:
                with archive.open(name + _ARRAY_SUFFIX, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    def _read(self, *, with_arrays: bool) -> tuple[Progress, dict[str, np.ndarray]] | None:
        try:
            file = open(self.path, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(
                f"Cannot read the checkpoint {self.path}: {error.strerror}; make it readable, or "
                "remove it to start anew."
            ) from error
        with file:
            try:
                with zipfile.ZipFile(file) as archive:
                    described = json.loads(archive.read(_PROGRESS))
                    if (described["format"], described["key"]) != (_FORMAT, self.key):
                        return None
                    progress = Progress(**described["progress"])
                    return progress, _read_arrays(archive) if with_arrays else {}
            except Exception as error:  # zipfile, JSON and NumPy raise whatever the bytes lead to
                _log.warning(
                    "%s is damaged (%s): the fit starts anew.", self.path, error or repr(error)
                )
                return None

    def _remove_leftovers(self) -> None:
        for leftover in self.path.parent.glob(f"{self._partial_prefix}*"):
            # An OSError: its writer lives, or another process removed it just now.
            with contextlib.suppress(OSError), open(leftover, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()


def _read_arrays(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    arrays = {}
    for name in archive.namelist():
        if name.endswith(_ARRAY_SUFFIX):
            with archive.open(name) as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
                arrays[name.removesuffix(_ARRAY_SUFFIX)] = array
    return arrays
