"""A model version on disk: manifest, files, checksums, and the `current` pointer.

A version is a folder `modelFile/<name>-<YYYYMMDD-HHMMSS>/` that is written under a temporary name
and then renamed, so it is whole or absent. `modelFile/current.json` names the one in use.
"""

import dataclasses
import glob
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagesieve.class_folders import is_class_name
from imagesieve.errors import (
    ClassifierError,
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

# What reading something else than a manifest can raise.
_NOT_A_MANIFEST = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    UsageError,
)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a model version is and may be used for.

    Attributes:
        classes: names in the order of the model's outputs.
        backbone: a name of the backbone table.
        image_size: (height, width) in pixels of the model's input.
        policy: how a label is chosen.
        temperature: what logits are divided by before the softmax; 1 changes nothing.
        metrics: on the validation images.
        engines: what was measured in each precision; see `engines.choose_precision`.
        settings: all options of the training.
        data: fingerprint of the images, and which were left out.
        libraries: versions in use when the model was made.
        parent: the version this one was trained from, or None.
        pixel_contract: how pixels were made; a model of another contract is refused.
        created: UTC, ISO 8601.
        files: path relative to the version -> {"sha256", "bytes"}; filled in when saving.
        schema: of the manifest.
    """

    classes: tuple[str, ...]
    backbone: str
    image_size: tuple[int, int]
    policy: DecisionPolicy
    temperature: float = 1.0
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    engines: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)
    parent: str | None = None
    pixel_contract: str = PIXEL_CONTRACT
    created: str = ""
    files: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
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
    """Write the manifest of a folder that holds all other files, with their checksums.

    Raises:
        OutputError: it could not be written.
    """
    files = {
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
        value = json.loads(raw)
        schema = value["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            raise ModelTooNewError(
                f"The model version {folder} has manifest schema {schema}, this release reads up "
                f"to {SCHEMA}: update this program or choose another version."
            )
        manifest = Manifest(**_checked(value))
    except _NOT_A_MANIFEST as error:
        raise ModelDamagedError(
            f"{folder / MANIFEST} is not a manifest of a model version ({_name(error)}): copy the "
            "folder again or choose another version."
        ) from error
    if manifest.pixel_contract != PIXEL_CONTRACT:
        raise ModelDamagedError(
            f"The model version {folder} was trained on pixels made in another way "
            f"({manifest.pixel_contract!r}): train it again with this release."
        )
    return manifest


def _name(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"field {error} is missing"
    return str(error) if isinstance(error, ClassifierError) else f"{type(error).__name__}: {error}"


def _checked(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest's fields with their types checked; ValueError names the first bad one."""
    fields = dict(value)
    classes = fields["classes"]
    if not _is_names(classes) or len(classes) < 2 or len(set(classes)) < len(classes):
        raise ValueError("classes must be two or more different names")
    if not all(name == Path(name).name and name not in (".", "..") for name in classes):
        raise ValueError("a class name must be one that a folder can have")
    height, width = fields["image_size"]
    if not all(isinstance(side, int) and 0 < side <= 4096 for side in (height, width)):
        raise ValueError("image_size must be two whole numbers of pixels")
    for relative, entry in fields["files"].items():
        parts = Path(relative).parts
        if Path(relative).is_absolute() or ".." in parts or not parts:
            raise ValueError(f"files names {relative!r}, outside of the version")
        if not isinstance(entry["sha256"], str) or not isinstance(entry["bytes"], int):
            raise ValueError(f"files has no checksum for {relative!r}")  # noqa: TRY004 (one kind for all)
    fields["classes"] = tuple(classes)
    fields["image_size"] = (height, width)
    fields["policy"] = DecisionPolicy.from_json(fields["policy"])
    fields["temperature"] = float(fields["temperature"])
    if not 0 < fields["temperature"] < math.inf:
        raise ValueError("temperature must be a number above 0")
    if not isinstance(fields["schema"], int):
        raise ValueError("schema must be a whole number")  # noqa: TRY004 (one kind for all)
    return fields


def _is_names(value: object) -> bool:
    return isinstance(value, Sequence) and all(isinstance(name, str) and name for name in value)
