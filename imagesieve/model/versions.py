"""A model version on disk: manifest, files, checksums, and the `current` pointer.

A version is a folder `modelFile/<name>-<YYYYMMDD-HHMMSS>/` that is written under a temporary name
and then renamed, so it is whole or absent. `modelFile/current.json` names the one in use.
"""

import dataclasses
import glob
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec

from imagesieve.class_folders import is_class_name
from imagesieve.errors import (
    ModelDamagedError,
    ModelNotFoundError,
    ModelTooNewError,
    UsageError,
)
from imagesieve.files import PARTIAL_PREFIX, sha256_of, write_json
from imagesieve.images import PIXEL_CONTRACT
from imagesieve.model.decisions import DecisionPolicy

SCHEMA = 1  # raise it when an older release would misread a newer manifest

MANIFEST = "manifest.json"
KERAS_MODEL = "model.keras"
OPENVINO_MODEL = "openvino/model.xml"
OPENVINO_INT8_MODEL = "openvino/model-int8.xml"
EXPORTS = "export"
REPORT = "report/index.html"
GOLDEN = "golden.npz"
CURRENT = "current.json"

_REQUIRED = ("schema", "classes", "backbone", "image_size", "policy", "temperature", "files")

_Side = Annotated[int, msgspec.Meta(ge=1, le=4096)]


class FileEntry(TypedDict):
    """What the manifest says of a file."""

    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a model version is and may be used for."""

    classes: tuple[str, ...]  # names in the order of the model's outputs
    backbone: str  # a name of the backbone table
    image_size: tuple[_Side, _Side]  # (height, width) in pixels of the model's input
    policy: DecisionPolicy  # how a label is chosen
    temperature: Annotated[float, msgspec.Meta(gt=0)] = (
        1.0  # what logits are divided by before the softmax; 1 changes nothing
    )
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # on the validation images
    # Precision -> what was measured; see `engines.choose_precision`.
    engines: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the training
    # Fingerprint of the images, and which were left out.
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)  # their versions
    parent: str | None = None  # the version this one was trained from, or None
    pixel_contract: str = PIXEL_CONTRACT  # a model of another one is refused
    created: str = ""  # UTC, ISO 8601
    # Path relative to the version -> its checksum; filled in when saving.
    files: Mapping[str, FileEntry] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA


@dataclasses.dataclass(frozen=True)
class ModelVersion:
    """A version; from `load`, every file of it is there and has its checksum."""

    path: Path
    manifest: Manifest
    digest: str  # sha256 of manifest.json: two versions with one digest are the same

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def file(self, relative: str) -> Path | None:
        """Return the path of a file that the manifest lists, or None."""
        return self.path / relative if relative in self.manifest.files else None


def new_version_path(model_dir: Path, name: str) -> Path:
    """Return an unused `<model_dir>/<name>-<YYYYMMDD-HHMMSS>`.

    Raises:
        UsageError: `name` cannot be part of a folder's name.
    """
    if not is_class_name(name):
        raise UsageError(
            f"The model name {name!r} cannot name a folder: use letters, digits, - and _, "
            "at most 200 bytes."
        )
    while _is_taken(path := model_dir / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"):
        time.sleep(0.1)
    return path


def seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder that holds all other files, with their checksums."""
    files: dict[str, FileEntry] = {
        path.relative_to(folder).as_posix(): {
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.name != MANIFEST
    }
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sealed = dataclasses.replace(manifest, files=files, created=created)
    write_json(folder / MANIFEST, _to_json(sealed))


def load(path: Path) -> ModelVersion:
    """Return a version, or the current one of a model folder, after checking every file of it.

    Args:
        path: a version's folder, or a folder that holds versions and `current.json`.

    Raises:
        ModelNotFoundError: nothing is there.
        ModelDamagedError: a file is missing or changed, or the manifest is not valid.
        ModelTooNewError: a later release wrote it.
    """
    version = read_manifest(path)
    verify(version)
    return version


def read_manifest(path: Path) -> ModelVersion:
    """Return a version whose manifest was read; its files may be missing or changed.

    Raises:
        ModelNotFoundError: nothing is there.
        ModelDamagedError: the manifest is missing, not valid, or was altered since it was
            made current.
        ModelTooNewError: a later release wrote it.
    """
    folder, promoted_digest = _resolve(path)
    raw = _manifest_bytes(folder)
    version = ModelVersion(folder, _from_json(raw, folder), hashlib.sha256(raw).hexdigest())
    if promoted_digest not in (None, version.digest):
        raise ModelDamagedError(
            f"The model version {folder} was altered: its {MANIFEST} is not the one that was "
            f"made current; copy the folder again, or name it with --model to use it as it is."
        )
    return version


def verify(version: ModelVersion) -> None:
    """Check every file of a version by its checksum.

    Raises:
        ModelDamagedError: a file is missing or changed.
    """
    folder = version.path
    for relative, expected in version.manifest.files.items():
        path = folder / relative
        try:
            changed = (
                path.stat().st_size != expected["bytes"] or sha256_of(path) != expected["sha256"]
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise ModelDamagedError(
                f"The model version {folder} is incomplete: {relative} is missing or unreadable; "
                "copy the whole folder again or choose another version."
            ) from error
        if changed:
            raise ModelDamagedError(
                f"The model version {folder} was altered: the checksum of {relative} does not "
                "match the manifest; copy the folder again or choose another version."
            )


def current_name(model_dir: Path) -> str | None:
    """Return the name of the version in use, or None when there is none yet.

    Raises:
        ModelDamagedError: the pointer is unreadable.
    """
    return _read_pointer(model_dir)[0]


def promote(version: ModelVersion) -> None:
    """Make `version` the current one of the folder it lies in, atomically.

    Raises:
        OutputError: the pointer could not be written; the old one is untouched.
    """
    write_json(version.path.parent / CURRENT, {"version": version.name, "digest": version.digest})


def _read_pointer(model_dir: Path) -> tuple[str | None, str | None]:
    """Return name and manifest digest of the version in use, from one read: both may change."""
    pointer = model_dir / CURRENT
    try:
        value = json.loads(pointer.read_bytes())
        name, digest = value["version"], value.get("digest")
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelDamagedError(
            f"{pointer} is unreadable ({error}): {_choose(model_dir)}"
        ) from error
    if not isinstance(name, str) or not name or name != Path(name).name or name.startswith("."):
        raise ModelDamagedError(
            f"{pointer} names {name!r}, which cannot be a version's folder: {_choose(model_dir)}"
        )
    return name, digest


def _is_taken(path: Path) -> bool:
    """Return whether a version lies at `path`, or is just being written there."""
    partials = path.parent.glob(f"{PARTIAL_PREFIX}{glob.escape(path.name)}-*")
    return path.exists() or any(partials)


def _resolve(path: Path) -> tuple[Path, str | None]:
    """Return a version's folder and, if it was found as the current one, its promoted digest."""
    if (path / MANIFEST).exists():
        # `.` and `..` have no name, and no parent to put `current.json` in.
        return (path.resolve() if path.name in ("", "..") else path), None
    if not path.is_dir():
        raise ModelNotFoundError(
            f"There is no model at {path}: train one with trainMyDataWithKerasModel.py."
        )
    name, digest = _read_pointer(path)
    if name is None:
        raise ModelNotFoundError(f"{path} holds no current model version: {_choose(path)}")
    folder = path / name
    if not (folder / MANIFEST).exists():
        raise ModelDamagedError(
            f"{path / CURRENT} names {name}, which is missing or incomplete: {_choose(path)}"
        )
    return folder, digest


def _choose(model_dir: Path) -> str:
    versions = sorted(found.parent.name for found in model_dir.glob(f"[!.]*/{MANIFEST}"))
    if not versions:
        return "train one with trainMyDataWithKerasModel.py."
    return f"name one of its versions with --model ({', '.join(versions[-3:])})."


def _manifest_bytes(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise ModelDamagedError(f"Cannot read {folder / MANIFEST}: {error.strerror}.") from error


def _to_json(manifest: Manifest) -> dict[str, Any]:
    value = {field.name: getattr(manifest, field.name) for field in dataclasses.fields(manifest)}
    return {"schema": value.pop("schema"), **value, "policy": manifest.policy.to_json()}


def _from_json(raw: bytes, folder: Path) -> Manifest:
    try:
        value = msgspec.json.decode(raw, type=dict[str, Any])
        schema = value.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise ModelTooNewError(
                f"The model version {folder} has manifest schema {schema}, this release reads up "
                f"to {SCHEMA}: update this program or choose another version."
            )
        _check_fields(value)
        policy = DecisionPolicy.from_json(value.pop("policy"))
        manifest = msgspec.convert({**value, "policy": policy}, Manifest)
        _check_values(manifest)
    except (ValueError, TypeError, KeyError, RecursionError, UsageError) as error:
        reason = f"field {error} is missing" if isinstance(error, KeyError) else error
        raise ModelDamagedError(
            f"{folder / MANIFEST} is not a manifest of a model version ({reason}): copy the folder "
            "again or choose another version."
        ) from error
    if manifest.pixel_contract != PIXEL_CONTRACT:
        raise ModelDamagedError(
            f"The model version {folder} was trained on pixels made in another way "
            f"({manifest.pixel_contract!r}): train it again with this release."
        )
    return manifest


def _check_fields(value: Mapping[str, Any]) -> None:
    missing = [name for name in _REQUIRED if name not in value]
    unknown = value.keys() - {field.name for field in dataclasses.fields(Manifest)}
    for names, problem in ((missing, "is missing"), (sorted(unknown), "is unknown")):
        if names:
            raise ValueError(f"field {names[0]!r} {problem}")


def _check_values(manifest: Manifest) -> None:
    if len(manifest.classes) < 2 or len(set(manifest.classes)) < len(manifest.classes):
        raise ValueError("classes must be two or more different names")
    if not all(name == Path(name).name and name not in ("", "..") for name in manifest.classes):
        raise ValueError("a class name must be one that a folder can have")
    for relative in manifest.files:
        path = Path(relative)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"files names {relative!r}, outside of the version")
