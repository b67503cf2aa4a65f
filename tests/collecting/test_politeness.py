"""Politeness: few requests at once, a pause between them, and no host holds up another."""

import collections
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from imagesieve.collecting import politeness
from imagesieve.collecting.politeness import HostThrottle, host_of

SOON = 10.0  # seconds; long enough for a busy machine, and nothing that works takes as long


def throttle(max_connections: int, seconds: float = 0.1) -> HostThrottle[Any]:
    return HostThrottle(max_connections, seconds)


class Crowd:
    """Threads, none of which may hang; pytest makes an error in one an error of the test."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], object]) -> None:
        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def take(self, waiting: HostThrottle[Any], count: int) -> list[Any]:
        """Have threads take a job each; returns the list that their jobs are added to."""
        taken: list[Any] = []
        for _ in range(count):
            self.start(lambda: taken.append(waiting.take()))
        return taken

    def join(self) -> None:
        end = time.monotonic() + SOON
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
            assert not thread.is_alive(), "a thread hangs"


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    crowd = Crowd()
    yield crowd
    crowd.join()


def test_host_is_name_and_port() -> None:
    hosts = {
        "http://Example.COM/a": ("example.com", 80),
        "HTTPS://example.com": ("example.com", 443),
        "http://example.com:8080/?x=:9": ("example.com", 8080),
        "http://user:pass@example.com/": ("example.com", 80),
        "http://[::1]:81/": ("::1", 81),
        "https://example.com:443/": ("example.com", 443),
    }
    assert {url: host_of(url) for url in hosts} == hosts


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_host_bears_few_requests_at_once_with_a_pause_between(seed: int, most: int) -> None:
    dice = random.Random(seed)
    now = 100.0
    waiting = HostThrottle[int](most, 1.0, clock=lambda: now)
    left = collections.Counter({f"http://{name}/": 10 for name in "abc"})
    for url, count in left.items():
        for number in range(count):
            waiting.put(number, url)
    held: list[str] = []
    last: dict[str, float] = {}
    while left.total():
        now += dice.choice([0.0, 0.25, 0.5, 1.0])
        could_start = [
            url
            for url in left
            if left[url] and held.count(url) < most and now - last.get(url, 0.0) >= 1.0
        ]
        if could_start and dice.random() < 0.8:
            number, url = waiting.take()
            assert url in could_start
            assert number == 10 - left[url], "jobs of one host keep their order"
            last[url] = now
            left[url] -= 1
            held.append(url)
        elif held:
            waiting.leave(held.pop(dice.randrange(len(held))), answered=True)


def test_many_jobs_of_one_host_cost_little_time() -> None:
    waiting = throttle(2, 1e-4)
    for number in range(4000):
        waiting.put(number, "http://h/")
    start = time.process_time()
    for _ in range(1000):
        assert waiting.take() is not None
        waiting.leave("http://h/", answered=True)
    assert time.process_time() - start < 1.5  # 0.05; 3.5 when every job has a note of its own


def test_a_delayed_job_comes_back_in_time() -> None:
    waiting = throttle(2, 0.0)
    start = time.monotonic()
    delays = {"late": 0.2, "soon": 0.05, "now": 0.0}
    for job, delay in delays.items():
        waiting.put(job, "http://a/", delay)
    for expected in ("now", "soon", "late"):
        job, url = waiting.take()
        assert job == expected
        assert delays[job] <= time.monotonic() - start < SOON
        waiting.leave(url, answered=True)


@pytest.mark.parametrize("first_delay", [None, 30.0])
def test_idle_workers_hear_of_jobs_that_are_put_later(
    crowd: Crowd, first_delay: float | None
) -> None:
    waiting = throttle(2, 0.0)
    if first_delay is not None:
        waiting.put("much later", "http://a/", first_delay)
    taken = crowd.take(waiting, 4)  # none of which comes back
    time.sleep(0.02)
    waiting.put("late", "http://d/", 0.2)
    waiting.put("delayed", "http://b/", 0.1)
    waiting.put("at once", "http://c/")
    wait_until(lambda: len(taken) == 3)
    assert [job for job, _ in taken] == ["at once", "delayed", "late"]
    waiting.close()


def test_a_job_starts_after_its_pause_without_a_notification(crowd: Crowd) -> None:
    waiting = throttle(2, 0.05)
    for number in range(4):
        waiting.put(number, "http://a/")
    taken: list[object] = []

    def work() -> None:
        found = waiting.take()
        taken.append(found)
        if found is not None:
            waiting.leave(found[1], answered=True)

    for _ in range(6):
        crowd.start(work)
    wait_until(lambda: len(taken) == 4)
    assert taken == [(number, "http://a/") for number in range(4)]
    waiting.close()


def test_a_host_that_never_answers_is_down_until_it_does() -> None:
    waiting = throttle(2, 0.0)

    def ask(*, answered: bool) -> bool:
        waiting.put(0, "http://a/1")
        waiting.leave(waiting.take()[1], answered=answered)
        return waiting.is_down("http://a/2")

    assert [ask(answered=answered) for answered in (False, False, True)] == [False] * 3
    assert [ask(answered=False) for _ in range(6)] == [False] * 4 + [True] * 2
    assert not waiting.is_down("http://b/")
    assert not ask(answered=True)


def test_a_visitor_goes_before_the_jobs_that_wait(crowd: Crowd) -> None:
    waiting = throttle(1, 0.0)
    waiting.put(0, "http://a/")
    waiting.put(1, "http://a/")
    waiting.take()
    inside, leave = threading.Event(), threading.Event()

    def visit() -> None:
        with waiting.visit("http://a/elsewhere"):
            inside.set()
            leave.wait(SOON)

    crowd.start(visit)
    assert not inside.wait(0.05)
    others = crowd.take(waiting, 1)
    waiting.leave("http://a/", answered=True)
    assert inside.wait(SOON)
    assert others == []
    leave.set()
    wait_until(lambda: others == [(1, "http://a/")])


def test_busy_workers_do_not_keep_a_visitor_out(crowd: Crowd) -> None:
    waiting = throttle(2, 0.0)
    for number in range(2000):
        waiting.put(number, "http://a/")

    def work() -> None:
        while (found := waiting.take()) is not None:
            time.sleep(0.005)
            waiting.leave(found[1], answered=True)

    for _ in range(8):
        crowd.start(work)
    start = time.monotonic()
    for _ in range(5):
        with waiting.visit("http://a/"):
            pass
    assert time.monotonic() - start < 3.0  # a single one would wait its 5 s in vain
    waiting.close()


def test_jobs_go_on_when_a_visitor_has_given_up(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(politeness, "_VISIT_SECONDS", 0.1)
    waiting = throttle(2, 0.0)
    for number in range(4):
        waiting.put(number, "http://a:81/")
    waiting.take()
    waiting.take()

    def visit() -> None:
        with pytest.raises(TimeoutError, match="a:81 stayed busy"), waiting.visit("http://a:81/"):
            pytest.fail("the host was busy")

    for _ in range(2):
        crowd.start(visit)
    taken = crowd.take(waiting, 2)
    time.sleep(0.15)
    waiting.leave("http://a:81/", answered=True)
    waiting.leave("http://a:81/", answered=True)
    wait_until(lambda: len(taken) == 2)


def test_every_request_keeps_the_pause() -> None:
    waiting = throttle(2, 0.05)
    waiting.put(0, "http://a/")
    waiting.put(1, "http://a/")
    start = time.monotonic()
    with waiting.visit("http://a/"):
        pass
    waiting.take()
    assert time.monotonic() - start >= 0.05
    waiting.pause("http://a/robots.txt")  # takes no place of its own
    assert time.monotonic() - start >= 0.1
    assert waiting.take() == (1, "http://a/")
    assert 0.15 <= time.monotonic() - start < SOON


def test_two_hosts_that_redirect_to_each_other_hang_no_worker(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(politeness, "_VISIT_SECONDS", 0.1)
    waiting = throttle(1, 0.0)
    both_hold = threading.Barrier(2)
    ends: list[str] = []

    def work() -> None:
        target, url = waiting.take()
        both_hold.wait(SOON)
        try:
            with waiting.visit(target):
                ends.append("visited")
        except TimeoutError:
            ends.append("gave up")
        waiting.leave(url, answered=True)

    for url, target in (("http://a/", "http://b/"), ("http://b/", "http://a/")):
        waiting.put(target, url)
        crowd.start(work)
    crowd.join()
    assert "gave up" in ends
    assert len(ends) == 2
    for url in ("http://a/", "http://b/"):  # and both hosts are free again
        with waiting.visit(url):
            pass


def test_close_ends_every_wait(crowd: Crowd) -> None:
    waiting = throttle(1, 60.0)
    waiting.put(0, "http://a/")
    waiting.put(1, "http://a/")
    waiting.put(2, "http://b/", 60.0)
    waiting.take()
    taken = crowd.take(waiting, 20)

    def visit() -> None:
        with waiting.visit("http://a/"):
            taken.append("visited")

    crowd.start(visit)
    crowd.start(lambda: waiting.pause("http://a/"))
    time.sleep(0.05)
    waiting.close()
    crowd.join()
    assert taken.count(None) == 20
    assert waiting.take() is None, "after closing, too"


@pytest.mark.parametrize("has_work", [False, True])
def test_idle_workers_do_not_spin(crowd: Crowd, has_work: bool) -> None:
    waiting = throttle(1, 60.0)
    if has_work:  # that may not start yet
        for number in range(50):
            waiting.put(number, "http://a/")
            waiting.put(number, f"http://{number}/", 60.0)
        waiting.take()
        waiting.leave("http://a/", answered=True)
    for _ in range(64):
        crowd.start(waiting.take)
    time.sleep(0.1)
    start = time.process_time()
    time.sleep(0.4)
    assert time.process_time() - start < 0.1
    waiting.close()


def test_every_job_comes_out_exactly_once(crowd: Crowd) -> None:
    num_jobs = 2000
    waiting = throttle(2, 1e-4)
    lock = threading.Lock()
    held = collections.Counter[str]()
    num_taken = collections.Counter[int]()
    done: set[int] = set()

    def work(seed: int) -> None:
        dice = random.Random(seed)
        while (found := waiting.take()) is not None:
            job, url = found
            with lock:
                held[url] += 1
                assert held[url] <= 2
                num_taken[job] += 1
                is_retried = num_taken[job] == 1 and job % 10 == 0
            if dice.random() < 0.05:
                with waiting.visit(f"http://elsewhere-{dice.randrange(5)}/"):
                    pass
            if is_retried:
                waiting.put(job, url, dice.random() * 0.02)
            with lock:
                held[url] -= 1
                done.update(() if is_retried else (job,))
                if len(done) == num_jobs:
                    waiting.close()
            waiting.leave(url, answered=dice.random() < 0.5)

    for seed in range(64):
        crowd.start(lambda seed=seed: work(seed))
    for job in range(num_jobs):
        waiting.put(job, f"http://{job % 20}/")
    crowd.join()
    assert num_taken == {job: 1 + (job % 10 == 0) for job in range(num_jobs)}


def wait_until(is_reached: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not is_reached():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
