"""Explanations by a real child process with TensorFlow, which takes seconds to start."""

import concurrent.futures
import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from apps import models_of
from attacking import wait_until
from flask.testing import FlaskClient
from guarding import assert_refused
from painted import encode
from PIL import Image
from running import REPOSITORY, SECONDS

from imagesieve import files
from imagesieve.errors import EngineError
from imagesieve.explaining.worker import Explainer, Question
from imagesieve.learning.openvino import convert
from imagesieve.model import versions
from imagesieve.model.decisions import DecisionPolicy
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving.app import Service, create_app

IMAGE_SIZE = (48, 64)
CLASSES = ("blå", "green", "red")  # one of them is no ASCII

# Keras hands its variables to h5py in a way that NumPy 2 frowns upon, whenever weights are saved.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def colour_model(sureness: float) -> keras.Model:
    """Return a network whose maps are how blue, green and red each place is."""
    excess = (1.5 * np.eye(3) - 0.5)[:, ::-1]
    pixels = keras.Input((*IMAGE_SIZE, 3))
    maps = keras.layers.Rescaling(1 / 255)(pixels)
    maps = keras.layers.Conv2D(3, 4, strides=4, activation="relu", name="maps")(maps)
    features = keras.layers.GlobalAveragePooling2D()(maps)
    answer = keras.layers.Dense(3, activation="softmax", name="head")(features)
    model = keras.Model(pixels, answer)
    kernel = np.broadcast_to(excess / 16, (4, 4, 3, 3))
    model.get_layer("maps").set_weights([kernel, np.zeros(3)])
    model.get_layer("head").set_weights([sureness * np.eye(3), np.zeros(3)])
    return model


def write_version(folder: Path, sureness: float) -> Path:
    path = versions.new_version_path(folder, "colours")
    model = colour_model(sureness)
    with files.new_folder(path) as partial:
        model.save(partial / versions.KERAS_MODEL)
        convert.write_ir(model, partial / versions.OPENVINO_MODEL)
        versions.seal(partial, versions.Manifest(CLASSES, "SmallCNN", IMAGE_SIZE, DecisionPolicy()))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("modelFile")


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor.load(write_version(folder, 50), precision="f32")


@pytest.fixture(scope="module")
def damaged(folder: Path) -> Predictor:
    """Return one whose Keras model was altered: a child says so without TensorFlow."""
    other = Predictor.load(write_version(folder, 40), precision="f32")
    keras_file = other.version.path / versions.KERAS_MODEL
    keras_file.write_bytes(keras_file.read_bytes()[:-1])
    return other


@pytest.fixture(scope="module")
def explainer() -> Iterator[Explainer]:
    """Return one explainer for the tests that can share its child."""
    with contextlib.closing(Explainer()) as shared:
        yield shared


@pytest.fixture
def alone() -> Iterator[Explainer]:
    """Return one explainer for a test alone."""
    with contextlib.closing(Explainer()) as own:
        yield own


@pytest.fixture(scope="module")
def client(predictor: Predictor, explainer: Explainer) -> FlaskClient:
    return create_app(Service(models_of(predictor), explainer=explainer)).test_client()


def grey_image() -> bytes:
    """Return a grey image, three times as wide as high: red on the left, less of green right."""
    pixels = np.full((200, 600, 3), 120, np.uint8)
    pixels[40:160, 50:170] = (240, 20, 20)
    pixels[60:140, 440:520] = (20, 220, 20)
    return encode(Image.fromarray(pixels), "PNG")


def ask(explainer: Explainer, predictor: Predictor, label: str = "red") -> bytes:
    pixels = predictor.decode(grey_image()).pixels
    question = Question(pixels, predictor.classes.index(label), (512, 171))
    return explainer.explain(predictor.version, question)


def hottest(png: bytes) -> tuple[int, int]:
    """Return row and column of the lightest place."""
    lightness = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    row, column = np.unravel_index(lightness.argmax(), lightness.shape)
    return int(row), int(column)


def post(client: FlaskClient, query: str = "", data: bytes | None = None):
    return client.post(f"/v1/explain{query}", data=grey_image() if data is None else data)


def ask_apart(explainer: Explainer, predictor: Predictor) -> concurrent.futures.Future[bytes]:
    """Ask from a thread of its own; there is a child when this returns."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    answer = pool.submit(ask, explainer, predictor)
    pool.shutdown(wait=False)
    wait_until(lambda: explainer._child is not None)
    return answer


def child_of(explainer: Explainer) -> int:
    """Return the number of the child process."""
    assert explainer._child is not None
    number = explainer._child.process.pid
    assert number is not None
    return number


def is_there(number: int) -> bool:
    """Return whether there is such a process, be it a zombie."""
    return Path(f"/proc/{number}").exists()


def test_the_image_comes_back_with_what_speaks_for_a_label(
    client: FlaskClient, explainer: Explainer
) -> None:
    response = post(client)
    assert (response.status_code, response.mimetype) == (200, "image/png")
    assert response.headers["X-Label"] == "red"
    assert response.headers["Cache-Control"] == "no-store"
    image = Image.open(io.BytesIO(response.data))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (512, 171))
    row, column = hottest(response.data)
    assert 40 * 512 / 600 <= row <= 160 * 512 / 600
    assert 50 * 512 / 600 <= column <= 170 * 512 / 600
    number = child_of(explainer)
    response = post(client, "?label=green")
    assert response.headers["X-Label"] == "green"
    assert hottest(response.data)[1] > 256
    assert child_of(explainer) == number
    # It steps back behind predictions.
    niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
    assert os.getpriority(os.PRIO_PROCESS, number) == niceness
    assert Path(f"/proc/{number}/oom_score_adj").read_text() == "500\n"


def test_a_class_name_outside_of_ascii_fits_into_the_header(client: FlaskClient) -> None:
    blue = encode(Image.new("RGB", (64, 48), (20, 20, 240)))
    assert post(client, data=blue).headers["X-Label"] == "bl%C3%A5"
    sent = {"label": "blå", "image": (io.BytesIO(blue), "x.jpg")}
    assert client.post("/v1/explain", data=sent).headers["X-Label"] == "bl%C3%A5"


def test_a_wrong_option_or_image_is_refused_and_never_reaches_the_child(
    predictor: Predictor, alone: Explainer
) -> None:
    client = create_app(Service(models_of(predictor), explainer=alone)).test_client()
    for query in ("?label=purple", "?label=", "?top_k=1"):
        assert_refused(post(client, query), 400, "bad-parameter")
    assert_refused(post(client, data=grey_image()[:200]), 422, "truncated-image")
    assert alone._child is None


def test_a_second_question_at_once_is_turned_away(
    client: FlaskClient, explainer: Explainer, predictor: Predictor
) -> None:
    ask(explainer, predictor)
    os.kill(child_of(explainer), signal.SIGSTOP)
    first = ask_apart(explainer, predictor)
    try:
        wait_until(explainer._busy.locked)
        with pytest.raises(BlockingIOError):
            ask(explainer, predictor)
        response = post(client)
        assert response.status_code == 503
        assert "Retry-After" in response.headers
        predicted = client.post("/v1/predict", data=grey_image(), content_type="image/png")
        assert predicted.get_json()["label"] == "red"  # these go on meanwhile
        explainer._end_if_idle()  # it is not
    finally:
        os.kill(child_of(explainer), signal.SIGCONT)
    assert hottest(first.result(SECONDS))[1] < 256


def test_after_a_kill_the_next_question_of_the_same_version_is_answered(
    alone: Explainer, damaged: Predictor
) -> None:
    alone._child_for(damaged.version)
    number = child_of(alone)
    os.kill(number, signal.SIGKILL)
    wait_until(lambda: not is_there(number))  # and there is no zombie
    with pytest.raises(EngineError, match="was altered"):  # so says the child
        ask(alone, damaged)
    assert child_of(alone) != number


def test_a_child_that_dies_while_it_is_asked_is_an_error(
    predictor: Predictor, alone: Explainer
) -> None:
    answer = ask_apart(alone, predictor)
    number = child_of(alone)
    os.kill(number, signal.SIGKILL)  # it still imports TensorFlow
    with pytest.raises(EngineError, match="log has its last words"):
        answer.result(SECONDS)
    assert alone._child is None
    assert not is_there(number)


def test_a_child_that_takes_too_long_is_killed(predictor: Predictor) -> None:
    # Less than Python itself needs with TensorFlow.
    with contextlib.closing(Explainer(deadline_seconds=0.2)) as hasty:
        with pytest.raises(TimeoutError, match=r"within 0\.2 seconds"):
            ask(hasty, predictor)
        assert hasty._child is None


def test_another_model_ends_the_child_which_ends_when_it_is_idle(
    predictor: Predictor, damaged: Predictor, alone: Explainer
) -> None:
    alone._child_for(predictor.version)
    former = child_of(alone)
    with pytest.raises(EngineError, match="was altered"):
        ask(alone, damaged)
    number = child_of(alone)
    assert number != former
    assert not is_there(former)
    alone._idle_seconds = 0.05
    with pytest.raises(EngineError, match="was altered"):
        ask(alone, damaged)
    wait_until(lambda: not is_there(number))
    wait_until(lambda: alone._child is None)


def test_a_version_that_was_replaced_on_disk_is_no_answer(
    predictor: Predictor, alone: Explainer, tmp_path: Path
) -> None:
    """Checksums alone would not tell: the other version is whole."""
    path = write_version(tmp_path, 30)
    served = Predictor.load(path, precision="f32")
    shutil.copytree(predictor.version.path, path, dirs_exist_ok=True)
    with pytest.raises(EngineError, match="not the one that is served"):
        ask(alone, served)


def test_closing_ends_the_child_in_the_middle_of_its_work(
    predictor: Predictor, alone: Explainer
) -> None:
    answer = ask_apart(alone, predictor)
    number = child_of(alone)
    alone.close()
    assert not is_there(number)
    with pytest.raises(EngineError, match="ended"):
        answer.result(SECONDS)
    with pytest.raises(EngineError, match="is stopping"):
        ask(alone, predictor)
    assert alone._child is None


OWNER = """
import sys, time
from pathlib import Path
from imagesieve.model import versions
from imagesieve.explaining.worker import Explainer
if __name__ == "__main__":
    explainer = Explainer()
    explainer._child_for(versions.load(Path(sys.argv[1])))
    print(explainer._child.process.pid, flush=True)
    time.sleep(600)
"""


def test_the_child_does_not_outlive_its_server(predictor: Predictor) -> None:
    command = [sys.executable, "-c", OWNER, str(predictor.version.path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as owner:
        child = int(owner.stdout.readline())
        assert is_there(child)
        owner.kill()
    wait_until(lambda: not is_there(child))


def test_a_version_without_a_keras_model_cannot_be_explained(
    version_path: Path, alone: Explainer
) -> None:
    service = Service(models_of(Predictor.load(version_path)), explainer=alone)
    response = post(create_app(service).test_client())
    assert_refused(response, 501, "explaining-unavailable", "has no model.keras")
    assert alone._child is None


@pytest.mark.parametrize("missing", ["keras", "tensorflow"])
def test_without_keras_nothing_can_be_explained(
    missing: str, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # how Python itself marks what is not there
    response = post(client)
    assert_refused(response, 501, "explaining-unavailable", "requirements.txt")
