"""The folder that models are served from: which versions it has, and which one it calls current."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imagesieve.errors import ModelError
from imagesieve.model import versions
from imagesieve.serving.errors import ModelRefusedError, UnknownModelError

_DIGEST_PREFIX = "sha256:"

Mark = tuple[int, int, int]


class ModelFolder:
    """What `--model` names: a folder of versions, or one version.

    Attributes:
        path: as it was given.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def has_versions(self) -> bool:
        """Whether it is a folder of versions, among which one can change."""
        return not (self.path / versions.MANIFEST).exists()

    def find(self, name_or_digest: str) -> Path:
        """Give the folder of a version.

        The name is looked up among those that are there, so that it leads nowhere else.

        Args:
            name_or_digest: a folder's name, or `sha256:` and the 64 digits of a manifest's SHA-256.

        Raises:
            UnknownModelError: there is no such version.
            ModelRefusedError: the server was given one version only.
        """
        self.require_versions()
        for folder in self._versions():
            if name_or_digest == folder.name:
                return folder
        if name_or_digest.startswith(_DIGEST_PREFIX):
            digest = name_or_digest.removeprefix(_DIGEST_PREFIX).lower()
            for folder in self._versions():
                if digest == _digest_of(folder):
                    return folder
        raise UnknownModelError(
            f"There is no model version {name_or_digest[:100]!r}: /v1/models lists those there are."
        )

    def require_versions(self) -> None:
        """Go on only where there can be several versions.

        Raises:
            ModelRefusedError: the server was given one version only.
        """
        if not self.has_versions:
            raise ModelRefusedError(
                "The server was started with one model version: to change it while it runs, start "
                "it with --model and the folder that holds the versions."
            )

    def describe(self, served: versions.ModelVersion) -> list[dict[str, Any]]:
        """List the versions, by name, from their manifests: files are not read.

        Args:
            served: which one is current, whatever `current.json` says by now.
        """
        if not self.has_versions:
            return [_describe(served, served)]
        return [_glance(folder, served) for folder in self._versions()]

    def mark(self) -> Mark | None:
        """Give something that differs after each change of `current.json`; None without one."""
        try:
            found = (self.path / versions.CURRENT).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _versions(self) -> Iterator[Path]:
        # An unfinished version has a hidden name.
        yield from sorted(
            path.parent for path in self.path.glob(f"[!.]*/{versions.MANIFEST}") if path.is_file()
        )


def _glance(folder: Path, served: versions.ModelVersion) -> dict[str, Any]:
    try:
        version = versions.read_manifest(folder)
    except ModelError:
        digest = _digest_of(folder)
        return {
            "name": folder.name,
            "digest": f"{_DIGEST_PREFIX}{digest}" if digest else None,
            "current": False,
            "created": None,
            "classes": [],
            "damaged": True,
        }
    described = _describe(version, served)
    return described if _has_all_files(version) else {**described, "damaged": True}


def _describe(version: versions.ModelVersion, served: versions.ModelVersion) -> dict[str, Any]:
    return {
        "name": version.name,
        "digest": f"{_DIGEST_PREFIX}{version.digest}",
        "current": (version.name, version.digest) == (served.name, served.digest),
        "created": version.manifest.created,
        "classes": list(version.manifest.classes),
    }


def _has_all_files(version: versions.ModelVersion) -> bool:
    try:
        return all(
            (version.path / relative).stat().st_size == entry["bytes"]
            for relative, entry in version.manifest.files.items()
        )
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False


def _digest_of(folder: Path) -> str | None:
    try:
        return hashlib.sha256((folder / versions.MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return None
