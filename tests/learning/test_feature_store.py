import argparse
import concurrent.futures
import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_backbone import TINY

from imagesieve.errors import DataError, OutputError
from imagesieve.learning import cli
from imagesieve.learning.features.store import (
    FeatureStore,
    FeatureTable,
    StoredRows,
    row_key,
)

REPOSITORY = Path(__file__).parents[2]
SHAPE = (3, 5)
ABOUT = {
    "backbone": "B",
    "image_size": [32, 32],
    "features": "pooled",
    "engine": "e",
    "row_shape": [*SHAPE],
}
ROW_BYTES = 3 * 5 * 2


def key(number: int, view: str = "") -> bytes:
    return row_key(f"{number:064x}", view)


def row(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float16)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store", limit=1e9)


@pytest.fixture
def table(store: FeatureStore) -> Iterator[FeatureTable]:
    with store.table(ABOUT) as opened:
        yield opened


def fill(store: FeatureStore, numbers: range, about: dict[str, object] | None = None) -> None:
    with store.table({"row_shape": SHAPE, **(about or ABOUT)}) as table:
        for number in numbers:
            table.add([key(number)], [row(number)])


def rows_file(store: FeatureStore) -> Path:
    (path,) = store.folder.glob("*/rows")
    return path


def test_what_is_not_there_is_not_made_up_and_a_row_is_kept_once(
    store: FeatureStore, table: FeatureTable
) -> None:
    for _ in range(3):
        table.add([key(1)], [row(1)])
    assert rows_file(store).stat().st_size == ROW_BYTES
    assert key(1) in table
    assert key(2) not in table
    assert key(1, "another view") not in table
    with pytest.raises(KeyError):
        table.read([key(2)])


def test_features_of_another_kind_lie_in_another_table(store: FeatureStore) -> None:
    assert not store.has(ABOUT)
    assert not store.folder.exists()
    fill(store, range(1))
    assert store.has(ABOUT)
    for change in (
        {"backbone": "C"},
        {"image_size": [32, 64]},
        {"engine": "bf16"},
        {"network": "x"},
        {"row_shape": [15]},
    ):
        assert not store.has({**ABOUT, **change})
        with store.table({**ABOUT, **change}) as table:
            assert key(0) not in table


def in_threads(actions: Iterable[Callable[[], object]]) -> None:
    """Run each action in a thread of its own; raise what one of them raises."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(action) for action in actions]:
            future.result()


def test_many_threads_add_and_read(table: FeatureTable) -> None:
    def work(start: int) -> None:
        for number in range(start, 400, 4):
            table.add([key(number)], [row(number)])
            np.testing.assert_array_equal(table.read([key(number)])[0], row(number))

    in_threads(functools.partial(work, start) for start in range(4))
    np.testing.assert_array_equal(
        table.read([key(number) for number in range(400)]), [row(number) for number in range(400)]
    )


@pytest.mark.parametrize("lost", [1, ROW_BYTES, 4 * ROW_BYTES + 3, 10 * ROW_BYTES])
def test_a_torn_end_loses_only_the_rows_that_are_torn(store: FeatureStore, lost: int) -> None:
    fill(store, range(10))
    rows = rows_file(store)
    os.truncate(rows, 10 * ROW_BYTES - lost)
    whole = (10 * ROW_BYTES - lost) // ROW_BYTES
    with store.table(ABOUT) as table:
        assert [key(number) in table for number in range(10)] == [True] * whole + [False] * (
            10 - whole
        )
        table.add([key(0), key(9)], [row(0), row(9)])
    with store.table(ABOUT) as table:
        numbers = [number for number in range(10) if key(number) in table]
        assert {0, 9, *range(whole)} == set(numbers)
        found = table.read([key(number) for number in numbers])
        np.testing.assert_array_equal(found, [row(number) for number in numbers])


def test_an_altered_row_is_told(store: FeatureStore) -> None:
    fill(store, range(3))
    rows = rows_file(store)
    data = bytearray(rows.read_bytes())
    data[ROW_BYTES + 4] ^= 1
    rows.write_bytes(data)
    with store.table(ABOUT) as table:
        table.read([key(0), key(2)])
        with pytest.raises(DataError, match=r"are damaged: remove them with --clear-cache"):
            table.read([key(1)])


WRITER = """
import sys, itertools
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import numpy as np
from imagesieve.learning.features.store import StoredRows, FeatureStore, row_key
store = FeatureStore(Path(sys.argv[1]), limit=1e12)
with store.table({"a": 1, "row_shape": [4096]}) as table:
    for number in itertools.count():
        table.add([row_key(f"{number:064x}", "")], [np.full(4096, number % 1000, np.float16)])
        if number == 50:
            print("on", flush=True)
"""


def test_a_killed_writer_leaves_whole_rows_and_goes_on(tmp_path: Path) -> None:
    counts = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path, REPOSITORY], stdout=subprocess.PIPE
        )
        assert process.stdout
        assert process.stdout.readline() == b"on\n"
        time.sleep(0.05)
        process.kill()
        process.wait()
        process.stdout.close()
        with FeatureStore(tmp_path, limit=1e12).table({"a": 1, "row_shape": [4096]}) as table:
            count = 0
            while key(count) in table:
                assert (table.read([key(count)]) == count % 1000).all()
                count += 1
        counts.append(count)
    assert counts[0] > 50
    assert counts[1] > 50


def test_a_place_for_other_things_stays_with_its_description(store: FeatureStore) -> None:
    with store.place({"holds": "a", "network": "1"}) as place:
        (place / "file").write_bytes(b"x" * 1000)
    with store.place({"holds": "a", "network": "1"}) as again:
        assert (again / "file").exists()
    with store.place({"holds": "a", "network": "2"}) as other:
        assert other != again
    assert [entry.num_bytes for entry in store.entries()] == [0, 1000]


def test_over_the_limit_what_was_not_used_for_long_gives_way(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", limit=5_000)
    for name in "abc":
        fill(store, range(50), {"a": name})
    fill(store, range(1), {"a": "a"})  # now b is the one not used for longest
    with store.table({"a": "d", "row_shape": SHAPE}) as table:
        store.make_room(100 * table.row_bytes, "100 images")
        assert sorted(entry.about["a"] for entry in store.entries()) == ["a", "d"]


def test_room_that_others_use_is_told(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", limit=4000)
    with (
        store.table({"a": 1, "row_shape": SHAPE}) as one,
        store.table({"a": 2, "row_shape": SHAPE}) as other,
    ):
        for number in range(100):
            one.add([key(number)], [row(number)])
        with pytest.raises(OutputError, match=r"in use: wait .* raise the limit of 4\.0 kB"):
            store.make_room(50 * other.row_bytes, "50 images")


def test_a_disk_that_is_too_small_is_told(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"are free: free some space"):
        FeatureStore(tmp_path, limit=1e30).make_room(10**18, "many images")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(OutputError, match=r"a part of the path is a file|already there"),
        FeatureStore(tmp_path / "file", limit=1e9).table(ABOUT),
    ):
        pass


def test_a_temporary_store_is_gone_afterwards(tmp_path: Path) -> None:
    options = argparse.Namespace(no_cache=True)
    with cli.open_store(cli.Plan(options, TINY, (32, 32), None, tmp_path, "tiny")) as store:
        fill(store, range(3))
        assert store.entries()
    assert list(tmp_path.iterdir()) == []


def test_stored_rows_are_an_array_that_is_read_piece_by_piece(table: FeatureTable) -> None:
    keys = [[key(number, view) for number in range(6)] for view in ("", "v")]
    for number in range(6):
        table.add([keys[0][number]], [row(number)])
        table.add([keys[1][number]], [row(100 + number)])
    rows = StoredRows(table, keys)
    assert rows.shape == (2, 6, *SHAPE)
    found = rows[np.array([1, 0, 1]), np.array([2, 2, 5])]
    np.testing.assert_array_equal(found, [row(102), row(2), row(105)])


def test_removing_a_shelf_and_opening_it_do_not_get_into_each_others_way(
    store: FeatureStore,
) -> None:
    end = time.monotonic() + 0.5

    def repeat(action: Callable[[], object]) -> None:
        while time.monotonic() < end:
            action()

    def use() -> None:
        with store.place({"holds": "a file"}) as place, store.table(ABOUT) as table:
            (place / "file").write_bytes(b"x")
            table.add([key(4)], [row(4)])
            np.testing.assert_array_equal(table.read([key(4)]), [row(4)])
            kept = [entry.about for entry in store.entries()]
            assert {"holds": "a file"} in kept
            assert ABOUT in kept

    actions = [use, use, store.clear, store.clear, lambda: store.make_room(1, "an image")]
    in_threads(functools.partial(repeat, action) for action in actions)


KILLER = """
import itertools, os, shutil, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from imagesieve.learning.features.store import FeatureStore
source, target, action = sys.argv[2:]
for moment in itertools.count():
    folder = Path(target, str(moment))
    shutil.copytree(source, folder)
    if not (child := os.fork()):
        calls = itertools.count()
        sys.addaudithook(lambda *_: os.kill(os.getpid(), 9) if next(calls) == moment else None)
        eval(f"FeatureStore(folder, limit=100).{action}")
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


@pytest.mark.parametrize("action", ["clear()", "make_room(50, 'an image')"])
def test_a_removal_that_is_killed_at_any_system_call_does_no_harm(
    store: FeatureStore, tmp_path: Path, action: str
) -> None:
    fill(store, range(3))
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", KILLER, REPOSITORY, store.folder, killed, action]
    subprocess.run(command, check=True)
    num_left = [num_rows_left(folder) for folder in list(killed.iterdir())]
    assert len(num_left) > 15
    assert set(num_left) == {0, 3}  # all or nothing


def num_rows_left(folder: Path) -> int:
    """Return how many of three rows a killed process left; to remove and to add more goes well."""
    cleared = FeatureStore(Path(shutil.copytree(folder, f"{folder}-cleared")), limit=1e9)
    cleared.clear()
    assert cleared.entries() == []
    assert [path for path in cleared.folder.iterdir() if path.is_dir()] == []
    filled = FeatureStore(folder, limit=1e9)
    fill(filled, range(3, 6))
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1
    with filled.table(ABOUT) as table:
        numbers = [number for number in range(6) if key(number) in table]
        assert numbers[-3:] == [3, 4, 5]
        found = table.read([key(number) for number in numbers])
    np.testing.assert_array_equal(found, [row(number) for number in numbers])
    return len(numbers) - 3


def test_folders_of_an_older_release_are_removed(store: FeatureStore) -> None:
    old = store.folder / ("0123456789ab" * 2)
    old.mkdir(parents=True)
    (old / "0123456789abcdef.rows").write_bytes(bytes(5000))
    assert store.entries() == []
    fill(store, range(1))
    assert not old.exists()
    old.mkdir()
    (old / "0123456789abcdef.rows").write_bytes(bytes(5000))
    assert store.clear() == 5000 + ROW_BYTES


def test_a_damaged_index_is_an_error_and_clearing_helps(store: FeatureStore) -> None:
    fill(store, range(3))
    (store.folder / "index.sqlite").write_bytes(b"not a database, but longer than its header" * 99)
    with pytest.raises(DataError, match="--clear-cache"):
        fill(store, range(3))
    assert store.clear() > 0
    fill(store, range(3))
    assert [entry.num_rows for entry in store.entries()] == [3]


WRITERS = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import numpy as np
from imagesieve.learning.features.store import StoredRows, FeatureStore, row_key
with FeatureStore(Path(sys.argv[1]), limit=1e12).table({"a": 1, "row_shape": [64]}) as table:
    print("on", flush=True)
    sys.stdin.readline()
    for number in range(int(sys.argv[3]), 200):
        table.add([row_key(f"{number:064x}", "")], [np.full(64, number, np.float16)])
"""


def test_several_processes_write_and_read_one_table(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITERS, tmp_path, REPOSITORY, str(start)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for start in (0, 50, 100)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == b"on\n"
    for process in processes:
        process.communicate(b"go\n")
        assert process.returncode == 0
    with FeatureStore(tmp_path, limit=1e12).table({"a": 1, "row_shape": [64]}) as table:
        found = table.read([key(number) for number in range(200)])
    np.testing.assert_array_equal(found[:, 5], np.arange(200))
