import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagesieve.errors import ModelDamagedError
from imagesieve.model import engines, golden, versions


def same(answers: np.ndarray) -> np.ndarray:
    return answers


@pytest.fixture(scope="module")
def version(make_version: Callable[..., Path]) -> versions.ModelVersion:
    """Return a version with golden images, whose file the tests of this module spoil."""
    return versions.load(make_version(golden=same))


@pytest.fixture(scope="module")
def right(version: versions.ModelVersion) -> golden.Golden:
    """Return what was in the file at first."""
    found = golden.read(version)
    assert found is not None
    return found


def packed(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


class Answers(engines.Engine):
    """An engine that gives prepared answers, in their order."""

    def __init__(self, name: str, answers: np.ndarray) -> None:
        self.name, self.image_size, self.num_streams = name, (32, 40), 1
        self.answers = iter(answers)

    def run(self, images: np.ndarray) -> np.ndarray:
        assert images.shape == (1, 32, 40, 3)
        return next(self.answers)[np.newaxis]


def test_golden_images_come_back_as_they_were_written(
    right: golden.Golden, version: versions.ModelVersion, tmp_path: Path
) -> None:
    assert (right.pixels.shape, right.pixels.dtype) == ((3, 32, 40, 3), np.uint8)
    assert (right.probabilities.shape, right.probabilities.dtype) == ((3, 3), np.float32)
    assert versions.GOLDEN in version.manifest.files
    golden.write(tmp_path / "again", right)
    stored = version.path / versions.GOLDEN
    assert (tmp_path / "again").read_bytes() == stored.read_bytes()  # the same bytes each time


def test_a_version_of_an_earlier_release_has_none(version_path: Path) -> None:
    assert golden.read(versions.load(version_path)) is None


PIXELS = np.zeros((3, 32, 40, 3), np.uint8)
ANSWERS = np.full((3, 3), 1 / 3, np.float32)
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "text": b"golden",
    "a pickle": pickle.dumps([1]),
    "a bare array": (lambda file: (np.save(file, PIXELS), file.getvalue())[1])(io.BytesIO()),
    "no probabilities": packed(pixels=PIXELS),
    "no pixels": packed(probabilities=ANSWERS),
    "objects": packed(pixels=np.array([{}], dtype=object), probabilities=ANSWERS),
    "float pixels": packed(pixels=PIXELS.astype(np.float32), probabilities=ANSWERS),
    "double probabilities": packed(pixels=PIXELS, probabilities=ANSWERS.astype(np.float64)),
    "pixels of another size": packed(pixels=PIXELS[:, :31], probabilities=ANSWERS),
    "one class less": packed(pixels=PIXELS, probabilities=ANSWERS[:, :2]),
    "one answer less": packed(pixels=PIXELS, probabilities=ANSWERS[:2]),
    "no image": packed(pixels=PIXELS[:0], probabilities=ANSWERS[:0]),
    "a number": packed(pixels=np.uint8(1), probabilities=ANSWERS),
    "nine images": packed(
        pixels=np.repeat(PIXELS, 3, axis=0), probabilities=np.repeat(ANSWERS, 3, axis=0)
    ),
    "no numbers": packed(pixels=PIXELS, probabilities=ANSWERS * np.nan),
    "a hundred megabytes of nothing": packed(
        pixels=np.zeros((26042, 32, 40, 3), np.uint8), probabilities=ANSWERS
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_of_something_else_is_damaged(version: versions.ModelVersion, name: str) -> None:
    (version.path / versions.GOLDEN).write_bytes(BROKEN[name])
    with pytest.raises(ModelDamagedError, match=r"golden\.npz holds no golden images"):
        golden.read(version)


def test_a_large_file_is_refused_before_it_is_unpacked(
    version: versions.ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    (version.path / versions.GOLDEN).write_bytes(BROKEN["a hundred megabytes of nothing"])
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(ModelDamagedError, match=r"'pixels.npy' has 100,0\d\d,\d\d\d bytes"):
        golden.read(version)


def test_no_change_of_a_byte_does_more_harm_than_being_found(
    version: versions.ModelVersion, right: golden.Golden
) -> None:
    path = version.path / versions.GOLDEN
    golden.write(path, right)
    good = path.read_bytes()
    num_found = 0
    for position in range(0, len(good), 3):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x41]) + good[position + 1 :])
        try:
            golden.read(version)
        except ModelDamagedError:
            num_found += 1
    for length in range(0, len(good) - 1, 7):
        path.write_bytes(good[:length])
        with pytest.raises(ModelDamagedError):
            golden.read(version)
    assert num_found > len(good) / 6  # most; the rest stands in bytes that are not read


def test_the_engine_of_the_version_answers_as_it_should(
    version: versions.ModelVersion, right: golden.Golden
) -> None:
    engine = engines.open_engine(version)
    assert golden.difference(engine, right) < 1e-3
    assert golden.mismatch(engine, right) is None
    wrong = golden.Golden(right.pixels, right.probabilities * np.nan)
    assert "nan" in (golden.mismatch(engine, wrong) or "")


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("keras-f32", 0.02), ("openvino-f32", 0.02), ("openvino-bf16", 0.08), ("openvino-int8", 0.25)],
)
def test_each_precision_has_its_tolerance(
    right: golden.Golden, name: str, tolerance: float
) -> None:
    def off_by(much: float) -> engines.Engine:
        answers = right.probabilities.copy()
        answers[2] += np.array([much, -much, 0], np.float32)
        return Answers(name, answers)

    assert golden.mismatch(off_by(tolerance * 0.98), right) is None
    found = golden.mismatch(off_by(tolerance * 1.02), right)
    assert found == (
        f"on its golden images {name} differs by up to {tolerance * 1.02:.3f} of a probability "
        f"from Keras, where {tolerance:g} is allowed"
    )
