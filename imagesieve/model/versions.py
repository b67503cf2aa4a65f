"""A model version on disk: manifest, files, checksums, and the `current` pointer.

A version is a folder `modelFile/<name>-<YYYYMMDD-HHMMSS>/` that is written under a temporary name
and then renamed, so it is whole or absent. `modelFile/current.json` names the one in use.
"""

import dataclasses
import glob
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec

from imagesieve.class_folders import is_class_name
from imagesieve.errors import ModelDamagedError, ModelNotFoundError, ModelTooNewError, UsageError
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

_Side = Annotated[int, msgspec.Meta(ge=1, le=4096)]
_ClassName = Annotated[str, msgspec.Meta(pattern=r"^(?!\.{1,2}\Z)[^/]+\Z")]  # of one level
_Values = Mapping[str, Any]


class FileEntry(TypedDict):
    """What the manifest says of a file."""

    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a model version is and may be used for."""

    # Names in the order of the model's outputs.
    classes: Annotated[tuple[_ClassName, ...], msgspec.Meta(min_length=2)]
    backbone: str  # a name of the backbone table
    image_size: tuple[_Side, _Side]  # (height, width) in pixels of the model's input
    policy: DecisionPolicy  # how a label is chosen
    # What logits are divided by before the softmax; 1 changes nothing.
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    metrics: _Values = dataclasses.field(default_factory=dict)  # on the validation images
    # Precision -> what was measured; see `engines.choose_precision`.
    engines: Mapping[str, _Values] = dataclasses.field(default_factory=dict)
    settings: _Values = dataclasses.field(default_factory=dict)  # of the training
    data: _Values = dataclasses.field(default_factory=dict)  # counts, fingerprint, what is left out
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)  # their versions
    parent: str | None = None  # the version this one was trained from
    pixel_contract: str = PIXEL_CONTRACT  # a model of another one is refused
    created: str = ""  # UTC, ISO 8601
    # Path relative to the version -> its checksum; filled in when saving.
    files: Mapping[str, FileEntry] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA


class _Required(msgspec.Struct):
    """What a manifest on disk must have, though a new one need not."""

    schema: int
    temperature: Any
    files: Any


class _Pointer(msgspec.Struct):
    version: Annotated[str, msgspec.Meta(pattern=r"^[^/.][^/]*\Z")]  # a folder that is not hidden
    digest: str | None = None  # of the manifest; the pointers of early releases have none


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
    """Return an unused `<model_dir>/<name>-<YYYYMMDD-HHMMSS>`, or raise a UsageError."""
    if not is_class_name(name):
        raise UsageError(
            f"--name {name!r} cannot name a folder: use letters, digits, - or _, at most 200 bytes."
        )
    while _is_taken(path := model_dir / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"):
        time.sleep(0.1)
    return path


def seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder that holds all other files, with their checksums."""
    files = {
        path.relative_to(folder).as_posix(): FileEntry(
            sha256=sha256_of(path), bytes=path.stat().st_size
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.name != MANIFEST
    }
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    values = {**vars(manifest), "policy": manifest.policy.to_json()}
    write_json(folder / MANIFEST, {**values, "files": files, "created": created})


def load(path: Path) -> ModelVersion:
    """Return a version, or the current one of a model folder, after checking every file of it.

    A ModelError is raised if nothing is there, if a file is missing or changed, if the manifest is
    not valid, or if a later release wrote it.
    """
    version = read_manifest(path)
    verify(version)
    return version


def read_manifest(path: Path) -> ModelVersion:
    """Return a version as `load` does; its files may be missing or changed."""
    folder, promoted_digest = _resolve(path)
    try:
        raw = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise ModelDamagedError(f"Cannot read {folder / MANIFEST}: {error.strerror}.") from error
    version = ModelVersion(folder, _parse(raw, folder), hashlib.sha256(raw).hexdigest())
    if promoted_digest not in (None, version.digest):
        raise ModelDamagedError(
            f"{folder} was altered: its {MANIFEST} is not the one that was made current; copy the "
            "folder again, or name it with --model to use it as it is."
        )
    return version


def verify(version: ModelVersion) -> None:
    """Raise a ModelDamagedError if a file of a version is missing or has another checksum."""
    for relative, entry in version.manifest.files.items():
        path = version.path / relative
        try:
            is_same = path.stat().st_size == entry["bytes"] and sha256_of(path) == entry["sha256"]
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            trouble = f"is incomplete: {relative} is missing or unreadable"
            raise _damaged(version.path, trouble) from error
        if not is_same:
            trouble = f"was altered: the checksum of {relative} does not match the manifest"
            raise _damaged(version.path, trouble)


def current_name(model_dir: Path) -> str | None:
    """Return the name of the version in use, if there is one, or raise a ModelDamagedError."""
    pointer = _read_pointer(model_dir)
    return pointer.version if pointer else None


def promote(version: ModelVersion) -> None:
    """Make `version` the current one of its folder, whole or, with an OutputError, not at all."""
    write_json(version.path.parent / CURRENT, {"version": version.name, "digest": version.digest})


def _read_pointer(model_dir: Path) -> _Pointer | None:
    path = model_dir / CURRENT
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Pointer)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelDamagedError(f"{path} is unreadable ({error}): {_choose(model_dir)}") from error


def _is_taken(path: Path) -> bool:
    """Return whether a version lies at `path`, or is just being written there."""
    return path.exists() or any(path.parent.glob(f"{PARTIAL_PREFIX}{glob.escape(path.name)}-*"))


def _resolve(path: Path) -> tuple[Path, str | None]:
    """Return a version's folder and, if it was found as the current one, its promoted digest."""
    if (path / MANIFEST).exists():
        # `.` and `..` have no name, and no parent to put `current.json` in.
        return (path.resolve() if path.name in ("", "..") else path), None
    if not path.is_dir():
        raise ModelNotFoundError(
            f"There is no model at {path}: train one with trainMyDataWithKerasModel.py."
        )
    pointer = _read_pointer(path)  # once: name and digest may change
    if pointer is None:
        raise ModelNotFoundError(f"{path} holds no current model version: {_choose(path)}")
    folder = path / pointer.version
    if not (folder / MANIFEST).exists():
        raise ModelDamagedError(
            f"{path / CURRENT} names {folder.name}, which is missing or incomplete: {_choose(path)}"
        )
    return folder, pointer.digest


def _choose(model_dir: Path) -> str:
    versions = sorted(found.parent.name for found in model_dir.glob(f"[!.]*/{MANIFEST}"))
    if not versions:
        return "train one with trainMyDataWithKerasModel.py."
    return f"name one of its versions with --model ({', '.join(versions[-3:])})."


def _damaged(path: Path, trouble: str) -> ModelDamagedError:
    advice = "copy the whole folder again or choose another version"
    return ModelDamagedError(f"{path} {trouble}: {advice}.")


def _parse(raw: bytes, folder: Path) -> Manifest:
    try:
        values = msgspec.json.decode(raw, type=dict[str, Any])
        if (schema := msgspec.convert(values, _Required).schema) > SCHEMA:
            raise ModelTooNewError(
                f"{folder} has manifest schema {schema}, this release reads up to {SCHEMA}: update "
                "this program or choose another version."
            )
        manifest = msgspec.convert(values, Manifest)
        _check(manifest, values)
    except (ValueError, RecursionError, UsageError) as error:
        trouble = f"is not a manifest of a model version ({error})"
        raise _damaged(folder / MANIFEST, trouble) from error
    if manifest.pixel_contract != PIXEL_CONTRACT:
        raise ModelDamagedError(
            f"{folder} was trained on pixels made in another way ({manifest.pixel_contract!r}): "
            "train it again with this release."
        )
    return manifest


def _check(manifest: Manifest, values: _Values) -> None:
    if unknown := values.keys() - vars(manifest).keys():
        raise ValueError(f"field {min(unknown)!r} is unknown")
    if "kind" not in values["policy"]:
        raise ValueError("field 'kind' of policy is missing")
    if len(set(manifest.classes)) < len(manifest.classes):
        raise ValueError("two classes have the same name")
    for relative in manifest.files:
        path = Path(relative)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"files names {relative!r}, outside of the version")
