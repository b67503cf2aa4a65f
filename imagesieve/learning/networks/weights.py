"""Pretrained weights: where a file of them is, and how it gets into a network.

A file is only ever read as arrays, never as a model. What downloads and loads it is imported then,
not by `--help`, which lists the backbones.
"""

import contextlib
import hashlib
import logging
import os
import sys
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
    """Where Keras keeps the ImageNet weights of a network without its top."""

    url: str  # legacy HDF5 file; its name is also the name in Keras's cache
    # MD5 (32 digits) or SHA-256 (64), as `keras.applications` has it; None where Keras publishes
    # none, and then only the file's signature and its arrays are checked.
    checksum: str | None

    @property
    def cached(self) -> Path:
        """The file in Keras's cache, whether it is there or not."""
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        return home / "models" / self.url.rpartition("/")[2]

    def is_intact(self, path: Path) -> bool:
        """Return whether `path` is this file, whole."""
        if not path.is_file() or not _starts(path).startswith(_HDF5_SIGNATURE):
            return False
        if self.checksum is None:
            return True
        algorithm = "md5" if len(self.checksum) == 32 else "sha256"
        with open(path, "rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest() == self.checksum


def find_weights(backbone: "Backbone", choice: str) -> Path | None:
    """Return the file of weights that `--weights` names, or None for random ones.

    "imagenet" is Keras's own download, kept in Keras's cache. A WeightsError is raised if there is
    no such file, Keras has no weights, or the download failed.
    """
    if choice == "random":
        return None
    if choice == "imagenet":
        return _find_imagenet_weights(backbone.name, backbone.download)
    path = Path(choice).expanduser()
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise WeightsError(
            f"The weights file {path} {problem}: --weights takes imagenet, random or a file."
        )
    return path


def load_weights(model: Any, name: str, path: Path) -> None:
    """Fill the flat network of a backbone with the arrays of a file, or raise a WeightsError.

    The file is Keras 3's `.weights.h5` or the legacy `.h5` of `keras.applications`, told apart by
    content.
    """
    try:
        suffix = _suffix_of(path, len(model.weights))
    except (ValueError, OSError) as error:
        is_ours = isinstance(error, ValueError)
        reason = str(error) if is_ours else "it cannot be read or is cut short"
        raise _foreign(name, path, reason) from error
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        # Keras chooses its reader by the name, this module by the content.
        link = Path(folder) / f"link{suffix}"
        link.symlink_to(path.resolve())
        try:
            model.load_weights(link)
        except Exception as error:  # Keras and h5py raise whatever a foreign file leads to
            raise _foreign(name, path, "its arrays do not fit") from error
    _log.info("loaded the weights of %s from %s", name, path)


def _foreign(name: str, path: Path, reason: str) -> WeightsError:
    return WeightsError(f"{path} does not hold the weights of {name} without its top: {reason}.")


def _suffix_of(path: Path, num_weights: int) -> str:
    """Return `.h5` or `.weights.h5` by what is in the file; a ValueError says why it is neither."""
    import h5py

    if not (start := _starts(path)).startswith(_HDF5_SIGNATURE):
        raise ValueError(_what_it_is_instead(start))
    with h5py.File(path, "r") as file:
        if "model_config" in file.attrs or "model_weights" in file:
            raise ValueError("it is a whole saved model")
        if "layer_names" in file.attrs or "layer_names0" in file.attrs:
            return ".h5"  # Keras compares the number of layers and arrays itself
        if "layers" not in file:
            raise ValueError("no layers are in it")
        names: list[str] = []
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
    # The states of random generators are not weights.
    num_arrays = sum("seed_generator" not in name for name in names)
    if num_arrays != num_weights:
        raise ValueError(f"it holds {num_arrays} arrays instead of {num_weights}")
    return ".weights.h5"


def _starts(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(256)


def _what_it_is_instead(start: bytes) -> str:
    start = start.lstrip().lower()
    if start.startswith(b"pk\x03\x04"):
        return "it is a whole saved model or another archive"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page"
    return "it is not an HDF5 file"


def _find_imagenet_weights(name: str, download: WeightsDownload | None) -> Path:
    if download is None:
        raise WeightsError(f"Keras has no ImageNet weights for {name}: {_OTHER_CHOICES}.")
    # Asked before Keras, which passes over a cache that it may read but not write.
    if download.is_intact(download.cached):
        return download.cached

    def failed(reason: str) -> WeightsError:
        return WeightsError(
            f"The ImageNet weights of {name} could not be downloaded ({reason}): "
            f"put {download.url} at {download.cached} by hand, {_OTHER_CHOICES}."
        )

    try:
        path = _fetch(download)
    except Exception as error:  # `get_file` raises bare Exception besides OSError and ValueError
        raise failed(_reason_of(error.__context__ or error)) from error
    if not download.is_intact(path):
        path.unlink()
        raise failed("what came is not the file that Keras lists")
    return path


def _fetch(download: WeightsDownload) -> Path:
    import socket

    import keras

    folder = download.cached.parent
    folder.mkdir(parents=True, exist_ok=True)
    timeout_seconds = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)  # `get_file` sets none and would hang
    try:
        # Progress is not output: standard output may be read as JSON.
        with contextlib.redirect_stdout(sys.stderr):
            found = keras.utils.get_file(
                download.cached.name,
                origin=download.url,
                cache_dir=str(folder.parent),
                cache_subdir=folder.name,
                force_download=True,
            )
    finally:
        socket.setdefaulttimeout(timeout_seconds)
    return Path(found)


def _reason_of(error: BaseException) -> str:
    """Return why urllib failed, without the URL that `get_file` puts in front."""
    import urllib.error

    if isinstance(error, urllib.error.HTTPError):
        error.close()  # `get_file` leaves the answer and its socket open
        return f"the server answered {error.code} {error.reason}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no answer within {DOWNLOAD_TIMEOUT_SECONDS:g} seconds"
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
