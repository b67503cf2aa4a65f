"""One image, one answer: whichever way it comes in and whichever engine runs the model."""

import base64
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import requests
from painted import COLOURS, encode, paint
from PIL import Image
from running import serving

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
    exif = Image.Exif()
    exif[0x0112] = 6
    path.write_bytes(encode(Image.fromarray(striped), "JPEG", exif=exif.tobytes()))
    return path


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Random weights do as well as any."""
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((*IMAGE_SIZE, 3)),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax", kernel_initializer="he_normal"),
        ]
    )


@pytest.fixture(scope="module")
def version(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a version with the Keras model and its OpenVINO twin."""
    path = versions.new_version_path(tmp_path_factory.mktemp("modelFile"), "twins")
    manifest = versions.Manifest(tuple(COLOURS), "SmallCNN", IMAGE_SIZE, DecisionPolicy())
    with files.new_folder(path) as partial:
        model.save(partial / versions.KERAS_MODEL)
        convert.write_ir(model, partial / versions.OPENVINO_MODEL)
        versions.seal(partial, manifest)
    return path


@pytest.fixture(scope="module")
def expected(model: keras.Model, image: Path) -> dict[str, float]:
    """What the Keras model itself says."""
    pixels = images.decode(image, image_size=IMAGE_SIZE).pixels
    row = model.predict_on_batch(pixels[np.newaxis].astype(np.float32))[0]
    assert row.max() - row.min() > 0.05
    return dict(zip(COLOURS, map(float, row), strict=True))


@pytest.mark.parametrize("engine", ["openvino", "keras"])
@pytest.mark.usefixtures("_loggers_restored")
def test_the_script_says_what_the_keras_model_says(
    engine: str,
    version: Path,
    image: Path,
    expected: dict[str, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--model", str(version), "--engine", engine, "--precision", "f32"]
    assert predictWithMyModel.main(["--json", str(image), *options]) == 0
    found = json.loads(capsys.readouterr().out)["probabilities"]
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_the_server_says_what_the_keras_model_says(
    version: Path, image: Path, expected: dict[str, float], tmp_path: Path
) -> None:
    form = {"imageBase64String": base64.b64encode(image.read_bytes())}
    with serving(tmp_path, version, "--precision", "f32") as server:
        response = requests.post(f"{server.url}/v1/predict", image.read_bytes(), timeout=30)
        answer = requests.post(f"{server.url}/image/detection", form, timeout=30).json()
    assert response.status_code == 200, response.text
    assert response.json()["probabilities"] == pytest.approx(expected, abs=TOLERANCE)
    assert answer["code"] == "00"
    assert float(answer["probability"]) == pytest.approx(max(expected.values()), abs=TOLERANCE)
    assert answer["predictedClass"] == max(expected, key=expected.__getitem__)
