import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted import COLOURS, encode, paint

from imagesieve import files
from imagesieve.errors import (
    EngineError,
    ImageError,
    TruncatedImageError,
    UnsupportedImageFormatError,
)
from imagesieve.model import engines, versions
from imagesieve.model.decisions import CONFIDENT, DecisionPolicy
from imagesieve.prediction.predictor import Prediction, Predictor


@pytest.fixture(scope="module")
def predictor(version_path: Path) -> Predictor:
    return Predictor.load(version_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images, named by colour, and three files that are none."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(4):
        for name, colour in COLOURS.items():
            (folder / f"{seed}-{name}.jpg").write_bytes(encode(paint(colour, seed=seed)))
    jpeg = encode(paint(COLOURS["red"]))
    (folder / "0-cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "1-text.jpg").write_text("hello")
    return folder


def version_that_gives(
    model_dir: Path, build: Callable[[Any, Any], Any], **changes: Any
) -> versions.ModelVersion:
    """Make a version of two classes; `build` gives its output from the red and green means."""
    ov = engines.import_openvino()
    import openvino.opset13 as ops

    pixels = ops.parameter([-1, 32, 40, 3], np.float32, name="pixels")
    means = ops.reduce_mean(pixels, ops.constant([1, 2], np.int64), False)
    two = ops.matmul(means, ops.constant(np.eye(3, 2, dtype=np.float32)), False, False)
    fields = {"policy": DecisionPolicy(), **changes}
    manifest = versions.Manifest(("menu", "not-menu"), "SmallCNN", (32, 40), **fields)
    path = versions.new_version_path(model_dir, "made")
    with files.new_folder(path) as partial:
        (partial / "openvino").mkdir()
        model = ov.Model([build(ops, two)], [pixels])
        ov.save_model(model, partial / versions.OPENVINO_MODEL, compress_to_fp16=False)
        versions.seal(partial, manifest)
    return versions.load(path)


def always(*values: float) -> Callable[[Any, Any], Any]:
    """Return a model that answers these numbers for every image."""

    def build(ops: Any, two: Any) -> Any:
        nothing = ops.multiply(two, ops.constant(np.float32(0)))
        return ops.add(nothing, ops.constant(np.array([values], np.float32)))

    return build


def grey(count: int = 1) -> np.ndarray:
    return np.full((count, 32, 40, 3), 128, np.uint8)


@pytest.mark.parametrize("name", COLOURS)
def test_an_image_gets_its_label_and_probabilities_that_sum_to_1(
    predictor: Predictor, name: str
) -> None:
    answer = predictor.predict(predictor.decode(encode(paint(COLOURS[name]))))
    assert answer.label == answer.decision == name
    assert list(answer.probabilities) == list(COLOURS) == list(predictor.classes)
    assert math.isclose(sum(answer.probabilities.values()), 1, abs_tol=1e-12)
    assert answer.probability == max(answer.probabilities.values()) > 0.8


def test_files_are_predicted_in_the_order_given_with_bad_ones_among_them(
    predictor: Predictor, folder: Path
) -> None:
    paths = [*sorted(folder.iterdir(), reverse=True), folder / "missing.jpg", folder] * 3
    answers = list(predictor.predict_files(paths))
    assert [path for path, _ in answers] == [str(path) for path in paths]
    for path, answer in answers:
        kind = Path(path).stem.rpartition("-")[2]
        if kind in COLOURS:
            assert isinstance(answer, Prediction)
            assert answer.label == kind
        else:
            assert isinstance(answer, ImageError)
            assert answer.source == path
    kinds = {Path(path).name: type(answer) for path, answer in answers}
    assert kinds["0-cut.jpg"] is TruncatedImageError
    assert kinds["1-text.jpg"] is UnsupportedImageFormatError


def test_a_long_list_of_files_is_not_read_ahead_without_bound(
    predictor: Predictor, folder: Path
) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield folder / "0-red.jpg"

    answers = predictor.predict_files(endless())
    for _ in range(3):
        assert next(answers)[1]
    answers.close()
    assert taken <= 10 * (predictor.engine.num_streams + 1)


@pytest.mark.parametrize(
    ("given", "temperature", "expected"),
    [
        ((0.2, 0.8), 1.0, (0.2, 0.8)),
        ((0.2, 0.79), 1.0, (0.2 / 0.99, 0.79 / 0.99)),  # made to sum to 1
        # softmax(log(p) / T): for T = 0.5 squares, for T = 2 square roots, made to sum to 1.
        ((0.2, 0.8), 0.5, (0.04 / 0.68, 0.64 / 0.68)),
        ((0.2, 0.8), 2.0, (math.sqrt(0.2) / 1.341_640_786, math.sqrt(0.8) / 1.341_640_786)),
        ((0.2, 0.8), 0.0001, (0.0, 1.0)),
    ],
)
def test_the_temperature_sharpens_as_counted_by_hand(
    tmp_path: Path, given: tuple[float, float], temperature: float, expected: tuple[float, float]
) -> None:
    version = version_that_gives(tmp_path, always(*given), temperature=temperature)
    (answer,) = Predictor.load(version.path).predict_batch(grey())
    assert list(answer.probabilities.values()) == pytest.approx(expected, abs=1e-5)
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert answer.label == "not-menu"


def test_the_policy_of_the_manifest_decides_unless_another_is_given(tmp_path: Path) -> None:
    policy = DecisionPolicy(CONFIDENT, 0.81, "menu")
    version = version_that_gives(tmp_path, always(0.2, 0.8), policy=policy)
    other = DecisionPolicy(CONFIDENT, 1.0, "ask a person")
    for given, decision in ((None, "menu"), (other, "ask a person")):
        (answer,) = Predictor.load(version.path, policy=given).predict_batch(grey())
        assert (answer.label, answer.decision) == ("not-menu", decision)


NO_PROBABILITIES: dict[str, Callable[[Any, Any], Any]] = {
    "NaN": lambda ops, two: ops.log(ops.subtract(ops.constant(np.float32(-1)), two)),
    "infinity": lambda ops, two: ops.divide(two, ops.constant(np.float32(0))),
    "no softmax": lambda ops, two: two,
    "a sum too small": always(0.4, 0.5),
    "a negative number": always(-1.0, 2.0),
}


@pytest.mark.parametrize("name", NO_PROBABILITIES)
def test_a_model_that_gives_no_probabilities_is_refused_when_loading(
    tmp_path: Path, name: str
) -> None:
    version = version_that_gives(tmp_path, NO_PROBABILITIES[name])
    with pytest.raises(EngineError, match="gave no probabilities") as caught:
        Predictor.load(version.path)
    assert version.name in str(caught.value)


def test_a_model_that_fails_on_some_images_stops_a_run_over_files(
    tmp_path: Path, folder: Path
) -> None:
    def build(ops: Any, two: Any) -> Any:  # log of a negative number for red, but not for grey
        return ops.softmax(ops.log(ops.subtract(ops.constant(np.float32(180)), two)), 1)

    predictor = Predictor.load(version_that_gives(tmp_path, build).path)
    answers = predictor.predict_files([folder / "0-blue.jpg", folder / "0-red.jpg"])
    assert isinstance(next(answers)[1], Prediction)
    with pytest.raises(EngineError, match="gave no probabilities"):
        next(answers)
