"""Stores of corrections under stress: what a healthy one looks like, and programs that die.

python correcting.py loop FOLDER SEED     correct at random until killed; print what is acknowledged
python correcting.py each-step FOLDER     be killed at each call of a few corrections
python correcting.py full-disk FOLDER     let each write fail in turn
python correcting.py each-open FOLDER     be killed at each call while a store is opened
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import random
import resource
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

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


def loop(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    with opened(folder) as store:
        print("ready", flush=True)
        for count in range(1_000_000):
            number, label = chance.randrange(len(KEYS)), chance.choice(LABELS)
            with contextlib.suppress(UnknownImageError):
                if chance.random() < 0.3:
                    undo(store, number, JPEGS[number])
                else:
                    note = f"{seed} {count}"
                    action = CORRECT if label else REJECT
                    entry = FeedbackEvent(action, KEYS[number], label, note=note)
                    done = store.record(entry, JPEGS[number])
                    if done.after != done.before:
                        print(note, flush=True)  # acknowledged


def steps(store: FeedbackStore) -> Iterator[tuple[Callable[[], object], str | None]]:
    """Yield corrections of the first image, and what is in force after each ("" is nothing)."""
    yield lambda: correct(store, 0, "red", JPEGS[0]), "red"
    yield lambda: correct(store, 0, "blue"), "blue"
    yield lambda: correct(store, 0, None), None
    yield lambda: undo(store), "blue"
    yield lambda: undo(store), "red"
    yield lambda: undo(store), ""


def each_step(folder: Path) -> None:
    outcomes = collections.Counter()
    for number in range(1, 1000):
        place = folder / str(number)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            with opened(place) as store:
                for step, _ in steps(store):
                    os.write(writer, b".")
                    with dying_at_call(number):
                        step()
                    number -= _calls
            os._exit(0)
        os.close(writer)
        _, status = os.waitpid(child, 0)
        with open(reader, "rb") as file:
            begun = len(file.read())
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            print(json.dumps({"calls": number, **outcomes}))
            return
        with opened(place) as store:
            labels = ["", *(label for _, label in steps(store))]
        in_force = check(place).get(KEYS[0], "") if place.exists() else ""
        assert in_force in labels[begun - 1 : begun + 1], (number, begun, in_force)
        outcomes["done" if in_force == labels[begun] else "undone"] += 1
    raise AssertionError("it never came to its end")


_calls = 0


@contextlib.contextmanager
def dying_at_call(number: int) -> Iterator[None]:
    """Kill this process right before its `number`-th call that may change a disk."""
    global _calls
    changing = {os.open, os.write, os.replace, os.rename, os.fsync, os.unlink, os.mkdir}
    _calls = 0

    def on_call(_frame: object, kind: str, function: object) -> None:
        global _calls
        of_database = isinstance(getattr(function, "__self__", None), sqlite3.Connection)
        if kind == "c_call" and (of_database or function in changing):
            _calls += 1
            if _calls == number:
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
            for step, _ in steps(store):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
                try:
                    done = step()
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


def each_open(folder: Path) -> None:
    before = read_lines(folder)
    for number in range(1, 1000):
        child = os.fork()
        if not child:
            with dying_at_call(number), opened(folder):
                pass
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert read_lines(folder) == before, number
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            print(json.dumps({"calls": number}))
            return
    raise AssertionError("it never came to its end")


if __name__ == "__main__":
    mode, where, *rest = sys.argv[1:]
    {"loop": loop, "each-step": each_step, "full-disk": full_disk, "each-open": each_open}[mode](
        Path(where), *map(int, rest)
    )
