"""The state of one fit after its last whole epoch, in one file, to resume from after a crash.

The file is NumPy's `.npz`, without compression: one array for each variable, and `fit`, which
is JSON. Its checksums show damage; nothing in it is unpickled.
"""

import contextlib
import dataclasses
import json
import logging
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from imagesieve.errors import DataError
from imagesieve.files import (
    fsync,
    remove_stale_partials,
    reporting_output_errors,
    scratch_folder,
)

_FIT = "fit"

_log = logging.getLogger(__name__)


@dataclasses.dataclass
class FitProgress:
    """A fit: what came of it, or how far it is."""

    stage: str  # `head`, `fine-tuning`, `full fine-tuning` or `network`
    history: dict[str, list[float]]  # metric name -> value after each epoch; `val_loss` decides
    best_epoch: int  # from 1, whose weights are used; 0 when none is better than the start
    validation_loss: float  # of these weights
    # From the start of the fit to the end of each epoch, without the time between an interruption
    # and the resumption.
    epoch_seconds: list[float]

    @property
    def epochs(self) -> int:
        """Number of whole epochs."""
        return len(self.epoch_seconds)

    def add(self, metrics: Mapping[str, float], seconds: float) -> None:
        """Append an epoch."""
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(float(value))
        self.epoch_seconds.append(seconds)
        loss = self.history["val_loss"][-1]
        # A start that is not a number is beaten by any loss that is one.
        if not math.isnan(loss) and not loss >= self.validation_loss:
            self.best_epoch, self.validation_loss = self.epochs, loss

    def is_finished(self, epochs: int, patience: int) -> bool:
        """Return whether all epochs are done, or `patience` of them since the lowest loss."""
        losses = np.array(self.history.get("val_loss", []))
        lowest = 0 if np.isnan(losses).all() else int(np.nanargmin(losses)) + 1
        return self.epochs >= epochs or self.epochs - lowest >= patience


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The file with the state of one fit."""

    path: Path  # its folder need not exist
    # Of everything that the fit depends on: images, network, settings, versions of libraries. A
    # state with another key is ignored.
    key: str

    def save(self, fit: FitProgress, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
        """Replace the state, whole or, with an OutputError, not at all.

        The arrays, with their names, are drawn one by one while the file is written.
        """
        folder = self.path.parent
        with scratch_folder(folder, self.path.name) as scratch, reporting_output_errors(self.path):
            with open(scratch / self.path.name, "xb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    described = {"key": self.key, **dataclasses.asdict(fit)}
                    _write_array(archive, _FIT, np.array(json.dumps(described)))
                    # `numpy.savez` would hold a copy of everything at once.
                    for name, array in arrays:
                        _write_array(archive, name, array)
                file.flush()
                os.fsync(file.fileno())
            os.replace(file.name, self.path)
            fsync(folder)

    def progress(self) -> FitProgress | None:
        """Return how far the fit is, as `load` does, without reading the arrays."""
        found = self.load(with_arrays=False)
        return found[0] if found else None

    def load(self, *, with_arrays: bool = True) -> tuple[FitProgress, dict[str, np.ndarray]] | None:
        """Return the state that was saved last, or raise a DataError if it may not be read.

        It is None when there is none, when it has another key, and, with a warning in the log, when
        the file is damaged.
        """
        try:
            with open(self.path, "rb") as file, np.load(file, allow_pickle=False) as members:
                described = json.loads(str(members[_FIT]))
                if described.pop("key") != self.key:
                    return None
                names = [name for name in members if name != _FIT] if with_arrays else []
                return FitProgress(**described), {name: members[name] for name in names}
        except FileNotFoundError:
            return None
        except (PermissionError, IsADirectoryError) as error:
            raise DataError(
                f"Cannot read the checkpoint {self.path}: {error.strerror}; make it readable, or "
                "remove it to start anew."
            ) from error
        except Exception as error:  # zipfile, JSON and NumPy raise whatever the bytes lead to
            reason = str(error) or repr(error)
            _log.warning("%s is damaged (%s): the fit starts anew.", self.path, reason)
            return None

    def remove(self) -> None:
        """Remove the state, if there is one, and what killed writers left; the folder if empty."""
        with reporting_output_errors(self.path):
            self.path.unlink(missing_ok=True)
            remove_stale_partials(self.path.parent)
        with contextlib.suppress(OSError):  # not there, or another training's state lies in it
            self.path.parent.rmdir()


def _write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)
