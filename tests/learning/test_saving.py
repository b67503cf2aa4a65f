import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from imagesieve.errors import EngineError, OutputError
from imagesieve.learning.export import report, version_writer
from imagesieve.learning.openvino import convert
from imagesieve.model import engines, golden, versions
from imagesieve.model.decisions import DecisionPolicy


class Usage(NamedTuple):
    """What `shutil.disk_usage` gives."""

    total: int
    used: int
    free: int


WITHOUT_INT8 = version_writer.ExportSettings(int8_max_drop=None)


def save(
    tiny_run: Any, path: Path, export: version_writer.ExportSettings = WITHOUT_INT8, **options: Any
) -> versions.ModelVersion:
    """Save once more; without int8, which costs a second."""
    what = (tiny_run.trained, tiny_run.dataset, DecisionPolicy(), {"seed": 0}, path)
    return version_writer.save_version(*what, store=tiny_run.store, export=export, **options)


def test_a_version_is_whole_and_not_promoted(tiny_run: Any) -> None:
    version = versions.load(tiny_run.version.path)
    assert version.digest == tiny_run.version.digest
    int8 = {"openvino/model-int8.xml", "openvino/model-int8.bin"}
    others = {"golden.npz", "model.keras", versions.OPENVINO_MODEL, "openvino/model.bin"}
    assert set(version.manifest.files) - int8 == {*others, versions.REPORT}
    passed = version.manifest.engines["openvino-int8"]["passed"]
    assert int8 & set(version.manifest.files) == (int8 if passed else set())
    assert [path.name for path in version.path.parent.iterdir()] == [version.name]


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
    assert manifest.data["fingerprint"] == dataset.digest()
    assert manifest.data["train"] == {"<b>x": 8, "blue": 8, "green": 8}
    assert manifest.data["validation"] == {"<b>x": 3, "blue": 3, "green": 3}
    assert manifest.data["validation_taken_from_train"] is False
    (left_out,) = manifest.data["left_out"]
    assert left_out["path"].endswith("half.jpg")
    libraries = {"keras", "tensorflow", "openvino", "nncf", "numpy", "pillow"}
    assert set(manifest.libraries) == libraries
    assert manifest.parent is None
    assert manifest.created
    json.loads((tiny_run.version.path / "manifest.json").read_text())


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
    assert set(version.manifest.files) == {"golden.npz", "model.keras", "report/index.html"}
    assert version.manifest.engines["openvino"]["passed"] is False
    assert "slower to serve" in caplog.text


def test_an_ir_that_disagrees_with_keras_is_left_out(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "MAX_DIFFERENCE", -1.0)
    version = save(tiny_run, tmp_path / "tiny-1")
    assert version.file(versions.OPENVINO_MODEL) is None
    assert "from Keras, where" in version.manifest.engines["openvino"]["reason"]


def test_exports_are_part_of_the_version_and_of_its_checksums(
    tiny_run: Any, tmp_path: Path
) -> None:
    wanted = version_writer.ExportSettings(None, ("saved_model",))
    version = save(tiny_run, tmp_path / "tiny-1", wanted)
    assert version.file("export/saved_model/saved_model.pb")
    assert version.manifest.engines["export-saved_model"]["passed"] is True


def test_an_export_that_fails_costs_the_export_and_not_the_training(
    tiny_run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(golden, "MAX_DIFFERENCE", -1.0)
    wanted = version_writer.ExportSettings(None, ("saved_model",))
    version = save(tiny_run, tmp_path / "tiny-1", wanted)
    assert not [name for name in version.manifest.files if name.startswith("export/")]
    found = version.manifest.engines["export-saved_model"]
    assert found["passed"] is False
    assert "The export to saved_model gives probabilities that differ" in found["reason"]
    assert found["reason"] in caplog.text


@pytest.mark.parametrize("count", [2, 12])
def test_an_ir_has_its_outputs_in_the_order_of_the_keras_model(count: int, tmp_path: Path) -> None:
    import keras

    pixels = keras.Input((8, 6, 3))
    layers = [keras.layers.Conv2D(2 + number, 1)(pixels) for number in range(count)]
    outputs = [keras.layers.GlobalAveragePooling2D()(layers[0]), *layers[1:]][::-1]
    model = keras.Model(pixels, outputs)
    convert.write_ir(model, tmp_path / "new/model.xml")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3)).astype(np.uint8)
    engine = engines.OpenVINOEngine(tmp_path / "new/model.xml")
    assert (engine.name, engine.image_size) == ("openvino-f32", (8, 6))
    found = engine.run_all(images)
    for _ in range(engine.num_streams):  # every request's memory is written to again
        engine.run_all(255 - images)
    expected = model(images.astype(np.float32))
    assert engine.output_shapes == tuple(tuple(answer.shape[1:]) for answer in expected)
    assert [answer.shape for answer in found] == [tuple(answer.shape) for answer in expected]
    for answer, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(answer, other.numpy(), rtol=1e-3, atol=1e-2)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["model.bin", "model.xml"]


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

    monkeypatch.setattr(version_writer, "_write_ir", full)
    with pytest.raises(RuntimeError, match="flush"):  # with room left it is another matter
        save(tiny_run, tmp_path / "tiny-1")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 100, 0))
    with pytest.raises(OutputError, match="no space is left"):
        save(tiny_run, tmp_path / "tiny-1")
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_told_before_the_training(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_writer.check_space(tmp_path / "not/yet/there", tiny_run.trained.network)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 90, 10))
    with pytest.raises(OutputError, match=r"needs about \d+ MB in .*not/yet/there, where 0 MB"):
        version_writer.check_space(tmp_path / "not/yet/there", tiny_run.trained.network)
    num_parameters = tiny_run.trained.network.model.count_params()
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: Usage(10**9, 0, 50_000_000 + 9 * num_parameters)
    )
    version_writer.check_space(tmp_path, tiny_run.trained.network)
    wanted = version_writer.ExportSettings(formats=("litert",))
    with pytest.raises(OutputError, match="A model version needs about"):
        version_writer.check_space(tmp_path, tiny_run.trained.network, wanted)


def test_a_place_that_cannot_be_written_to_is_told_before_the_training(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file is a file, not a folder"):
        version_writer.check_space(tmp_path / "file/models", tiny_run.trained.network)
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root
    with pytest.raises(OutputError, match=r"may not be written to"):
        version_writer.check_space(tmp_path / "models", tiny_run.trained.network)


def test_a_comparison_is_kept_for_a_retraining(tiny_run: Any, tmp_path: Path) -> None:
    version = save(tiny_run, tmp_path / "tiny-2", parent=tiny_run.version)
    assert version.manifest.parent == tiny_run.version.name
    page = (version.path / versions.REPORT).read_text()
    assert "Before and after" in page
    assert f"trained further from {tiny_run.version.name}" in page
