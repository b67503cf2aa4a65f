"""Pretrained weights: where a file of them is, and how it gets into a network.

A file is only ever read as arrays, never as a model. Nothing here imports Keras before a
file is downloaded or loaded.
"""

import contextlib
import hashlib
import logging
import os
import socket
import sys
import tempfile
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagesieve.errors import WeightsError

if TYPE_CHECKING:
    from imagesieve.learning.networks.backbones import Backbone

DOWNLOAD_TIMEOUT_SECONDS = 20.0  # silence of the network, not length of the download

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OTHER_CHOICES = (
    "give a file of your own with --weights FILE, or initialise it randomly with --weights random"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightsDownload:
    """Where Keras keeps the ImageNet weights of a network without its top.

    Attributes:
        url: legacy HDF5 file; its name is also the name in Keras's cache.
        checksum: MD5 (32 digits) or SHA-256 (64), as `keras.applications` has it; None where
            Keras publishes none, and then only the file's signature and its arrays are checked.
    """

    url: str
    checksum: str | None

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    def is_intact(self, path: Path) -> bool:
        """Return whether `path` is this file, whole."""
        if not path.is_file() or not _is_hdf5(path):
            return False
        if self.checksum is None:
            return True
        algorithm = "md5" if len(self.checksum) == 32 else "sha256"
        with open(path, "rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest() == self.checksum


def find_weights(backbone: "Backbone", choice: str) -> Path | None:
    """Turn the value of `--weights` into a file for `build`.

    Args:
        backbone: a row of the table.
        choice: "random"; "imagenet" for Keras's own download, kept in Keras's cache; or a path.

    Returns:
        The file, or None for random weights.

    Raises:
        WeightsError: there is no such file, Keras has no weights, or the download failed.
    """
    if choice == "random":
        return None
    if choice == "imagenet":
        return _find_imagenet_weights(backbone)
    path = Path(choice).expanduser()
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise WeightsError(
            f"The weights file {path} {problem}: --weights takes imagenet, random or a file."
        )
    return path


def load_weights(model: Any, name: str, path: Path) -> None:
    """Fill a network with the arrays of a file.

    Args:
        model: a flat network without top.
        name: of the backbone, for messages.
        path: Keras 3's `.weights.h5` or the legacy `.h5` of `keras.applications`, told apart by
            content.

    Raises:
        WeightsError: the file cannot be read or is not for this network.
    """
    suffix = _weights_suffix(model, name, path)
    with tempfile.TemporaryDirectory() as folder:
        # Keras chooses its reader by the name, this module by the content.
        link = Path(folder) / f"link{suffix}"
        link.symlink_to(path.resolve())
        try:
            model.load_weights(link)
        except Exception as error:  # Keras and h5py raise whatever a foreign file leads to
            raise _foreign_weights(name, path, "its arrays do not fit") from error
    _log.info("loaded the weights of %s from %s", name, path)


def _weights_suffix(model: Any, name: str, path: Path) -> str:
    """Return the suffix of the format of weights, `.h5` or `.weights.h5`."""
    import h5py

    if not path.is_file():
        raise WeightsError(f"The weights file {path} does not exist or is not a file.")
    try:
        if not _is_hdf5(path):
            raise _foreign_weights(name, path, _what_it_is_instead(path))
        with h5py.File(path, "r") as file:
            if "model_config" in file.attrs or "model_weights" in file:
                raise _foreign_weights(name, path, "it is a whole saved model")
            if any(name in file.attrs for name in ("layer_names", "layer_names0")):
                return ".h5"  # Keras compares the number of layers and arrays itself
            if "layers" not in file:
                raise _foreign_weights(name, path, "no layers are in it")
            num_arrays = _count_arrays(file)
    except OSError as error:
        raise _foreign_weights(name, path, "it cannot be read or is cut short") from error
    if num_arrays != len(model.weights):
        raise _foreign_weights(
            name, path, f"it holds {num_arrays} arrays instead of {len(model.weights)}"
        )
    return ".weights.h5"


def _count_arrays(file: Any) -> int:
    """Count the weights in a Keras 3 file; the states of random generators are not weights."""
    import h5py

    names: list[str] = []

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and "seed_generator" not in name:
            names.append(name)

    file.visititems(note)
    return len(names)


def _is_hdf5(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE


def _what_it_is_instead(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(256).lstrip().lower()
    if start.startswith(b"pk\x03\x04"):
        return "it is a whole saved model or another archive"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page"
    return "it is not an HDF5 file"


def _foreign_weights(name: str, path: Path, reason: str) -> WeightsError:
    return WeightsError(f"{path} does not hold the weights of {name} without its top: {reason}.")


def _find_imagenet_weights(backbone: "Backbone") -> Path:
    if backbone.download is None:
        raise WeightsError(f"Keras has no ImageNet weights for {backbone.name}: {_OTHER_CHOICES}.")
    cached = _keras_cache() / "models" / backbone.download.file_name
    # Asked before Keras, which passes over a cache that it may read but not write.
    if backbone.download.is_intact(cached):
        return cached
    try:
        path = _download_to_keras_cache(backbone.download)
    except Exception as error:  # `get_file` raises bare Exception besides OSError and ValueError
        for cause in _causes(error):
            if isinstance(cause, urllib.error.HTTPError):
                cause.close()  # `get_file` leaves the answer and its socket open
        raise _download_failed(backbone, cached, _reason_of(error)) from error
    if not backbone.download.is_intact(path):
        path.unlink()
        raise _download_failed(backbone, cached, "what came is not the file that Keras lists")
    return path


def _download_to_keras_cache(download: WeightsDownload) -> Path:
    import keras

    cache = _keras_cache()
    (cache / "models").mkdir(parents=True, exist_ok=True)
    timeout_seconds = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)  # `get_file` sets none and would hang
    try:
        # Progress is not output: standard output may be read as JSON.
        with contextlib.redirect_stdout(sys.stderr):
            return Path(
                keras.utils.get_file(
                    download.file_name,
                    origin=download.url,
                    cache_dir=str(cache),
                    cache_subdir="models",
                    force_download=True,
                )
            )
    finally:
        socket.setdefaulttimeout(timeout_seconds)


def _keras_cache() -> Path:
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def _download_failed(backbone: "Backbone", cached: Path, reason: str) -> WeightsError:
    url = backbone.download.url if backbone.download else ""
    return WeightsError(
        f"The ImageNet weights of {backbone.name} could not be downloaded ({reason}): "
        f"put {url} at {cached} by hand, {_OTHER_CHOICES}."
    )


def _reason_of(error: BaseException) -> str:
    """Return why a download failed, without the URL that `get_file` puts in front."""
    for cause in _causes(error):
        if isinstance(cause, urllib.error.HTTPError):
            return f"the server answered {cause.code} {cause.reason}"
        if isinstance(cause, TimeoutError):
            return f"no answer within {DOWNLOAD_TIMEOUT_SECONDS:g} seconds"
        if isinstance(cause, urllib.error.URLError):
            reason = cause.reason
            return _reason_of(reason) if isinstance(reason, OSError) else str(reason)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
