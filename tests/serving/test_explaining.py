"""Explanations by a real child process with TensorFlow, which takes seconds to start."""

import concurrent.futures
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from apps import models_of
from flask.testing import FlaskClient
from painted import encode
from PIL import Image

from imagesieve import files
from imagesieve.errors import EngineError
from imagesieve.explaining.worker import Explainer, Question
from imagesieve.learning.openvino import convert
from imagesieve.model import versions
from imagesieve.model.decisions import DecisionPolicy
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving.app import Service, create_app

PROJECT = Path(__file__).resolve().parents[2]
IMAGE_SIZE = (48, 64)
CLASSES = ("blå", "green", "red")  # one of them is no ASCII
SECONDS = 30  # generous: the machine may be busy

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
    shared = Explainer()
    yield shared
    shared.close()


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


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_image_comes_back_with_what_speaks_for_its_label(
    client: FlaskClient, explainer: Explainer
) -> None:
    response = client.post("/v1/explain", data=grey_image(), content_type="image/png")
    assert response.status_code == 200, response.text
    assert response.mimetype == "image/png"
    assert response.headers["X-Label"] == "red"
    assert response.headers["Cache-Control"] == "no-store"
    image = Image.open(io.BytesIO(response.data))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (512, 171))
    row, column = hottest(response.data)
    assert 40 * 512 / 600 <= row <= 160 * 512 / 600
    assert 50 * 512 / 600 <= column <= 170 * 512 / 600
    assert is_there(child_of(explainer))


def test_another_class_is_explained_by_the_same_child(
    client: FlaskClient, explainer: Explainer, predictor: Predictor
) -> None:
    ask(explainer, predictor)
    number = child_of(explainer)
    response = client.post("/v1/explain?label=green", data=grey_image(), content_type="image/png")
    assert response.headers["X-Label"] == "green"
    assert hottest(response.data)[1] > 256
    assert child_of(explainer) == number


def test_a_class_name_outside_of_ascii_fits_into_the_header(client: FlaskClient) -> None:
    blue = encode(Image.new("RGB", (64, 48), (20, 20, 240)))
    response = client.post("/v1/explain", data=blue, content_type="image/jpeg")
    assert response.headers["X-Label"] == "bl%C3%A5"
    sent = {"label": "blå", "image": (io.BytesIO(blue), "x.jpg")}
    response = client.post("/v1/explain", data=sent)
    assert response.headers["X-Label"] == "bl%C3%A5"


@pytest.mark.parametrize(
    ("query", "size", "status"),
    [("?label=purple", None, 400), ("?label=", None, 400), ("?top_k=1", None, 400), ("", 200, 422)],
)
def test_a_wrong_option_or_image_is_refused_and_never_reaches_the_child(
    client: FlaskClient, query: str, size: int | None, status: int
) -> None:
    data = grey_image()[:size]
    response = client.post(f"/v1/explain{query}", data=data, content_type="image/png")
    slug = "bad-parameter" if status == 400 else "truncated-image"
    assert response.status_code == status
    assert response.get_json(force=True)["type"] == f"/problems/{slug}"


def test_the_child_steps_back_behind_predictions(
    explainer: Explainer, predictor: Predictor
) -> None:
    ask(explainer, predictor)
    number = child_of(explainer)
    assert os.getpriority(os.PRIO_PROCESS, number) == min(
        19, os.getpriority(os.PRIO_PROCESS, 0) + 5
    )
    assert Path(f"/proc/{number}/oom_score_adj").read_text() == "500\n"


def test_a_second_question_at_once_is_turned_away(
    client: FlaskClient, explainer: Explainer, predictor: Predictor
) -> None:
    ask(explainer, predictor)
    os.kill(child_of(explainer), signal.SIGSTOP)
    first: list[bytes] = []
    thread = threading.Thread(target=lambda: first.append(ask(explainer, predictor)))
    thread.start()
    try:
        wait_until(explainer._busy.locked)
        with pytest.raises(BlockingIOError):
            ask(explainer, predictor)
        response = client.post("/v1/explain", data=grey_image(), content_type="image/png")
        assert response.status_code == 503
        assert "Retry-After" in response.headers
        predicted = client.post("/v1/predict", data=grey_image(), content_type="image/png")
        assert predicted.get_json()["label"] == "red"  # these go on meanwhile
        explainer._end_if_idle()  # it is not
    finally:
        os.kill(child_of(explainer), signal.SIGCONT)
        thread.join(SECONDS)
    assert hottest(first[0])[1] < 256


def test_after_a_kill_the_next_question_is_answered(
    explainer: Explainer, predictor: Predictor, damaged: Predictor
) -> None:
    ask(explainer, predictor)
    number = child_of(explainer)
    os.kill(number, signal.SIGKILL)
    wait_until(lambda: not is_there(number))  # and there is no zombie
    with pytest.raises(EngineError, match="was altered"):
        ask(explainer, damaged)
    assert child_of(explainer) != number


def test_a_child_that_dies_while_it_is_asked_is_an_error_and_replaced_by_the_next_question(
    predictor: Predictor,
) -> None:
    explainer = Explainer()
    answer = ask_apart(explainer, predictor)
    number = child_of(explainer)
    os.kill(number, signal.SIGKILL)  # it still imports TensorFlow
    with pytest.raises(EngineError, match="log has its last words"):
        answer.result(SECONDS)
    assert explainer._child is None
    assert not is_there(number)
    explainer.close()


def test_a_child_that_takes_too_long_is_killed(predictor: Predictor) -> None:
    explainer = Explainer(deadline_seconds=0.2)  # less than Python itself needs with TensorFlow
    with pytest.raises(TimeoutError, match=r"within 0\.2 seconds"):
        ask(explainer, predictor)
    assert explainer._child is None
    explainer.close()


def test_another_model_ends_the_child_which_ends_when_it_is_idle(
    predictor: Predictor, damaged: Predictor
) -> None:
    explainer = Explainer()
    explainer._child_for(predictor.version)
    former = child_of(explainer)
    with pytest.raises(EngineError, match="was altered"):
        ask(explainer, damaged)
    number = child_of(explainer)
    assert number != former
    assert not is_there(former)
    explainer._idle_seconds = 0.05
    with pytest.raises(EngineError, match="was altered"):
        ask(explainer, damaged)
    wait_until(lambda: not is_there(number))
    wait_until(lambda: explainer._child is None)
    explainer.close()


def test_a_version_that_was_replaced_on_disk_is_no_answer(
    predictor: Predictor, folder: Path, tmp_path: Path
) -> None:
    """Checksums alone would not tell: the other version is whole."""
    path = write_version(tmp_path, 30)
    served = Predictor.load(path, precision="f32")
    for inside in (versions.MANIFEST, versions.KERAS_MODEL, versions.OPENVINO_MODEL):
        source = predictor.version.path / inside
        (path / inside).write_bytes(source.read_bytes())
        if inside == versions.OPENVINO_MODEL:
            (path / inside).with_suffix(".bin").write_bytes(source.with_suffix(".bin").read_bytes())
    explainer = Explainer()
    with pytest.raises(EngineError, match="not the one that is served"):
        ask(explainer, served)
    explainer.close()


def test_closing_ends_the_child_in_the_middle_of_its_work(predictor: Predictor) -> None:
    explainer = Explainer()
    answer = ask_apart(explainer, predictor)
    number = child_of(explainer)
    explainer.close()
    assert not is_there(number)
    with pytest.raises(EngineError, match="ended"):
        answer.result(SECONDS)
    with pytest.raises(EngineError, match="is stopping"):
        ask(explainer, predictor)
    assert explainer._child is None


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
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(predictor.version.path)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout
        child = int(owner.stdout.readline())
        assert is_there(child)
        owner.kill()
    wait_until(lambda: not is_there(child))


def test_a_version_without_a_keras_model_cannot_be_explained(version_path: Path) -> None:
    service = Service(models_of(Predictor.load(version_path)), explainer=Explainer())
    client = create_app(service).test_client()
    response = client.post("/v1/explain", data=grey_image(), content_type="image/png")
    assert response.status_code == 501
    assert "has no model.keras" in response.get_json(force=True)["detail"]
    assert service.explainer._child is None


@pytest.mark.parametrize("missing", ["keras", "tensorflow"])
def test_without_keras_nothing_can_be_explained(
    missing: str, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # how Python itself marks what is not there
    response = client.post("/v1/explain", data=grey_image(), content_type="image/png")
    assert response.status_code == 501
    problem = response.get_json(force=True)
    assert problem["type"] == "/problems/explaining-unavailable"
    assert "requirements.txt" in problem["detail"]
