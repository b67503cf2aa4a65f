"""One image, one answer: whichever way it comes in and whichever engine runs the model."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import requests
from painted import COLOURS, encode, paint
from running import RunningServer, serving

import predictWithMyModel
from imagesieve import files, images
from imagesieve.learning.openvino import convert
from imagesieve.model import versions
from imagesieve.model.decisions import DecisionPolicy

TOLERANCE = 1e-3
IMAGE_SIZE = (48, 64)

# Keras hands its variables to h5py in a way that NumPy 2 frowns upon, whenever weights are saved.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A turned JPEG, larger than the model's input: every step of the road is needed."""
    path = tmp_path_factory.mktemp("image") / "turned.jpg"
    striped = np.array(paint(COLOURS["green"], size=(400, 300), seed=3))
    striped[:, ::40] = 255
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    path.write_bytes(encode(Image.fromarray(striped), "JPEG", exif=exif.tobytes()))
    return path


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> versions.ModelVersion:
    """A version with a Keras model and its OpenVINO twin; random weights do as well as any."""
    path = versions.new_version_path(tmp_path_factory.mktemp("modelFile"), "twins")
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((*IMAGE_SIZE, 3)),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax", kernel_initializer="he_normal"),
        ]
    )
    manifest = versions.Manifest(tuple(COLOURS), "SmallCNN", IMAGE_SIZE, DecisionPolicy())
    with files.new_folder(path) as partial:
        model.save(partial / versions.KERAS_MODEL)
        convert.write_ir(model, partial / versions.OPENVINO_MODEL)
        versions.seal(partial, manifest)
    versions.promote(versions.load(path))
    return versions.load(path)


@pytest.fixture(scope="module")
def expected(version: versions.ModelVersion, image: Path) -> dict[str, float]:
    """What the Keras model itself says."""
    model = keras.saving.load_model(version.path / versions.KERAS_MODEL, compile=False)
    pixels = images.decode(image, image_size=IMAGE_SIZE).pixels
    row = model.predict_on_batch(pixels[np.newaxis].astype(np.float32))[0]
    probabilities = dict(zip(COLOURS, map(float, row), strict=True))
    assert max(probabilities.values()) - min(probabilities.values()) > 0.05
    return probabilities


@pytest.fixture(scope="module")
def server(
    version: versions.ModelVersion, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("server"), version.path, "--precision", "f32") as running:
        yield running


def same(found: dict[str, float], expected: dict[str, float]) -> None:
    assert list(found) == list(expected) or set(found) == set(expected)
    for name, probability in expected.items():
        assert found[name] == pytest.approx(probability, abs=TOLERANCE)


@pytest.mark.parametrize("engine", ["openvino", "keras"])
@pytest.mark.usefixtures("_loggers_restored")
def test_the_script_says_what_the_keras_model_says(
    engine: str,
    version: versions.ModelVersion,
    image: Path,
    expected: dict[str, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--model", str(version.path), "--engine", engine, "--precision", "f32"]
    assert predictWithMyModel.main(["--json", str(image), *options]) == 0
    same(json.loads(capsys.readouterr().out)["probabilities"], expected)


def test_the_server_says_what_the_keras_model_says(
    server: RunningServer, image: Path, expected: dict[str, float]
) -> None:
    response = requests.post(f"{server.url}/v1/predict", data=image.read_bytes(), timeout=30)
    assert response.status_code == 200, response.text
    same(response.json()["probabilities"], expected)
    form = {"imageBase64String": base64.b64encode(image.read_bytes())}
    answer = requests.post(f"{server.url}/image/detection", data=form, timeout=30).json()
    assert answer["code"] == "00"
    assert float(answer["probability"]) == pytest.approx(max(expected.values()), abs=TOLERANCE)
    assert answer["predictedClass"] == max(expected, key=expected.__getitem__)
