"""Rates: bursts, waiting, and whose share a request is taken from."""

import concurrent.futures
import threading
import time

import pytest
from flask.testing import FlaskClient
from guarding import DESK, SHOP, assert_refused, bearer, client_of, ring

from imagesieve.serving import errors
from imagesieve.serving.access import Access, Caller
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


def test_clock_that_goes_back_takes_nothing_away_for_long() -> None:
    clock = Clock()
    buckets = TokenBuckets(1, 2, clock=clock)
    assert buckets.take("a") == 0
    clock.now -= 0.5
    assert 0 <= buckets.take("a") <= 1


def test_each_key_has_its_own_share_and_refused_ones_that_of_their_address() -> None:
    client = limited(Clock(), keys=ring())
    assert [client.post("/predict", headers=bearer(SHOP)).status_code for _ in range(4)] == (
        [200, 200, 200, 429]
    )
    assert client.post("/predict", headers=bearer(DESK)).status_code == 200
    wrong = [client.post("/predict", headers=bearer("w" * 20)).status_code for _ in range(4)]
    assert wrong == [401, 401, 401, 429]
    assert client.post("/predict", headers=bearer(DESK)).status_code == 200
    assert client.post("/predict", headers={"X-API-Key": SHOP}).status_code == 429


def test_forbidden_requests_cost_as_well_and_open_addresses_nothing() -> None:
    client = limited(Clock(), keys=ring())
    statuses = [client.post("/admin", headers=bearer(SHOP)).status_code for _ in range(4)]
    assert statuses == [403, 403, 403, 429]
    assert {client.get("/open", headers=bearer(SHOP)).status_code for _ in range(50)} == {200}


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("localhost", "localhost", True),
        ("", "", True),
    ],
)
def test_neighbours_share_a_bucket(one: str, other: str, are_one: bool) -> None:
    client = limited(Clock(), burst=1)

    def status(address: str) -> int:
        return client.post("/predict", environ_base={"REMOTE_ADDR": address}).status_code

    assert status(one) == 200
    assert status(other) == (429 if are_one else 200)


def test_key_named_like_an_address_is_not_that_address() -> None:
    client = limited(Clock(), burst=1, keys=ring(f"127.0.0.1 predict {SHOP}"))
    assert client.post("/predict").status_code == 401
    assert client.post("/predict").status_code == 429
    assert client.post("/predict", headers=bearer(SHOP)).status_code == 200


def test_batch_costs_its_images_even_more_than_the_burst() -> None:
    clock = Clock()
    client = limited(clock, rate=2, burst=3)
    assert client.post("/predict?n=32").status_code == 200
    refused = client.post("/predict")
    assert refused.headers["Retry-After"] == "15"  # 29 owed, and one for itself, at 2 a second
    clock.now += 14.5
    assert client.post("/predict?n=32").status_code == 429
    clock.now += 0.5
    assert client.post("/predict?n=1").status_code == 200


def test_nobody_takes_more_while_in_debt() -> None:
    access = Access(buckets=TokenBuckets(1, 5, clock=Clock()))
    caller = Caller("a", frozenset(), "")
    access.take(caller, 31)
    access.take(caller, 0)
    with pytest.raises(errors.RateLimitedError) as caught:
        access.take(caller, 1)
    assert caught.value.retry_after == 26
    Access().take(caller, 10**9)  # no rate, no price


def test_table_of_callers_is_bounded_and_forgets_the_oldest() -> None:
    clock = Clock()
    buckets = TokenBuckets(1, 1, clock=clock, max_callers=100)
    assert buckets.take("busy") == 0
    for number in range(1000):
        assert buckets.take(number) == 0
        assert buckets.take("busy") > 0
    assert len(buckets) == 100
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
    assert len(buckets) == 25
