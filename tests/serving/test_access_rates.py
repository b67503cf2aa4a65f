"""Rates: bursts, waiting, and whose share a request is taken from."""

import concurrent.futures
import threading
import time

import pytest
from flask.testing import FlaskClient
from guarding import DESK, SHOP, assert_refused, bearer, client_of, ring

from imagesieve.serving.access import Access
from imagesieve.serving.limits import TokenBuckets


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limited(clock: Clock, rate: float = 2, burst: int = 3, **more) -> FlaskClient:
    return client_of(Access(buckets=TokenBuckets(rate, burst, clock=clock), **more))


def test_burst_then_429_with_seconds_to_wait_then_the_rate() -> None:
    clock = Clock()
    client = limited(clock, rate=0.5, burst=3)
    assert [client.post("/predict").status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = client.post("/predict")
    assert_refused(refused, 429, "rate-limited", "in 2 s")
    assert refused.headers["Retry-After"] == "2"
    clock.now += 1.5
    assert client.post("/predict").headers["Retry-After"] == "1"
    clock.now += 0.5
    assert [client.post("/predict").status_code for _ in range(2)] == [200, 429]
    clock.now -= 0.5  # a clock that goes back takes nothing away for long
    assert client.post("/predict").headers["Retry-After"] in ("2", "3")
    clock.now += 1e6  # a long rest fills the bucket, and no more
    assert [client.post("/predict").status_code for _ in range(4)] == [200, 200, 200, 429]


@pytest.mark.parametrize("rate", [1 / 3, 0.29, 0.1, 0.7, 3, 7.3, 999.9, 1e-4])
def test_who_waits_as_told_is_served(rate: float) -> None:
    clock = Clock()
    client = limited(clock, rate=rate, burst=1)
    for _ in range(5):
        assert client.post("/predict").status_code == 200
        seconds = client.post("/predict").headers["Retry-After"]
        assert seconds.isdecimal()
        assert int(seconds) >= 1
        clock.now += int(seconds)


def test_each_key_has_its_own_share_and_refused_ones_that_of_their_address() -> None:
    client = limited(Clock(), keys=ring(f"127.0.0.1 predict {SHOP}\ndesk feedback {DESK}"))

    def statuses(path: str, key: str) -> list[int]:
        return [client.post(path, headers=bearer(key)).status_code for _ in range(4)]

    assert statuses("/predict", "w" * 20) == [401, 401, 401, 429]
    assert statuses("/predict", SHOP) == [200, 200, 200, 429]  # its name is not that address
    assert client.post("/predict", headers={"X-API-Key": SHOP}).status_code == 429
    assert statuses("/admin", DESK) == [403, 403, 403, 429]
    assert {client.get("/open", headers=bearer(DESK)).status_code for _ in range(50)} == {200}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("10.0.0.1", "10.0.0.2", 200),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", 429),
        ("2001:db8::1", "2001:db8:0:1::1", 200),
        ("::ffff:10.0.0.1", "10.0.0.1", 429),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", 200),
        ("fe80::1%eth0", "fe80::2%eth0", 429),
        ("localhost", "localhost", 429),
        ("", "", 429),
    ],
)
def test_neighbours_share_a_bucket(one: str, other: str, expected: int) -> None:
    client = limited(Clock(), burst=1)
    statuses = [
        client.post("/predict", environ_base={"REMOTE_ADDR": address}).status_code
        for address in (one, other)
    ]
    assert statuses == [200, expected]


def test_batch_costs_its_images_even_more_than_the_burst() -> None:
    clock = Clock()
    client = limited(clock, rate=2, burst=3)
    assert client.post("/predict?n=32").status_code == 200
    refused = client.post("/predict")
    assert client.post("/predict?n=5").status_code == 429  # nobody takes more while in debt
    assert refused.headers["Retry-After"] == "15"  # 29 owed, and one for itself, at 2 a second
    clock.now += 14.5
    assert client.post("/predict?n=32").status_code == 429
    clock.now += 0.5
    assert client.post("/predict?n=1").status_code == 200


def test_table_of_callers_is_bounded_and_forgets_the_oldest() -> None:
    clock = Clock()
    buckets = TokenBuckets(1, 1, clock=clock, max_callers=100)
    assert buckets.take("busy") == 0
    for number in range(1000):
        assert buckets.take(number) == 0
        assert buckets.take("busy") > 0
    assert len(buckets._buckets) == 100
    assert buckets.take(999) > 0
    assert buckets.take(0) == 0


class SlowToken(float):
    """A price whose subtraction lets other threads run between reading a bucket and writing it."""

    def __rsub__(self, tokens: float) -> float:
        time.sleep(1e-4)
        return tokens - 1


def test_threads_together_get_the_burst_and_not_one_more() -> None:
    buckets = TokenBuckets(1, 100, clock=Clock(), max_callers=30)
    start = threading.Barrier(8)

    def work(number: int) -> int:
        start.wait()
        for other in range(3):  # the table itself changes meanwhile
            buckets.take((number, other))
        return sum(buckets.take("all", SlowToken(1)) == 0 for _ in range(50))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 100
    assert len(buckets._buckets) == 25
