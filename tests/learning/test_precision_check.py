import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import fill

from imagesieve.errors import EngineError
from imagesieve.learning.data.dataset import Dataset, read_dataset
from imagesieve.learning.export.golden_images import take
from imagesieve.learning.openvino import convert, precision_check, quantize
from imagesieve.model import engines
from imagesieve.model.golden import Golden

SIZE = (32, 32)

# Keras hands its variables to h5py in a way that NumPy 2 frowns upon, whenever weights are saved.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A tiny network that really tells colours apart, its IR, and f32's answers."""

    model: Any
    dataset: Dataset
    xml: Path
    exam: precision_check.Exam
    images: list[np.ndarray]

    def golden(self) -> Golden:
        samples = self.dataset.validation
        return take(self.model, samples, precision_check.probabilities(self.engine(), samples))

    def engine(self) -> engines.Engine:
        return engines.OpenVINOEngine(self.xml)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    import keras

    root = tmp_path_factory.mktemp("gates")
    folder = fill(root / "data", 10)
    fill(folder, 7, split="validation")
    dataset = read_dataset(folder)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    images = precision_check.decode_samples(dataset.train, SIZE)
    labels = np.array([sample.class_index for sample in dataset.train])
    model.fit(np.stack(images).astype(np.float32), labels, epochs=25, verbose=0)
    xml = root / "openvino/model.xml"
    convert.write_ir(model, xml)
    exam = precision_check.Exam.sit(engines.OpenVINOEngine(xml), dataset.validation)
    assert accuracy(exam.answers, exam) == 1.0  # or nothing could be lost
    return Subject(model, dataset, xml, exam, images)


def accuracy(answers: np.ndarray, exam: precision_check.Exam) -> float:
    return float((answers.argmax(1) == [sample.class_index for sample in exam.samples]).mean())


class Answers(engines.Engine):
    """An engine that gives prepared answers, whatever the image."""

    def __init__(self, answers: np.ndarray) -> None:
        self.name, self.image_size, self.num_streams = "prepared", (8, 8), 0
        self.answers = iter(answers)

    def run(self, images: np.ndarray) -> np.ndarray:
        return next(self.answers)[np.newaxis]


def exam_of(count: int, subject: Subject) -> precision_check.Exam:
    """Give an exam of `count` blue images, all of which f32 calls blue."""
    blue = next(sample for sample in subject.dataset.validation if sample.class_index == 0)
    return precision_check.Exam([blue] * count, rows([0] * count))


def rows(called: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[called]


def test_int8_of_a_sound_calibration_passes_and_answers_like_f32(subject: Subject) -> None:
    verdict, engine = precision_check.gate_int8(
        subject.xml, lambda: subject.images, subject.exam, 0.005
    )
    assert engine is not None
    assert engine.name == "openvino-int8"
    assert verdict["passed"] is True
    assert (verdict["accuracy_drop"], verdict["agreement"]) == (0.0, 1.0)
    assert verdict["num_images"] == len(subject.exam.samples) == 21
    assert 0 < verdict["max_difference_to_f32"] < 0.1  # it is another model, and nearly as good
    target = subject.xml.with_name("model-int8.xml")
    assert "FakeQuantize" in target.read_text()
    found = precision_check.probabilities(
        engines.OpenVINOEngine(target, "int8"), subject.exam.samples
    )
    assert accuracy(found, subject.exam) == 1.0
    np.testing.assert_allclose(found, subject.exam.answers, atol=0.1)


@pytest.mark.parametrize("factor", [0, 0.001])
def test_a_broken_calibration_is_refused_and_leaves_no_file(
    subject: Subject, factor: float
) -> None:
    broken = [image * factor for image in subject.images]
    verdict, engine = precision_check.gate_int8(subject.xml, lambda: broken, subject.exam, 0.005)
    assert engine is None
    assert verdict["passed"] is False
    assert verdict["accuracy_drop"] > 0.3  # the images are no longer told apart
    assert "of 21 validation images" in verdict["reason"]
    assert not list(subject.xml.parent.glob("model-int8.*"))


def test_a_network_that_cannot_be_quantised_is_refused_with_the_reason(subject: Subject) -> None:
    verdict, engine = precision_check.gate_int8(subject.xml, list, subject.exam, 0.005)
    assert engine is None
    assert verdict["passed"] is False
    assert "NNCF cannot quantise it" in verdict["reason"]  # there is nothing to calibrate on


def test_a_image_that_vanished_costs_int8_and_not_the_training(
    subject: Subject, tmp_path: Path
) -> None:
    gone = dataclasses.replace(subject.dataset.train[0], path=tmp_path / "gone.jpg")
    verdict, engine = precision_check.gate_int8(
        subject.xml, lambda: precision_check.decode_samples([gone], SIZE), subject.exam, 0.005
    )
    assert engine is None
    assert "gone.jpg" in verdict["reason"]


def test_every_precision_that_passed_was_timed(
    subject: Subject, caplog: pytest.LogCaptureFixture
) -> None:
    data = subject.dataset
    with caplog.at_level(logging.INFO, "imagesieve"):
        measured = precision_check.measure(
            subject.golden(), subject.xml, data.validation, data.train, 0.005
        )
    assert set(measured) == {"openvino-f32", "openvino-bf16", "openvino-int8"}
    assert measured["openvino-f32"]["speed_to_f32"] == 1
    for name, found in measured.items():
        assert ("milliseconds" in found) is found["passed"], name
        if found["passed"]:
            ratio = measured["openvino-f32"]["milliseconds"] / found["milliseconds"]
            assert found["speed_to_f32"] == pytest.approx(ratio)
    sizes = [measured[f"openvino-{name}"]["bytes"] for name in ("f32", "int8")]
    for size, name in zip(sizes, ("model", "model-int8"), strict=True):
        files = [subject.xml.with_name(name + suffix) for suffix in (".xml", ".bin")]
        assert size == sum(file.stat().st_size for file in files)
    assert "int8 passed its gate" in caplog.text


def test_no_int8_is_made_when_none_is_wanted(subject: Subject) -> None:
    for file in subject.xml.parent.glob("model-int8.*"):
        file.unlink()
    data = subject.dataset
    measured = precision_check.measure(
        subject.golden(), subject.xml, data.validation, data.train, None
    )
    assert "openvino-int8" not in measured
    assert not list(subject.xml.parent.glob("model-int8.*"))


def test_one_image_of_200_is_half_a_point_and_passes(subject: Subject) -> None:
    exam = exam_of(200, subject)
    one, two = rows([1] + [0] * 199), rows([1, 1] + [0] * 198)
    passed = exam.grade(Answers(one), 0.005)
    assert (passed["passed"], passed["accuracy_drop"], passed["agreement"]) == (True, 0.005, 0.995)
    failed = exam.grade(Answers(two), 0.005)
    assert failed["passed"] is False
    assert failed["reason"] == (
        "it loses 2 of 200 validation images, which is 1.0 points of accuracy where 0.5 are allowed"
    )


def test_one_image_of_a_small_set_is_too_many(subject: Subject) -> None:
    exam = exam_of(30, subject)
    assert exam.grade(Answers(rows([0] * 30)), 0.005)["passed"] is True
    assert exam.grade(Answers(rows([2] + [0] * 29)), 0.005)["passed"] is False


def test_a_precision_may_be_better_than_f32(subject: Subject) -> None:
    exam = dataclasses.replace(exam_of(10, subject), answers=rows([1] * 4 + [0] * 6))
    found = exam.grade(Answers(rows([0] * 10)), 0.0)
    assert (found["passed"], found["accuracy_drop"], found["agreement"]) == (True, -0.4, 0.6)


@pytest.mark.parametrize("answer", [[np.nan, 0, 1], [np.inf, 0, 0], [0, 0, 0], [1, 1, 0]])
def test_answers_that_are_no_probabilities_fail(subject: Subject, answer: list[float]) -> None:
    answers = np.vstack([rows([0, 0]), np.array(answer, np.float32)])
    with pytest.raises(EngineError, match="no probabilities"):
        exam_of(3, subject).grade(Answers(answers), 1.0)


def test_calibration_takes_every_class_evenly_and_the_same_images_each_time(
    subject: Subject,
) -> None:
    train = subject.dataset.train
    chosen = quantize.calibration_samples(train, 6)
    assert sorted(sample.class_index for sample in chosen) == [0, 0, 1, 1, 2, 2]
    assert quantize.calibration_samples(train[::-1], 6) == chosen
    lopsided = [*train[:1], *train[10:]]  # one blue image is all there is
    chosen = quantize.calibration_samples(lopsided, 7)
    assert sorted(sample.class_index for sample in chosen) == [0, 1, 1, 1, 2, 2, 2]
    assert len(quantize.calibration_samples(train)) == len(train) == 30
