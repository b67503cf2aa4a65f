"""The way of an image: cache, deadlines, frames, thresholds, batches, threads of the engine."""

import base64
import concurrent.futures
import functools
import gc
import io
import json
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from apps import app_of
from attacking import wait_until
from flask.testing import FlaskClient
from guarding import assert_refused
from hostile import RED_JPEG
from painted import COLOURS, encode, paint
from PIL import Image

from imagesieve import images
from imagesieve.images import further_frames
from imagesieve.model.decisions import CONFIDENT, DecisionPolicy
from imagesieve.prediction.predictor import Prediction, Predictor
from imagesieve.serving.errors import DeadlineExceededError
from imagesieve.serving.limits import ServingLimits
from imagesieve.serving.pipeline import EnginePool, riskiest

OLD_FORM = {"imageBase64String": base64.b64encode(RED_JPEG).decode()}


@pytest.fixture(scope="module")
def predictor(version_path: Path) -> Predictor:
    return Predictor.load(version_path)


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> FlaskClient:
    return app_of(predictor).test_client()


class Counted(Predictor):
    """A real predictor that counts."""

    decoded = predicted = 0

    def decode(self, *arguments, **options):
        self.decoded += 1
        return super().decode(*arguments, **options)

    def predict(self, image):
        self.predicted += 1
        return super().predict(image)


def post(client: FlaskClient, data: bytes, query: str = "", **environment: object):
    return client.post(f"/v1/predict{query}", data=data, environ_overrides=environment)


def test_the_same_bytes_are_predicted_once_and_answered_the_same(predictor: Predictor) -> None:
    counted = Counted(predictor.version, predictor.engine)
    client = app_of(counted).test_client()
    first, second = post(client, RED_JPEG).get_json(), post(client, RED_JPEG).get_json()
    assert (counted.decoded, counted.predicted) == (1, 1)
    assert (first["cached"], second["cached"]) == (False, True)
    own = ("id", "cached", "timing_ms")
    assert {k: v for k, v in first.items() if k not in own} == {
        k: v for k, v in second.items() if k not in own
    }
    assert first["id"] != second["id"]
    assert client.post("/image/detection", data=OLD_FORM).get_json()["predictedClass"] == "red"
    assert counted.predicted == 1  # for old callers too


@pytest.mark.parametrize(
    ("entries", "known"), [(0, [False] * 6), (2, [False, False, True, False, True, False])]
)
def test_the_least_used_answer_is_forgotten_first(
    predictor: Predictor, entries: int, known: list[bool]
) -> None:
    counted = Counted(predictor.version, predictor.engine)
    client = app_of(counted, ServingLimits(cache_entries=entries)).test_client()
    one, two, three = (encode(paint(colour)) for colour in COLOURS.values())
    sent = (one, two, one, three, one, two)
    assert [post(client, data).get_json()["cached"] for data in sent] == known
    assert counted.predicted == known.count(False)
    assert [post(client, RED_JPEG[:-2]).status_code for _ in range(2)] == [422, 422]


def test_a_threshold_decides_for_one_request_alone(client: FlaskClient) -> None:
    murky = encode(paint((110, 120, 100)))
    plain = post(client, murky).get_json()
    assert (plain["decision"], plain["flags"]) == ("green", [])
    unsure = post(client, murky, "?threshold=0.99").get_json()
    assert [unsure[name] for name in ("label", "decision", "flags")] == [
        "green", "neutral", ["unsure"],
    ]  # fmt: skip
    assert unsure["decision_policy"]["min_confidence"] == 0.99
    assert post(client, murky, "?threshold=0").get_json()["decision"] == "green"
    assert post(client, murky).get_json()["decision"] == "green"


def animation(*colours: str, image_format: str = "GIF") -> bytes:
    frames = [paint(COLOURS[colour], seed=place) for place, colour in enumerate(colours)]
    return encode(
        frames[0], image_format, save_all=True, append_images=frames[1:], duration=40, loop=0
    )


@pytest.mark.parametrize("image_format", ["WEBP", "PNG"])
def test_further_frames_are_turned_as_the_first_is(image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, 30:] = 255
    other = pixels.copy()
    other[:2, :2] = 80
    more = {"save_all": True, "append_images": [Image.fromarray(other)], "lossless": True}
    data = encode(Image.fromarray(pixels), image_format, exif=exif, **more)
    first = images.decode(data)
    (second,) = further_frames(data, first, 1)
    assert second.shape == first.pixels.shape == (60, 40, 3)
    assert (second != first.pixels).mean() < 0.01


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_frames_beyond_the_first_are_looked_at_when_asked_for(
    predictor: Predictor, image_format: str
) -> None:
    # `red` counts as harmless here: a clean first frame must hide nothing.
    policy = DecisionPolicy(CONFIDENT, 0.5, "red")
    client = app_of(Predictor(predictor.version, predictor.engine, policy)).test_client()
    hidden = animation(*["red"] * 5, "blue", *["red"] * 2, image_format=image_format)
    first_only, all_of_them = post(client, hidden), post(client, hidden, "?frames=8")
    assert (first_only.get_json()["label"], first_only.get_json()["image"]["frames"]) == ("red", 1)
    assert all_of_them.get_json()["label"] == "blue"
    assert all_of_them.get_json()["image"]["frames"] == 8
    assert post(client, RED_JPEG, "?frames=8").get_json()["image"]["frames"] == 1


def test_a_damaged_later_frame_is_the_image_s_fault(client: FlaskClient) -> None:
    data = bytearray(animation("red", "blue", "green", image_format="WEBP"))
    second = data.index(b"ANMF", data.index(b"ANMF") + 4)
    data[second + 40 : second + 60] = bytes(20)
    assert post(client, bytes(data)).status_code in (200, 422)
    refused = post(client, bytes(data), "?frames=3")
    assert_refused(refused, 422, "undecodable-image")


def test_the_riskiest_frame_is_the_least_harmless_or_else_the_surest() -> None:
    def found(**probabilities: float) -> Prediction:
        label = max(probabilities, key=probabilities.__getitem__)
        return Prediction(label, probabilities[label], probabilities, label)

    mild, bad = found(neutral=0.6, porn=0.4), found(neutral=0.3, porn=0.7)
    confident = DecisionPolicy(CONFIDENT, 0.5, "neutral")
    assert riskiest([mild, bad, mild], confident) is bad
    sure = found(a=0.1, b=0.9)
    assert riskiest([found(a=0.6, b=0.4), sure], DecisionPolicy()) is sure
    assert riskiest([found(a=0.6, b=0.4), sure], confident) is sure


class Slow(Predictor):
    """A real predictor whose engine hangs until it is let go."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor.version, predictor.engine)
        self.go_on = threading.Event()

    def predict(self, image):
        self.go_on.wait(20)
        return super().predict(image)


def test_an_engine_that_hangs_is_504_and_shows_in_readiness(predictor: Predictor) -> None:
    slow = Slow(predictor)
    client = app_of(slow, ServingLimits(deadline_seconds=0.3)).test_client()
    try:
        for number in range(predictor.engine.num_streams):
            assert client.get("/readyz").status_code == 200
            late = post(client, RED_JPEG + bytes([number]))
            assert_refused(late, 504, "deadline-exceeded")
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        old = client.post("/image/detection", data=OLD_FORM)
        assert (old.status_code, old.get_json()["code"]) == (504, "98")
    finally:
        slow.go_on.set()
    wait_until(lambda: client.get("/readyz").status_code == 200)
    # A busy machine may miss so short a deadline.
    assert 200 in (post(client, RED_JPEG + bytes([number])).status_code for number in range(20))


class Late(io.BytesIO):
    """A body that comes after a while."""

    def readinto(self, *arguments):
        time.sleep(0.3)
        return super().readinto(*arguments)


def test_a_deadline_counts_from_the_arrival_of_the_request(predictor: Predictor) -> None:
    client = app_of(predictor, ServingLimits(deadline_seconds=0.25)).test_client()
    body = {"input_stream": Late(RED_JPEG), "content_length": len(RED_JPEG)}
    assert_refused(client.post("/v1/predict", **body), 504, "deadline-exceeded")


class Wrong(Predictor):
    """A real predictor whose engine gives what it is told to, once."""

    def __init__(self, predictor: Predictor, rows: list[list[float]]) -> None:
        super().__init__(predictor.version, predictor.engine)
        self.rows = rows

    def predict_batch(self, pixels):
        if self.rows:
            self._checked(np.array([self.rows.pop()]))
        return super().predict_batch(pixels)


@pytest.mark.parametrize("row", [[np.nan] * 3, [np.inf, 0, 0], [0.9, 0.9, 0.9], [-1, 1, 1]])
def test_numbers_that_are_no_probabilities_are_never_answered(
    predictor: Predictor, row: list[float]
) -> None:
    client = app_of(Wrong(predictor, [row])).test_client()
    failed = post(client, RED_JPEG)
    assert_refused(failed, 500, "internal")
    assert post(client, RED_JPEG).get_json()["label"] == "red"  # and not from the cache


def test_work_for_a_caller_who_has_hung_up_is_skipped(predictor: Predictor) -> None:
    counted = Counted(predictor.version, predictor.engine)
    client = app_of(counted, ServingLimits(max_in_flight=1)).test_client()
    gone = post(client, RED_JPEG, **{"waitress.client_disconnected": lambda: True})
    assert gone.status_code == 499
    assert (counted.decoded, counted.predicted) == (0, 0)
    assert post(client, RED_JPEG).status_code == 200  # the place was given back
    assert "classifier_in_flight 0.0" in client.get("/metrics").text


def batch(client: FlaskClient, images: list[bytes]) -> dict[str, object]:
    files = [(io.BytesIO(data), f"{number}.png") for number, data in enumerate(images)]
    response = client.post("/v1/predict/batch", data={"image": files})
    assert response.status_code == 200, response.text
    return response.get_json()


def test_a_batch_has_an_answer_or_a_problem_for_each_image(client: FlaskClient) -> None:
    text = base64.b64encode(RED_JPEG).decode()
    images = [
        {"image": text, "data_id": "good"},
        {"image": "!", "data_id": "bad text"},
        {"image": base64.b64encode(RED_JPEG[:-2]).decode()},
        {"image": base64.b64encode(b"hello").decode(), "data_id": "no image"},
        {"url": "http://127.0.0.1/"},
        {"image": text, "data_id": "good again"},
    ]
    response = client.post("/v1/predict/batch", json={"images": images, "top_k": 1})
    value = response.get_json()
    assert (value["ok"], value["failed"]) == (2, 4)
    assert value["id"] == response.headers["X-Request-Id"]
    results = value["results"]
    assert [result.get("data_id") for result in results] == [one.get("data_id") for one in images]
    assert [result.get("label") for result in results] == ["red", *[None] * 4, "red"]
    assert list(results[0]["probabilities"]) == ["red"]
    assert [results[place]["id"] for place in (0, 5)] == [f"{value['id']}-{n}" for n in (0, 5)]
    problems = [result["error"] for result in results[1:5]]
    assert [(problem["status"], problem["type"]) for problem in problems] == [
        (400, "/problems/bad-base64"),
        (422, "/problems/truncated-image"),
        (415, "/problems/unsupported-image-format"),
        (400, "/problems/bad-parameter"),
    ]
    assert problems[0]["instance"] == f"urn:request:{value['id']}-1"


def test_an_engine_that_fails_costs_the_batch_that_image_alone(predictor: Predictor) -> None:
    client = app_of(Wrong(predictor, [[np.nan] * 3])).test_client()
    sent = list(COLOURS) * 5
    images = [encode(paint(COLOURS[name], seed=seed)) for seed, name in enumerate(sent)]
    value = batch(client, images)
    assert (value["ok"], value["failed"]) == (14, 1)
    for name, result in zip(sent, value["results"], strict=True):
        assert result.get("label", name) == name
    (problem,) = [result["error"] for result in value["results"] if "error" in result]
    assert problem["status"] == 500
    assert predictor.engine.name not in json.dumps(problem)


def test_figures_have_no_series_of_a_caller_s_making(client: FlaskClient) -> None:
    client.get("/x1")
    client.get("/static/x1.js")
    client.open("/healthz", method="X1")
    text = client.get("/metrics").text
    assert "classifier_requests_total" in text
    assert "x1" not in text.lower()


def test_a_third_batch_at_once_has_to_come_back(predictor: Predictor) -> None:
    slow = Slow(predictor)
    app = app_of(slow, ServingLimits(max_batches=2))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = [pool.submit(batch, app.test_client(), [RED_JPEG + b"x"]) for _ in range(2)]
        client = app.test_client()
        wait_until(lambda: "classifier_in_flight 2.0" in client.get("/metrics").text)
        data = {"image": (io.BytesIO(RED_JPEG), "x.jpg")}
        refused = client.post("/v1/predict/batch", data=data)
        slow.go_on.set()
        assert [future.result()["ok"] for future in running] == [1, 1]
    assert_refused(refused, 503, "overloaded")
    assert refused.headers["Retry-After"]


# The threads of the engine.


def soon(seconds: float = 10) -> float:
    return time.monotonic() + seconds


def engine_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("engine_")}


def test_what_work_raises_reaches_the_caller_and_the_next_is_done() -> None:
    pool = EnginePool(1)

    def fail(error: Exception) -> None:
        raise error

    for error in (ZeroDivisionError("the engine's"), TimeoutError("its own, not our deadline")):
        with pytest.raises(type(error), match=str(error)):
            pool.run(functools.partial(fail, error), soon())
    result, waited = pool.run(lambda: 1, soon())
    assert (result, waited >= 0) == (1, True)


def test_nothing_keeps_the_image_of_a_failed_run() -> None:
    pool, image = EnginePool(1), np.zeros(3)
    remembered = weakref.ref(image)

    def fail(image: np.ndarray) -> None:
        raise ZeroDivisionError

    gc.disable()  # what goes in circles would stay until it is looked for
    try:
        with pytest.raises(ZeroDivisionError):
            pool.run(functools.partial(fail, image), soon())
        del image
        pool.run(lambda: None, soon())  # the thread itself remembers its last work
        assert remembered() is None
    finally:
        gc.enable()


def test_a_run_that_hangs_is_not_waited_for_and_what_nobody_waits_for_never_begins() -> None:
    pool, go_on, ran = EnginePool(2), threading.Event(), []
    for number in range(2):  # both threads run at once
        assert not pool.is_wedged
        with pytest.raises(DeadlineExceededError):
            pool.run(lambda: (ran.append("hangs"), go_on.wait(10)), soon(0.2))
        assert ran == ["hangs"] * (number + 1)
    assert pool.is_wedged
    with pytest.raises(DeadlineExceededError):
        pool.run(lambda: ran.append("too late"), soon(0.02))
    go_on.set()
    assert pool.run(lambda: "again", soon())[0] == "again"
    wait_until(lambda: not pool.is_wedged)
    assert ran == ["hangs"] * 2


def test_the_threads_end_with_the_pool_and_what_waits_is_done_first() -> None:
    before = engine_threads()
    pool, go_on, done = EnginePool(1), threading.Event(), []
    waiting = [
        threading.Thread(target=pool.run, args=(lambda: (go_on.wait(5), done.append(1)), soon()))
        for _ in range(3)
    ]
    for thread in waiting:
        thread.start()
    own = engine_threads() - before
    assert len(own) == 1
    del pool
    go_on.set()
    for thread in waiting:
        thread.join(5)
    waiting.clear()
    del thread
    wait_until(lambda: not own & engine_threads())
    assert done == [1, 1, 1]
