"""Stores of corrections under stress: what a healthy one looks like, and programs that die.

python correcting.py loop FOLDER SEED     correct at random until somebody kills it
python correcting.py each-step FOLDER     be killed at each system call of a few corrections
python correcting.py full-disk FOLDER     let each write fail in turn
"""

import collections
import hashlib
import json
import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from painted import COLOURS, encode, paint  # noqa: E402

from imagesieve import images  # noqa: E402
from imagesieve.serving.errors import FeedbackUnavailableError, UnknownImageError  # noqa: E402
from imagesieve.serving.feedback.jpegs import to_jpeg  # noqa: E402
from imagesieve.serving.feedback.store import FeedbackStore, Remark  # noqa: E402

IMAGES = [encode(paint(colour, size=(20, 16))) for colour in COLOURS.values()]
KEYS = [hashlib.sha256(data).hexdigest() for data in IMAGES]
LABELS = [*COLOURS, None]
REMARK = Remark(reviewer="Ann", note="“seen”\n<b>twice</b>")


def open_store(folder: Path, **options: object) -> FeedbackStore:
    store = FeedbackStore(folder, lambda data: to_jpeg(data, images.DEFAULT_LIMITS), **options)
    store.open()
    return store


def read_lines(folder: Path) -> list[dict[str, object]]:
    path = folder / ".feedback.jsonl"
    return list(map(json.loads, path.read_text().splitlines())) if path.exists() else []


def holding(folder: Path) -> dict[str, str | None]:
    """Give SHA-256 -> label as the journal adds up, read in the plainest way."""
    stacks: dict[str, list[str | None]] = collections.defaultdict(list)
    for line in read_lines(folder):
        stack = stacks[line["sha256"]]
        if line["action"] == "undo":
            stack.pop()
            assert line["label"] == (stack[-1] if stack else None)
        else:
            stack.append(line["label"])
    return {sha256: stack[-1] for sha256, stack in stacks.items() if stack}


def check(folder: Path) -> dict[str, str | None]:
    """Check that journal and images agree; give what holds."""
    holds = holding(folder)
    expected = {f"{label}/{sha256[:16]}.jpg" for sha256, label in holds.items() if label}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    beside = {".feedback.jsonl", ".feedback.lock", ".held/.lock"}
    assert found - beside == expected
    for name in expected:
        assert images.decode(folder / name).format == "JPEG"
    store = open_store(folder)
    assert store.num_corrected() == len(holds)
    assert store.corrected_among([*KEYS, *holds]) == set(holds)
    return holds


def loop(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = open_store(folder)
    print("ready", flush=True)
    while True:
        number = chance.randrange(len(IMAGES))
        if chance.random() < 0.3:
            try:
                store.undo(KEYS[number], REMARK, IMAGES[number])
            except UnknownImageError:
                pass
        else:
            store.correct(KEYS[number], chance.choice(LABELS), REMARK, IMAGES[number])


def steps(store: FeedbackStore) -> Iterator[tuple[Callable[[], object], str | None]]:
    """Give corrections of the first image, and what holds after each ("" is nothing)."""
    key, data = KEYS[0], IMAGES[0]
    yield lambda: store.correct(key, "red", REMARK, data), "red"
    yield lambda: store.correct(key, "blue", REMARK, data), "blue"
    yield lambda: store.correct(key, None, REMARK, data), None
    yield lambda: store.undo(key, REMARK), "blue"
    yield lambda: store.undo(key, REMARK), "red"
    yield lambda: store.undo(key, REMARK), ""


def each_step(folder: Path) -> None:
    outcomes = collections.Counter()
    for number in range(1, 1000):
        place = folder / str(number)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            _die_at_call(number, place, writer)
        os.close(writer)
        _, status = os.waitpid(child, 0)
        with open(reader, "rb") as file:
            begun = len(file.read())
        if os.WIFEXITED(status):
            print(json.dumps({"calls": number, **outcomes}))
            return
        labels = ["", *(label for _, label in steps(open_store(place)))]
        open_store(place)
        holds = check(place).get(KEYS[0], "") if place.exists() else ""
        assert holds in labels[begun - 1 : begun + 1], (number, begun, holds)
        outcomes["done" if holds == labels[begun] else "undone"] += 1
    raise AssertionError("it never came to its end")


def _die_at_call(number: int, folder: Path, writer: int) -> None:
    """Kill this process right before its `number`-th call that may change a disk."""
    changing = {os.open, os.write, os.replace, os.fsync, os.ftruncate, os.unlink, os.mkdir}
    store = open_store(folder)
    calls = 0

    def on_call(_frame: object, event: str, function: object) -> None:
        nonlocal calls
        if event == "c_call" and function in changing:
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

    for step, _ in steps(store):
        os.write(writer, b".")
        sys.setprofile(on_call)
        step()
        sys.setprofile(None)
    os._exit(0)


def full_disk(folder: Path) -> None:
    """No file may grow over a limit: the first write to hit it is another one each time."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    for limit in range(0, 2400, 120):
        place = folder / str(limit)
        store = open_store(place)
        holds = ""
        for step, _ in steps(store):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
            try:
                done = step()
            except FeedbackUnavailableError:
                refused += 1
            except UnknownImageError:  # there was nothing to undo, as it could not be done
                assert holds in ("", None)
            else:
                holds = "" if done.label is None and not done.is_rejected else done.label
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            assert bool(store.corrected_among(KEYS[:1])) == (holds != "")
            assert check(place).get(KEYS[0], "") == holds
        store.correct(KEYS[1], "green", REMARK, IMAGES[1])
        assert check(place)[KEYS[1]] == "green"
    print(json.dumps({"refused": refused}))


if __name__ == "__main__":
    mode, where, *rest = sys.argv[1:]
    {"loop": loop, "each-step": each_step, "full-disk": full_disk}[mode](
        Path(where), *map(int, rest)
    )
