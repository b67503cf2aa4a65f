"""The precisions of a version: bases converted once, each compared with f32 or left out."""

import collections
import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_backbone import TINY

from imagesieve import images
from imagesieve.errors import UsageError
from imagesieve.learning import train_run
from imagesieve.learning.data.dataset import Dataset
from imagesieve.learning.export import report, version_writer
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.openvino import convert, precision_check, quantize
from imagesieve.learning.train_run import Trained, TrainSettings
from imagesieve.model import engines, versions
from imagesieve.model.decisions import DecisionPolicy

PRECISIONS = ("f32", "bf16", "int8") if engines.cpu_has_bf16() else ("f32", "int8")


def train(dataset: Dataset, store: FeatureStore, folder: Path, **changes: Any) -> Trained:
    settings = dataclasses.replace(TrainSettings(batch_size=10, views=1), **changes)
    built = train_run.build_network(dataset, TINY, "random", (32, 32), 0)
    return train_run.train(built, dataset, settings, folder / "log", store=store, quiet=True)


def save(
    trained: Trained, dataset: Dataset, store: FeatureStore, folder: Path, **changes: Any
) -> versions.ModelVersion:
    path = versions.new_version_path(folder / "modelFile", "tiny")
    export = version_writer.ExportSettings(**changes)
    return version_writer.save_version(
        trained, dataset, DecisionPolicy(), {}, path, export=export, store=store
    )


@dataclasses.dataclass(frozen=True)
class Run:
    """A training of a head, the version of it, and the store that it left."""

    trained: Trained
    version: versions.ModelVersion
    store: FeatureStore
    conversions: dict[str, int]


def counting(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """Count, from now on, how often networks are converted and quantised."""
    counter: collections.Counter[str] = collections.Counter()

    def watch(module: Any, name: str) -> None:
        function: Callable[..., Any] = getattr(module, name)

        def counted(*arguments: Any) -> Any:
            counter[name] += 1
            return function(*arguments)

        monkeypatch.setattr(module, name, counted)

    watch(convert, "write_ir")
    watch(quantize, "quantise")
    return counter


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    return counting(monkeypatch)


@pytest.fixture(scope="module")
def first(colours: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("prepared")
    store = FeatureStore(folder / "store", limit=1e9)
    with pytest.MonkeyPatch.context() as monkeypatch:
        counter = counting(monkeypatch)
        monkeypatch.setattr(report, "write", lambda *_: None)  # it takes longest, for nothing here
        trained = train(colours, store, folder)
        yield Run(trained, save(trained, colours, store, folder), store, dict(counter))


@pytest.fixture
def store(first: Run, tmp_path: Path) -> FeatureStore:
    """Return a copy of the store that the first training left."""
    return FeatureStore(Path(shutil.copytree(first.store.folder, tmp_path / "store")), limit=1e9)


def test_no_table_is_created_for_maps_that_were_not_computed(first: Run) -> None:
    kept = [x.about["features"] for x in first.store.entries() if "features" in x.about]
    assert kept == ["pooled"] * len(PRECISIONS)


@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-3), ("bf16", 0.1), ("int8", 0.1)])
def test_each_engine_of_the_version_answers_as_keras(
    first: Run, colours: Dataset, precision: str, tolerance: float
) -> None:
    if precision not in PRECISIONS:
        measured = first.version.manifest.engines[f"openvino-{precision}"]
        assert measured == {"passed": False, "reason": "this CPU has no bfloat16"}
        with pytest.raises(UsageError, match=r"^This CPU has no bfloat16 arithmetic: use --"):
            engines.open_engine(first.version, "openvino", precision)
        return
    pixels = np.stack([images.decode(x.path, image_size=(32, 32)).pixels for x in colours.train])
    expected = engines.open_engine(first.version, "keras").run(pixels)
    found = engines.open_engine(first.version, "openvino", precision).run(pixels)
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert expected.max(axis=1).mean() > 0.5  # or everything were close to everything


def test_the_manifest_has_the_result_of_each_precision(first: Run) -> None:
    measured = first.version.manifest.engines
    assert set(measured) == {"openvino-f32", "openvino-bf16", "openvino-int8"}
    for precision in PRECISIONS:
        found = measured[f"openvino-{precision}"]
        assert found["passed"] is True, found
        ratio = measured["openvino-f32"]["milliseconds"] / found["milliseconds"]
        assert found["speed_to_f32"] == pytest.approx(ratio)
    assert measured["openvino-f32"]["speed_to_f32"] == 1
    found = measured["openvino-int8"]
    assert (found["accuracy_drop"], found["agreement"], found["num_images"]) == (0.0, 1.0, 12)
    assert 0 < found["max_difference_to_f32"] < 0.1  # it is another model, and nearly as good
    for precision, name in (("f32", "model"), ("int8", "model-int8")):
        folder = first.version.path / "openvino"
        files = [folder / f"{name}.xml", folder / f"{name}.bin"]
        size = sum(file.stat().st_size for file in files)
        assert measured[f"openvino-{precision}"]["bytes"] == size
    int8, f32 = (first.version.file(versions.OPENVINO_INT8_MODEL), versions.OPENVINO_MODEL)
    assert int8 is not None
    assert "FakeQuantize" in int8.read_text()
    assert "FakeQuantize" not in (first.version.path / f32).read_text()


def test_nothing_is_converted_twice(
    first: Run,
    colours: Dataset,
    store: FeatureStore,
    tmp_path: Path,
    conversions: collections.Counter[str],
) -> None:
    assert first.conversions == {"write_ir": 1, "quantise": 1}
    version = save(train(colours, store, tmp_path), colours, store, tmp_path)
    assert version.manifest.engines["openvino-int8"]["passed"] is True
    assert not conversions
    assert version.manifest.metrics == first.version.manifest.metrics


def test_a_store_that_is_cleared_while_saving_is_filled_again(
    first: Run,
    colours: Dataset,
    store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = convert.write_with_head

    def clear_and_write(*arguments: Any) -> None:
        store.clear()
        write(*arguments)

    monkeypatch.setattr(convert, "write_with_head", clear_and_write)
    version = save(first.trained, colours, store, tmp_path)
    assert version.manifest.engines["openvino-f32"]["passed"] is True
    assert version.manifest.engines["openvino-int8"]["passed"] is True


def test_a_base_is_converted_again_only_if_it_was_trained(
    colours: Dataset, store: FeatureStore, tmp_path: Path, conversions: collections.Counter[str]
) -> None:
    tuned = train(colours, store, tmp_path, fine_tune_epochs=3, learning_rate=0.01)
    assert tuned.fits[1].best_epoch > 0
    for folder in ("once", "again"):
        version = save(tuned, colours, store, tmp_path / folder, int8_max_drop=None)
        assert version.manifest.engines["openvino-f32"]["passed"] is True
        assert conversions == {"write_ir": 1}
    assert version.file(versions.OPENVINO_INT8_MODEL) is None
    assert "openvino-int8" not in version.manifest.engines


QUANTISE = quantize.quantise


def broken_images(factor: float) -> Callable[..., Any]:
    return lambda xml, pixels, target: QUANTISE(xml, [x * factor for x in pixels], target)


@pytest.mark.parametrize(
    ("quantise", "name", "reason"),
    [
        (broken_images(1e3), None, "on its golden images openvino-int8 differs"),
        # There is nothing to calibrate on.
        (lambda xml, pixels, target: QUANTISE(xml, [], target), None, "NNCF cannot quantise it"),
        (QUANTISE, "gone.png", "gone.png"),  # an image that has been removed since
    ],
    ids=["far too bright", "no images", "an image is gone"],
)
def test_what_cannot_be_calibrated_costs_int8_and_not_the_training(
    first: Run,
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    quantise: Callable[..., Any],
    name: str | None,
    reason: str,
) -> None:
    monkeypatch.setattr(quantize, "quantise", quantise)
    store = FeatureStore(tmp_path / "store", limit=1e9)
    if name:
        save(first.trained, colours, store, tmp_path / "before", int8_max_drop=None)
        gone = dataclasses.replace(colours.train[5], path=tmp_path / name)
        colours = dataclasses.replace(colours, train=(*colours.train[:5], gone))
    with caplog.at_level(logging.INFO, "imagesieve"):
        version = save(first.trained, colours, store, tmp_path)
    found = version.manifest.engines["openvino-int8"]
    assert found["passed"] is False
    assert reason in found["reason"]
    assert found["reason"] in caplog.text
    assert version.file(versions.OPENVINO_MODEL)
    assert version.file(versions.OPENVINO_INT8_MODEL) is None
    assert not list((version.path / "openvino").glob("*int8*"))


@pytest.mark.parametrize("precision", ["int8", "f32"])
def test_an_image_that_changed_meanwhile_costs_an_engine_and_not_the_training(
    first: Run,
    colours: Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    precision: str,
) -> None:
    store = FeatureStore(tmp_path / "store", limit=1e9)
    if precision == "int8":  # only its features are missing
        save(first.trained, colours, store, tmp_path / "before", int8_max_drop=None)
    clear = version_writer.choose_golden(first.trained.probabilities)
    number = next(x for x in range(len(colours.validation)) if x not in clear)
    samples = list(colours.validation)
    (tmp_path / "changed.jpg").write_bytes(b"\xff\xd8\xff no image any more")
    samples[number] = dataclasses.replace(samples[number], path=tmp_path / "changed.jpg")
    colours = dataclasses.replace(colours, validation=tuple(samples))
    with caplog.at_level(logging.INFO, "imagesieve"):
        version = save(first.trained, colours, store, tmp_path)
    measured = version.manifest.engines
    found = measured["openvino-int8" if precision == "int8" else "openvino"]
    assert found["passed"] is False
    assert "changed.jpg: " in found["reason"]
    assert "do not change the folder while training" in found["reason"]
    assert found["reason"].rstrip(".") in caplog.text
    assert (version.file(versions.OPENVINO_MODEL) is None) == (precision == "f32")
    assert not list(version.path.glob("openvino/*int8*"))


def rows(called: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[called]


BLUE = np.zeros(200, np.int64)


def compared(called: list[int], called_by_f32: list[int], max_drop: float) -> Any:
    """Compare answers to images that are all blue."""
    labels = BLUE[: len(called)]
    return precision_check.compare(rows(called), rows(called_by_f32), labels, max_drop)


def test_one_image_of_200_is_half_a_point_and_passes_and_one_of_a_small_set_is_too_many() -> None:
    passed = compared([1] + [0] * 199, [0] * 200, 0.005)
    assert (passed["passed"], passed["accuracy_drop"], passed["agreement"]) == (True, 0.005, 0.995)
    failed = compared([1, 1] + [0] * 198, [0] * 200, 0.005)
    assert failed["passed"] is False
    assert failed["reason"] == (
        "it loses 2 of 200 validation images, which is 1.0 points of accuracy where 0.5 are allowed"
    )
    assert compared([0] * 30, [0] * 30, 0.005)["passed"] is True
    assert compared([2] + [0] * 29, [0] * 30, 0.005)["passed"] is False
    better = compared([0] * 10, [1] * 4 + [0] * 6, 0.0)
    assert (better["passed"], better["accuracy_drop"], better["agreement"]) == (True, -0.4, 0.6)


def test_calibration_takes_every_class_evenly_and_the_same_images_each_time(
    colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = colours.train
    assert len(quantize.calibration_samples(train)) == len(train) == 30
    monkeypatch.setattr(quantize, "NUM_CALIBRATION_IMAGES", 7)
    chosen = quantize.calibration_samples(train)
    assert sorted(sample.class_index for sample in chosen[:6]) == [0, 0, 1, 1, 2, 2]
    assert quantize.calibration_samples(train[::-1]) == chosen
    lopsided = quantize.calibration_samples([*train[:1], *train[10:]])  # of one blue image
    assert sorted(sample.class_index for sample in lopsided) == [0, 1, 1, 1, 2, 2, 2]
