"""Stores of corrections under stress: what a healthy one looks like, and programs that die.

python correcting.py at-random FOLDER    kill two processes that correct, at any moment
python correcting.py each-step FOLDER    be killed at each call of a few corrections
python correcting.py each-open FOLDER    be killed at each call while a store is opened
python correcting.py full-disk FOLDER    let each write fail in turn
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from painted import COLOURS, encode, paint  # noqa: E402

from imagesieve import images  # noqa: E402
from imagesieve.feedback import (  # noqa: E402
    CORRECT,
    RECENT,
    REJECT,
    UNDO,
    FeedbackEvent,
    export,
    read_history,
)
from imagesieve.prediction.predictor import Prediction  # noqa: E402
from imagesieve.serving.errors import FeedbackUnavailableError, UnknownImageError  # noqa: E402
from imagesieve.serving.feedback.recent import RecentImage  # noqa: E402
from imagesieve.serving.feedback.store import Correction, FeedbackStore, to_jpeg  # noqa: E402
from imagesieve.serving.schemas import ReviewImage  # noqa: E402

IMAGES = [encode(paint(colour, size=(20, 16))) for colour in COLOURS.values()]
JPEGS = [to_jpeg(data, images.DEFAULT_LIMITS) for data in IMAGES]
KEYS = [hashlib.sha256(data).hexdigest() for data in IMAGES]
LABELS = [*COLOURS, None]


def event(action: str, sha256: str, label: str | None = None, **more: object) -> FeedbackEvent:
    return FeedbackEvent(action, sha256, label, reviewer="Ann", note="“seen”\n<b>x</b>", **more)


def correct(
    store: FeedbackStore, number: int, label: str | None, jpeg: bytes | None = None
) -> Correction:
    return store.record(event(CORRECT if label else REJECT, KEYS[number], label), jpeg)


def undo(store: FeedbackStore, number: int = 0, jpeg: bytes | None = None) -> Correction:
    return store.record(event(UNDO, KEYS[number]), jpeg)


def recent_image(
    sha256: str, image_id: str, prediction: Prediction, reason: str = RECENT
) -> RecentImage:
    values = dataclasses.asdict(prediction)
    shown = ReviewImage(sha256, image_id, reason=reason, created="2026-11-20T08:00:00Z", **values)
    return RecentImage(shown, "sha256:1")


@contextlib.contextmanager
def opened(folder: Path, **options: object) -> Iterator[FeedbackStore]:
    with contextlib.closing(FeedbackStore(folder, **options)) as store:
        store.open()
        yield store


def read_lines(folder: Path) -> list[dict[str, object]]:
    """Return the history as JSON values."""
    with read_history(folder) as history:
        return list(map(json.loads, export(history)[0].splitlines()))


def holding(folder: Path) -> dict[str, str | None]:
    """Return SHA-256 -> label as the history adds up, computed in the plainest way."""
    stacks: dict[str, list[str | None]] = collections.defaultdict(list)
    for line in read_lines(folder):
        stack = stacks[line["sha256"]]
        if line["action"] == UNDO:
            stack.pop()
            assert line["label"] == (stack[-1] if stack else None)
        else:
            stack.append(line["label"])
    return {sha256: stack[-1] for sha256, stack in stacks.items() if stack}


def check(folder: Path) -> dict[str, str | None]:
    """Check that history and images agree; return what is in force."""
    in_force = holding(folder)
    expected = {f"{label}/{sha256}.jpg" for sha256, label in in_force.items() if label}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith(".")} == expected
    for name in expected:
        assert images.decode(folder / name).format == "JPEG"
    with opened(folder) as store:
        assert store.num_corrected() == len(in_force)
        assert store.corrected_among([*KEYS, *in_force]) == set(in_force)
    return in_force


def at_random(folder: Path) -> None:
    chance = random.Random(5)
    acknowledged = []
    for seed in (10, 20, 30):
        children = [_fork(lambda log, own=seed + n: _correct_on(folder, own, log)) for n in (0, 1)]
        for _, log in children:
            assert log.readline() == b"ready\n"
        time.sleep(chance.uniform(0.05, 0.25))
        for child, _ in children:
            os.kill(child, signal.SIGKILL)
        for child, log in children:
            os.waitpid(child, 0)
            acknowledged += log.read().decode().split("\n")[:-1]
        with opened(folder):  # puts in order what is left half done
            check(folder)
        assert set(acknowledged) <= {line["note"] for line in read_lines(folder)}
    print(json.dumps({"acknowledged": len(acknowledged)}))


def _correct_on(folder: Path, seed: int, log: int) -> None:
    """Correct at random until killed, and write down what is acknowledged."""
    chance = random.Random(seed)
    with opened(folder) as store:
        os.write(log, b"ready\n")
        for count in range(1_000_000):
            number, label = chance.randrange(len(KEYS)), chance.choice(LABELS)
            with contextlib.suppress(UnknownImageError):
                if chance.random() < 0.3:
                    undo(store, number, JPEGS[number])
                    continue
                note = f"{seed} {count}"
                action = CORRECT if label else REJECT
                entry = FeedbackEvent(action, KEYS[number], label, note=note)
                done = store.record(entry, JPEGS[number])
                if done.after != done.before:
                    os.write(log, f"{note}\n".encode())


def _fork(work: Callable[[int], None]) -> tuple[int, BinaryIO]:
    """Return a child process that does some work, and the file of what that writes."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        work(writer)
        os._exit(0)
    os.close(writer)
    return child, open(reader, "rb")


# Corrections of the first image, and what is in force after each ("" is nothing).
STEPS: list[tuple[Callable[[FeedbackStore], Correction], str | None]] = [
    (lambda store: correct(store, 0, "red", JPEGS[0]), "red"),
    (lambda store: correct(store, 0, "blue"), "blue"),
    (lambda store: correct(store, 0, None), None),
    (undo, "blue"),
    (undo, "red"),
    (undo, ""),
]


def each_step(folder: Path) -> None:
    outcomes = collections.Counter()
    former, before = folder / "nothing", ""
    for step, after in STEPS:
        for number in itertools.count(1):
            place = folder / f"{former.name} {number}"
            if former.exists():
                shutil.copytree(former, place)
            if _survives(functools.partial(_take, step, place, number)):
                former, before = place, after
                break
            with opened(place):
                pass  # puts in order what is left half done
            in_force = check(place).get(KEYS[0], "") if place.exists() else ""
            assert in_force in (before, after), (number, before, in_force)
            outcomes["done" if in_force == after else "undone"] += 1
    print(json.dumps(outcomes))


def _take(step: Callable[[FeedbackStore], Correction], place: Path, number: int) -> None:
    with opened(place) as store, dying_at_call(number):
        step(store)


def each_open(folder: Path) -> None:
    def open_once(number: int) -> None:
        with dying_at_call(number), opened(folder):
            pass

    before = read_lines(folder)
    for number in itertools.count(1):
        is_end = _survives(functools.partial(open_once, number))
        assert read_lines(folder) == before, number
        if is_end:
            print(json.dumps({"calls": number}))
            return


def _survives(work: Callable[[], object]) -> bool:
    """Return whether a child process that may be killed comes to its end."""
    child, _ = _fork(lambda _: work())
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return status == 0


@contextlib.contextmanager
def dying_at_call(number: int) -> Iterator[None]:
    """Kill this process right before its `number`-th call that may change a disk."""
    changing = {os.open, os.write, os.replace, os.rename, os.fsync, os.unlink, os.mkdir}
    num_calls = 0

    def on_call(_frame: object, kind: str, function: object) -> None:
        nonlocal num_calls
        of_database = isinstance(getattr(function, "__self__", None), sqlite3.Connection)
        if kind == "c_call" and (of_database or function in changing):
            num_calls += 1
            if num_calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(on_call)
    yield
    sys.setprofile(None)


def full_disk(folder: Path) -> None:
    """Let no file grow over a limit: the first write to reach it is another one each time."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    for limit in (*range(0, 2400, 300), *range(4000, 100_000, 6000)):
        place = folder / str(limit)
        in_force: str | None = ""
        with opened(place) as store:
            for step, _ in STEPS:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
                try:
                    done = step(store)
                except FeedbackUnavailableError:
                    refused += 1
                except UnknownImageError:  # there was nothing to undo, as it could not be done
                    assert in_force in ("", None)
                else:
                    in_force = done.after.label if done.after else ""
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
                assert bool(store.corrected_among(KEYS[:1])) == (in_force != "")
                assert check(place).get(KEYS[0], "") == in_force
            correct(store, 1, "green", JPEGS[1])
            assert check(place)[KEYS[1]] == "green"
    print(json.dumps({"refused": refused}))


if __name__ == "__main__":
    mode, where = sys.argv[1:]
    programs = {
        "at-random": at_random, "each-step": each_step, "each-open": each_open,
        "full-disk": full_disk,
    }  # fmt: skip
    programs[mode](Path(where))
