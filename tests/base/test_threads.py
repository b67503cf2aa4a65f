"""The number of cores is that which this process may use; a map over threads works ahead."""

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagesieve import threads
from imagesieve.threads import map_ahead

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_cpu_count_is_that_of_the_affinity() -> None:
    code = (
        "import os; from imagesieve import threads\n"
        "before = threads.cpu_count()\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(before >= 1, threads.cpu_count())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True 1"


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000", 64), ("150000 100000", 2), ("1000 100000", 1), ("odd", 64)]
)
def test_the_cpu_count_keeps_to_the_containers_quota(
    monkeypatch: pytest.MonkeyPatch, text: str, count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    assert threads.cpu_count() == count


def test_results_come_in_order_whatever_takes_longest() -> None:
    def slow(number: int) -> int:
        time.sleep(0.02 * (number % 3 == 0))
        return number**2

    assert list(map_ahead(slow, range(20), threads=4, ahead=8)) == [n**2 for n in range(20)]


def test_no_more_is_computed_than_what_is_ahead_of_the_caller() -> None:
    started: list[int] = []
    results = map_ahead(lambda n: started.append(n) or n, itertools.count(), threads=2, ahead=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    time.sleep(0.05)
    assert max(started) == 7
    results.close()
    assert not [x for x in threading.enumerate() if "ThreadPool" in x.name]


def test_an_error_comes_at_its_place_and_what_follows_is_not_begun() -> None:
    started: list[int] = []

    def work(number: int) -> int:
        started.append(number)
        if number == 2:
            raise ZeroDivisionError
        return number

    results = map_ahead(work, range(1000), threads=2, ahead=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert max(started) < 10
    assert list(results) == []


def test_an_error_of_the_items_comes_through() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        list(map_ahead(str, items(), threads=2, ahead=4))
