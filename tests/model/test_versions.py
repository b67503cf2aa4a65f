import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from painted import COLOURS, encode, paint

from imagesieve import files
from imagesieve.errors import (
    ModelDamagedError,
    ModelNotFoundError,
    ModelTooNewError,
    OutputError,
    UsageError,
)
from imagesieve.model import versions
from imagesieve.model.decisions import DecisionPolicy
from imagesieve.prediction.predictor import Predictor


@pytest.fixture
def version(version_path: Path, tmp_path: Path) -> Path:
    """Return a model folder's only version, which the test may damage."""
    shutil.copytree(version_path.parent, tmp_path / "modelFile")
    return tmp_path / "modelFile" / version_path.name


def manifest_of(version: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((version / versions.MANIFEST).read_bytes())
    return value


def change_manifest(version: Path, **changes: object) -> None:
    value = manifest_of(version) | changes
    (version / versions.MANIFEST).write_text(json.dumps(value))


def test_a_version_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = versions.Manifest(
        classes=("menu", "not-menu"),
        backbone="InceptionV3",
        image_size=(299, 300),
        policy=DecisionPolicy("confident", 0.6, "not-menu"),
        temperature=1.25,
        metrics={"accuracy": 0.9},
        engines={"openvino-bf16": {"passed": True}},
        settings={"epochs": 20},
        data={"left out": ["é.jpg"]},
        libraries={"keras": "3.15.1"},
        parent="model-20260101-000000",
    )
    path = versions.new_version_path(tmp_path, "model")
    with files.new_folder(path) as partial:
        (partial / "report").mkdir()
        (partial / versions.REPORT).write_text("<p>good</p>")
        (partial / ".hidden").write_text("not part of it")
        versions.seal(partial, saved)

    loaded = versions.load(path)
    unsealed = {"files", "created"}
    for field in vars(saved).keys() - unsealed:
        assert getattr(loaded.manifest, field) == getattr(saved, field)
    assert loaded.manifest.created.endswith("Z")
    assert list(loaded.manifest.files) == [versions.REPORT]
    assert loaded.name == path.name
    assert loaded.digest == files.sha256_of(path / versions.MANIFEST)
    assert loaded.file(versions.REPORT) == path / versions.REPORT
    assert loaded.file(versions.KERAS_MODEL) is None


def test_a_version_may_be_the_working_directory(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(version)
    loaded = versions.load(Path())
    assert loaded.name == version.name
    (version.parent / "current.json").unlink()
    versions.promote(loaded)
    assert versions.load(version.parent) == versions.load(version)


def test_a_place_without_a_model_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "missing", tmp_path / "file", tmp_path):
        with pytest.raises(ModelNotFoundError) as caught:
            versions.load(place)
        assert str(place) in str(caught.value)
        assert "train one with trainMyDataWithKerasModel.py" in str(caught.value)


# As the release before the package was renamed wrote it, save for the classes and files.
FORMER_MANIFEST = """
{
  "schema": 1,
  "classes": ["blue", "green", "red"],
  "backbone": "SmallCNN",
  "image_size": [32, 40],
  "policy": {"kind": "argmax"},
  "temperature": 1.0,
  "metrics": {
    "num_images": 16, "accuracy": 1.0, "accuracy_interval": [0.8063923194655637, 1.0],
    "log_loss": 0.5919722527358082, "macro_f1": 1.0,
    "classes": [{"name": "blue", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 8}],
    "confusion": [[8, 0, 0], [0, 8, 0], [0, 0, 8]]
  },
  "engines": {
    "openvino-f32": {"passed": true, "max_difference_to_keras": 5.9e-08, "bytes": 203723,
                     "milliseconds": 2.84, "speed_to_f32": 1.0},
    "openvino-bf16": {"passed": false, "reason": "this CPU has no bfloat16"}
  },
  "settings": {"backbone": "SmallCNN", "head": "logistic", "views": 2, "weights": "imagenet"},
  "data": {"fingerprint": "9ac4f0c8", "train": {"blue": 14}, "corrections": {"blue": 0},
           "validation": {"blue": 8}, "validation_taken_from_train": false, "left_out": []},
  "libraries": {"keras": "3.15.1", "openvino": "2026.4.1"},
  "parent": null,
  "pixel_contract":
    "rgb-uint8 exif-oriented white-matte frame-0 pillow-bilinear-antialias draft-2x v1",
  "created": "2026-11-30T11:45:12Z",
  "files": FILES
}
"""


def test_a_version_of_the_former_release_still_loads_and_predicts(version: Path) -> None:
    checksums = json.dumps(manifest_of(version)["files"])
    (version / versions.MANIFEST).write_text(FORMER_MANIFEST.replace("FILES", checksums))
    digest = files.sha256_of(version / versions.MANIFEST)
    pointer = {"version": version.name, "digest": digest}
    (version.parent / versions.CURRENT).write_text(json.dumps(pointer))
    predictor = Predictor.load(version.parent)
    assert (predictor.engine.name, predictor.version.name) == ("openvino-f32", version.name)
    image = encode(paint(COLOURS["green"]))
    assert predictor.predict(predictor.decode(image)).decision == "green"


def test_a_model_folder_without_a_current_version_offers_those_it_has(version: Path) -> None:
    (version.parent / "current.json").unlink()
    shutil.copytree(version, version.parent / ".partial-colours-20260101-000000")
    with pytest.raises(ModelNotFoundError) as caught:
        versions.load(version.parent)
    assert f"with --model ({version.name})" in str(caught.value)


BROKEN_POINTERS: dict[str, bytes] = {
    "no JSON": b"{",
    "empty": b"",
    "no UTF-8": b"\xff",
    "a list": b"[]",
    "null": b"null",
    "no version": b"{}",
    "a number": b'{"version": 7}',
    "an empty name": b'{"version": ""}',
    "the parent": b'{"version": ".."}',
    "outside": b'{"version": "../x"}',
    "an absolute path": b'{"version": "/x"}',
    "inside of a version": b'{"version": "a/b"}',
    "a hidden folder": b'{"version": ".partial-x"}',
    "a missing version": b'{"version": "colours-19990101-000000"}',
    "a NUL": b'{"version": "a\\u0000"}',
    "deep nesting": b"[" * 100_000,
    "a folder": b"",
}


@pytest.mark.parametrize("name", BROKEN_POINTERS)
def test_a_broken_pointer_is_named_with_the_versions_to_choose(version: Path, name: str) -> None:
    pointer = version.parent / "current.json"
    if name == "a folder":
        make_folder(pointer)
    else:
        pointer.write_bytes(BROKEN_POINTERS[name])
    with pytest.raises(ModelDamagedError) as caught:
        versions.load(version.parent)
    assert str(caught.value).startswith(str(version.parent / "current.json"))
    assert f"with --model ({version.name})" in str(caught.value)
    assert versions.load(version).name == version.name  # the version itself is as good as ever


def flip_last_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "is incomplete: {} is missing"),
    "a folder": (make_folder, "{} "),
    "a changed byte": (flip_last_byte, "was altered: the checksum of {}"),
    "shorter": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "checksum of {}"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b" "), "checksum of {}"),
}


@pytest.mark.parametrize("name", SPOILED)
@pytest.mark.parametrize("relative", [versions.OPENVINO_MODEL, "openvino/model.bin"])
def test_a_file_that_is_missing_or_changed_is_found(
    version: Path, name: str, relative: str
) -> None:
    spoil, message = SPOILED[name]
    spoil(version / relative)
    with pytest.raises(ModelDamagedError, match=message.format(relative)) as caught:
        versions.load(version)
    assert "copy the whole folder again" in str(caught.value)


def test_a_half_copied_version_is_damaged_not_absent(version: Path) -> None:
    (version / versions.MANIFEST).unlink()
    with pytest.raises(ModelDamagedError, match="missing or incomplete: train one"):
        versions.load(version.parent)


def test_a_manifest_of_a_later_release_says_so(version: Path) -> None:
    change_manifest(version, schema=versions.SCHEMA + 1, brand_new_field=1)
    with pytest.raises(ModelTooNewError, match="update this program") as caught:
        versions.load(version)
    assert version.name in str(caught.value)


HASH = "0" * 64
BAD_FIELDS: dict[str, dict[str, object]] = {
    "an unknown field": {"colour": "red"},
    "duplicate classes": {"classes": ["red", "red", "blue"]},
    "one class": {"classes": ["red"]},
    "an empty class": {"classes": ["", "red"]},
    "classes that are text": {"classes": 7},
    "one side": {"image_size": [32]},
    "a side of 0": {"image_size": [0, 32]},
    "a huge side": {"image_size": [32, 100_000]},
    "an unknown policy": {"policy": {"kind": "guess"}},
    "a policy without a kind": {"policy": {}},
    "a confidence that is text": {"policy": {"kind": "confident", "min_confidence": "much"}},
    "a confidence over 1": {
        "policy": {"kind": "confident", "min_confidence": 2, "fallback_class": "red"}
    },
    "a temperature of 0": {"temperature": 0},
    "a negative temperature": {"temperature": -1},
    "a temperature that is none": {"temperature": float("nan")},
    "an endless temperature": {"temperature": float("inf")},
    "a temperature beyond floats": {"temperature": 10**400},
    "a file above": {"files": {"../x": {"sha256": HASH, "bytes": 1}}},
    "a file above, in between": {"files": {"a/../../x": {"sha256": HASH, "bytes": 1}}},
    "an absolute file": {"files": {"/etc/passwd": {"sha256": HASH, "bytes": 1}}},
    "a file without name": {"files": {"": {"sha256": HASH, "bytes": 1}}},
    "a file with a NUL": {"files": {"a\0": {"sha256": HASH, "bytes": 1}}},
    "a file without checksum": {"files": {"a": {"bytes": 1}}},
    "a check that is no object": {"engines": {"openvino-int8": True}},
    "another pixel contract": {"pixel_contract": "bgr"},
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_manifest_with_a_wrong_field_is_named(version: Path, name: str) -> None:
    change_manifest(version, **BAD_FIELDS[name])
    with pytest.raises(ModelDamagedError) as caught:
        versions.load(version)
    assert str(version) in str(caught.value)
    assert any(advice in str(caught.value) for advice in ("again", "choose another version"))


@pytest.mark.parametrize(
    "field", ["schema", "classes", "backbone", "image_size", "policy", "temperature", "files"]
)
def test_a_missing_field_is_named(version: Path, field: str) -> None:
    value = manifest_of(version)
    del value[field]
    (version / versions.MANIFEST).write_text(json.dumps(value))
    with pytest.raises(ModelDamagedError, match=rf"manifest\.json .*{field}"):
        versions.load(version)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"7", b'"text"', b"[" * 100_000, b"\0" * 100]
)
def test_something_else_than_a_manifest_is_named(version: Path, raw: bytes) -> None:
    (version / versions.MANIFEST).write_bytes(raw)
    with pytest.raises(ModelDamagedError, match=r"manifest\.json is not a manifest"):
        versions.load(version)


def test_promoting_replaces_the_pointer_whole_or_not_at_all(
    make_version: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_version()
    second = make_version(first.parent)
    assert versions.current_name(first.parent) == second.name != first.name
    loaded = versions.load(first)

    def fail(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", fail)
        with pytest.raises(OutputError, match=r"current\.json: no space is left"):
            versions.promote(loaded)
    assert versions.current_name(first.parent) == second.name
    versions.promote(loaded)
    pointer = json.loads((first.parent / "current.json").read_bytes())
    assert pointer == {"version": first.name, "digest": loaded.digest}
    names = sorted(path.name for path in first.parent.iterdir())
    assert names == [*sorted([first.name, second.name]), "current.json"]


def test_a_new_version_gets_a_path_of_its_own(tmp_path: Path) -> None:
    first = versions.new_version_path(tmp_path, "menu")
    with files.new_folder(first):  # it is just being written
        second = versions.new_version_path(tmp_path, "menu")
        second.mkdir()
    third = versions.new_version_path(tmp_path, "menu")
    assert len({first, second, third}) == 3
    assert {path.parent for path in (first, second, third)} == {tmp_path}
    assert third.name.startswith("menu-2")
    assert versions.new_version_path(tmp_path, "x" * 200).parent == tmp_path


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/a", ".hidden", "a/", "a\nb", "菜" * 67]
)
def test_a_model_name_that_cannot_name_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot name a folder: .* at most 200 bytes"):
        versions.new_version_path(tmp_path, name)


def test_an_edited_manifest_of_the_current_version_is_refused(
    make_version: Callable[..., Path],
) -> None:
    path = make_version()
    manifest = path / versions.MANIFEST
    manifest.write_text(manifest.read_text().replace('"argmax"', '"argmax" '))
    with pytest.raises(ModelDamagedError, match=r"was altered: its manifest\.json"):
        versions.load(path.parent)
    assert versions.load(path).name == path.name


def test_a_promotion_while_a_version_is_loaded_does_no_damage(
    make_version: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_version(tmp_path)
    second = versions.load(make_version(tmp_path))
    versions.promote(versions.load(first))
    read = Path.read_bytes

    def read_and_promote(self: Path) -> bytes:
        if self == first / versions.MANIFEST:
            versions.promote(second)
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", read_and_promote)
    assert versions.load(tmp_path).name == first.name
    assert versions.load(tmp_path).name == second.name
