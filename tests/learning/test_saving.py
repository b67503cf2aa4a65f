import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from classifier import bundle, engines, images
from classifier.decisions import DecisionPolicy
from classifier.errors import EngineError, OutputError
from classifier.learning import recipes, report, saving

# Keras hands its variables to h5py in a way that NumPy 2 frowns upon, whenever weights are saved.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


class Usage(NamedTuple):
    """What `shutil.disk_usage` gives."""

    total: int
    used: int
    free: int


def save(tiny_run: Any, path: Path) -> bundle.ModelVersion:
    return recipes.save(tiny_run.trained, tiny_run.dataset, DecisionPolicy(), {"seed": 0}, path)


def test_a_version_is_whole_and_bundle_accepts_it(tiny_run: Any) -> None:
    version = bundle.load(tiny_run.version.path)
    assert version.digest == tiny_run.version.digest
    assert set(version.manifest.files) == {
        "model.keras",
        "openvino/model.xml",
        "openvino/model.bin",
        "report/index.html",
    }
    names = [path.name for path in version.path.parent.iterdir()]
    assert names == [version.name]  # saving promotes nothing and leaves nothing else


def test_the_manifest_says_all_that_was_promised(tiny_run: Any) -> None:
    manifest = tiny_run.version.manifest
    dataset = tiny_run.dataset
    assert manifest.classes == dataset.classes == ("<b>x", "blue", "green")
    assert (manifest.backbone, manifest.image_size) == ("SmallCNN", (48, 48))
    assert manifest.policy == DecisionPolicy()
    assert manifest.metrics["num_images"] == 9
    assert len(manifest.metrics["accuracy_interval"]) == 2
    assert [entry["name"] for entry in manifest.metrics["classes"]] == list(dataset.classes)
    assert manifest.settings == {"epochs": 3, "seed": 0}
    assert manifest.data["fingerprint"] == dataset.fingerprint()
    assert manifest.data["train"] == {"<b>x": 8, "blue": 8, "green": 8}
    assert manifest.data["validation"] == {"<b>x": 3, "blue": 3, "green": 3}
    assert manifest.data["validation_taken_from_train"] is False
    (left_out,) = manifest.data["left_out"]
    assert left_out["path"].endswith("half.jpg")
    assert set(manifest.libraries) == {"keras", "tensorflow", "openvino", "numpy", "pillow"}
    assert manifest.parent is None
    assert manifest.created
    json.loads((tiny_run.version.path / "manifest.json").read_text())


def test_keras_and_openvino_agree_with_the_trained_network_on_pictures(tiny_run: Any) -> None:
    pixels = np.stack(
        [
            images.decode(sample.path, image_size=(48, 48)).pixels
            for sample in tiny_run.dataset.validation
        ]
    )
    answers = [
        engines.open_engine(tiny_run.version, engine, "f32").run(pixels)
        for engine in ("keras", "openvino")
    ]
    for found in answers:
        assert np.abs(found - tiny_run.trained.probabilities).max() <= 1e-3


def test_what_was_measured_with_each_precision_is_in_the_manifest(tiny_run: Any) -> None:
    measured = tiny_run.version.manifest.engines
    assert measured["openvino-f32"]["passed"] is True
    assert measured["openvino-f32"]["max_difference_to_keras"] <= saving.MAX_DIFFERENCE
    bf16 = measured["openvino-bf16"]
    if engines.cpu_has_bf16():
        assert bf16["num_images"] == 9
        assert bf16["passed"] is (bf16["accuracy_drop"] <= saving.MAX_ACCURACY_DROP)
    else:
        assert bf16["passed"] is False


def test_a_version_without_openvino_is_saved_with_a_warning(
    tiny_run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def missing() -> None:
        raise EngineError("OpenVINO is not installed")

    monkeypatch.setattr(engines, "import_openvino", missing)
    version = save(tiny_run, tmp_path / "tiny-1")
    assert set(version.manifest.files) == {"model.keras", "report/index.html"}
    assert version.manifest.engines["openvino"]["passed"] is False
    assert "slower to serve" in caplog.text


def test_an_ir_that_disagrees_with_keras_is_left_out(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "MAX_DIFFERENCE", -1.0)
    version = save(tiny_run, tmp_path / "tiny-1")
    assert version.file(bundle.OPENVINO_MODEL) is None
    assert "differ from Keras" in version.manifest.engines["openvino"]["reason"]


def test_when_saving_fails_nothing_is_left(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(report, "write", full)
    with pytest.raises(OutputError, match="no space is left on the disk"):
        save(tiny_run, tmp_path / "modelFile/tiny-1")
    assert list((tmp_path / "modelFile").iterdir()) == []


def test_a_library_s_own_complaint_about_a_full_disk_is_understood(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("unable to flush file's cached information")

    monkeypatch.setattr(saving, "_export", full)
    with pytest.raises(RuntimeError, match="flush"):  # with room left it is another matter
        save(tiny_run, tmp_path / "tiny-1")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 100, 0))
    with pytest.raises(OutputError, match="no space is left"):
        save(tiny_run, tmp_path / "tiny-1")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_version_is_not_overwritten(tiny_run: Any, tmp_path: Path) -> None:
    (tmp_path / "tiny-1").mkdir()
    with pytest.raises(OutputError, match="already there"):
        save(tiny_run, tmp_path / "tiny-1")


def test_too_little_space_is_told_before_the_training(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving.check_space(tmp_path / "not/yet/there", tiny_run.trained.network)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 90, 10))
    with pytest.raises(OutputError, match=r"needs about \d+ MB in .*not/yet/there, where 0 MB"):
        saving.check_space(tmp_path / "not/yet/there", tiny_run.trained.network)


def test_a_place_that_cannot_be_written_to_is_told_before_the_training(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file is a file, not a folder"):
        saving.check_space(tmp_path / "file/models", tiny_run.trained.network)
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root
    with pytest.raises(OutputError, match=r"may not be written to"):
        saving.check_space(tmp_path / "models", tiny_run.trained.network)


def test_a_comparison_is_kept_for_a_retraining(tiny_run: Any, tmp_path: Path) -> None:
    version = recipes.save(
        dataclasses.replace(tiny_run.trained),
        tiny_run.dataset,
        DecisionPolicy(),
        {},
        tmp_path / "tiny-2",
        parent=tiny_run.version,
    )
    assert version.manifest.parent == tiny_run.version.name
    page = (version.path / bundle.REPORT).read_text()
    assert "Before and after" in page
    assert f"trained further from {tiny_run.version.name}" in page
