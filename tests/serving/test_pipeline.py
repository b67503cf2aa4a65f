"""The way of an image: the cache, deadlines, frames, thresholds, batches, many at once."""

import base64
import concurrent.futures
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from apps import app_of
from flask.testing import FlaskClient
from hostile import RED_JPEG
from painted import COLOURS, encode, paint

from imagesieve.model.decisions import CONFIDENT, DecisionPolicy
from imagesieve.prediction.predictor import Prediction, Predictor
from imagesieve.serving.limits import ServingLimits
from imagesieve.serving.pipeline import riskiest

OCTETS = "application/octet-stream"


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
    return client.post(
        f"/v1/predict{query}", data=data, content_type=OCTETS, environ_overrides=environment
    )


def slug(response) -> str:
    return response.get_json(force=True)["type"].removeprefix("/problems/")


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
    form = {"imageBase64String": base64.b64encode(RED_JPEG).decode()}
    assert client.post("/image/detection", data=form).get_json()["predictedClass"] == "red"
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


def test_a_threshold_decides_for_one_request_alone(predictor: Predictor) -> None:
    client = app_of(predictor).test_client()
    murky = encode(paint((110, 120, 100)))
    plain = post(client, murky).get_json()
    assert (plain["decision"], plain["flags"]) == ("green", [])
    unsure = post(client, murky, "?threshold=0.99").get_json()
    assert (unsure["label"], unsure["decision"], unsure["flags"]) == (
        "green",
        "neutral",
        ["unsure"],
    )
    assert unsure["decision_policy"]["min_confidence"] == 0.99
    assert post(client, murky, "?threshold=0").get_json()["decision"] == "green"
    assert post(client, murky).get_json()["decision"] == "green"


def animation(*colours: str, image_format: str = "GIF") -> bytes:
    frames = [paint(COLOURS[colour], seed=place) for place, colour in enumerate(colours)]
    return encode(
        frames[0], image_format, save_all=True, append_images=frames[1:], duration=40, loop=0
    )


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
    assert (refused.status_code, slug(refused)) == (422, "undecodable-image")


def test_eight_hundred_frames_cost_no_more_than_their_share(client: FlaskClient) -> None:
    two = [paint(COLOURS[colour]).quantize(8) for colour in ("red", "green")]
    data = encode(two[0], "GIF", save_all=True, append_images=(two * 400)[1:], duration=40)
    value = post(client, data, "?frames=5").get_json()
    assert 1 <= value["image"]["frames"] <= 5


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
    client = app_of(slow, ServingLimits(deadline_seconds=0.5)).test_client()
    try:
        for number in range(predictor.engine.num_streams):
            assert client.get("/readyz").status_code == 200
            late = post(client, RED_JPEG + bytes([number]))
            assert (late.status_code, slug(late)) == (504, "deadline-exceeded")
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        form = {"imageBase64String": base64.b64encode(RED_JPEG).decode()}
        old = client.post("/image/detection", data=form)
        assert (old.status_code, old.get_json()["code"]) == (504, "98")
    finally:
        slow.go_on.set()
    patient = app_of(slow).test_client()
    assert post(patient, RED_JPEG).get_json()["label"] == "red"
    for _ in range(100):
        if client.get("/readyz").status_code == 200:
            break
        threading.Event().wait(0.02)
    assert client.get("/readyz").status_code == 200
    # A busy machine may miss so short a deadline.
    assert 200 in (post(client, RED_JPEG + bytes([number])).status_code for number in range(20))


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
    assert (failed.status_code, slug(failed)) == (500, "internal")
    assert post(client, RED_JPEG).get_json()["label"] == "red"  # and not from the cache


def test_work_for_a_caller_who_has_hung_up_is_skipped(predictor: Predictor) -> None:
    counted = Counted(predictor.version, predictor.engine)
    client = app_of(counted, ServingLimits(max_in_flight=1)).test_client()
    gone = post(client, RED_JPEG, **{"waitress.client_disconnected": lambda: True})
    assert gone.status_code == 499
    assert (counted.decoded, counted.predicted) == (0, 0)
    assert post(client, RED_JPEG).status_code == 200  # the place was given back
    assert "classifier_in_flight 0.0" in client.get("/metrics").text


def test_each_of_a_hundred_images_gets_its_own_answer(predictor: Predictor) -> None:
    """Rows must not be mixed up between sixteen threads, alone or in batches."""
    random = np.random.default_rng(3)
    images = [
        encode(paint(tuple(random.integers(0, 256, 3).tolist()), seed=number), "PNG")
        for number in range(100)
    ]
    expected = [predictor.predict(predictor.decode(data)).probabilities for data in images]
    app = app_of(predictor, ServingLimits(max_in_flight=16))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        alone = list(pool.map(lambda data: post(app.test_client(), data).get_json(), images))
    batches = [images[start : start + 25] for start in range(0, 100, 25)]
    together = [one for some in batches for one in batch(app.test_client(), some)["results"]]
    for answers in (alone, together):
        for wanted, answer in zip(expected, answers, strict=True):
            assert answer["probabilities"] == pytest.approx(wanted, abs=1e-6)


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
    assert [result["id"] for result in (results[0], results[-1])] == [
        f"{value['id']}-0",
        f"{value['id']}-5",
    ]
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
    value = batch(client, [encode(paint(COLOURS["blue"], seed=seed)) for seed in range(6)])
    assert (value["ok"], value["failed"]) == (5, 1)
    (problem,) = [result["error"] for result in value["results"] if "error" in result]
    assert problem["status"] == 500
    assert predictor.engine.name not in json.dumps(problem)


def test_a_third_batch_at_once_has_to_come_back(predictor: Predictor) -> None:
    slow = Slow(predictor)
    app = app_of(slow, ServingLimits(max_batches=2))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = [pool.submit(batch, app.test_client(), [RED_JPEG + b"x"]) for _ in range(2)]
        for _ in range(500):
            if "classifier_in_flight 2.0" in app.test_client().get("/metrics").text:
                break
            threading.Event().wait(0.01)
        data = {"image": (io.BytesIO(RED_JPEG), "x.jpg")}
        refused = app.test_client().post("/v1/predict/batch", data=data)
        slow.go_on.set()
        assert [future.result()["ok"] for future in running] == [1, 1]
    assert (refused.status_code, slug(refused)) == (503, "overloaded")
    assert refused.headers["Retry-After"]


def test_figures_have_no_series_of_a_caller_s_making(predictor: Predictor) -> None:
    client = app_of(predictor).test_client()
    post(client, RED_JPEG)

    def series() -> set[str]:
        lines = client.get("/metrics").text.splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    client.get("/nowhere"), client.open("/nowhere", method="BREW"), series()
    before = series()
    for number in range(300):
        client.get(f"/nowhere/{number}")
        client.open(f"/x{number}", method=f"M{number}")
        client.get(f"/static/{number}.js")
    after = series()
    assert len(after - before) <= 20  # the buckets of /static/, asked for the first time
    assert not [name for name in after if "nowhere" in name or "M1" in name]


def test_every_answer_carries_its_times(client: FlaskClient) -> None:
    times = post(client, encode(paint((1, 2, 3)))).get_json()["timing_ms"]
    assert list(times) == ["queue", "decode", "infer", "total"]
    assert all(value >= 0 for value in times.values())
