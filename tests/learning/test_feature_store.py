import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from imagesieve.errors import DataError, OutputError
from imagesieve.learning.features.store import FeatureStore, describe, temporary_store
from imagesieve.learning.features.table import Shelf, StoredRows, row_key

ABOUT = {"backbone": "B", "image_size": [32, 32], "features": "pooled", "engine": "e"}
SHAPE = (3, 5)
ROW_BYTES = 3 * 5 * 2


def key(number: int, view: str = "") -> bytes:
    return row_key(f"{number:064x}", view)


def row(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float16)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store", limit=1e9)


@pytest.fixture
def shelf(store: FeatureStore) -> Iterator[Shelf]:
    with store.shelf(ABOUT, SHAPE) as opened:
        yield opened


def fill(store: FeatureStore, numbers: range, about: dict[str, object] | None = None) -> None:
    with store.shelf(about or ABOUT, SHAPE) as shelf:
        for number in numbers:
            shelf.add(key(number), row(number))


def segments(store: FeatureStore, suffix: str) -> list[Path]:
    return sorted(store.folder.rglob(f"*{suffix}"))


def test_rows_come_back_in_another_run_bit_for_bit(store: FeatureStore) -> None:
    fill(store, range(10))
    with store.shelf(ABOUT, SHAPE) as shelf:
        found = shelf.read([key(7), key(0), key(7)])
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, [row(7), row(0), row(7)])


def test_what_is_not_there_is_not_made_up(shelf: Shelf) -> None:
    shelf.add(key(1), row(1))
    assert key(1) in shelf
    assert key(2) not in shelf
    assert key(1, "another view") not in shelf
    with pytest.raises(KeyError):
        shelf.read([key(2)])


@pytest.mark.parametrize(
    "change", [{"backbone": "C"}, {"image_size": [32, 64]}, {"engine": "bf16"}, {"network": "x"}]
)
def test_features_of_another_kind_lie_on_another_shelf(
    store: FeatureStore, change: dict[str, object]
) -> None:
    fill(store, range(1))
    with store.shelf({**ABOUT, **change}, SHAPE) as shelf:
        assert key(0) not in shelf
    with store.shelf(ABOUT, (15,)) as shelf:
        assert key(0) not in shelf


def test_a_row_is_kept_once(store: FeatureStore, shelf: Shelf) -> None:
    for _ in range(3):
        shelf.add(key(1), row(1))
    assert [path.stat().st_size for path in segments(store, ".rows")] == [ROW_BYTES]


def test_two_at_once_write_side_by_side(store: FeatureStore) -> None:
    with store.shelf(ABOUT, SHAPE) as one, store.shelf(ABOUT, SHAPE) as other:
        one.add(key(1), row(1))
        other.add(key(2), row(2))
        other.add(key(1), row(1))
        one.add(key(3), row(3))
        np.testing.assert_array_equal(one.read([key(1), key(3)]), [row(1), row(3)])
        np.testing.assert_array_equal(other.read([key(1), key(2)]), [row(1), row(2)])
    with store.shelf(ABOUT, SHAPE) as shelf:
        np.testing.assert_array_equal(
            shelf.read([key(number) for number in (1, 2, 3)]), [row(1), row(2), row(3)]
        )


def test_many_threads_add_and_read(shelf: Shelf) -> None:
    wrong: list[int] = []

    def work(start: int) -> None:
        for number in range(start, 400, 4):
            shelf.add(key(number), row(number))
            if not np.array_equal(shelf.read([key(number)])[0], row(number)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    np.testing.assert_array_equal(
        shelf.read([key(number) for number in range(400)]), [row(number) for number in range(400)]
    )


@pytest.mark.parametrize("lost", [1, 19, 20, 21, 55])
def test_a_torn_end_costs_only_the_rows_that_are_torn(store: FeatureStore, lost: int) -> None:
    fill(store, range(10))
    (keys,) = segments(store, ".keys")
    os.truncate(keys, keys.stat().st_size - lost)
    whole = (200 - lost) // 20
    with store.shelf(ABOUT, SHAPE) as shelf:
        assert [key(number) in shelf for number in range(10)] == [True] * whole + [False] * (
            10 - whole
        )
        shelf.add(key(9), row(9))
    with store.shelf(ABOUT, SHAPE) as shelf:
        np.testing.assert_array_equal(shelf.read([key(0), key(9)]), [row(0), row(9)])


def test_keys_without_their_rows_do_not_count(store: FeatureStore) -> None:
    fill(store, range(10))
    (rows,) = segments(store, ".rows")
    os.truncate(rows, 4 * ROW_BYTES + 3)
    with store.shelf(ABOUT, SHAPE) as shelf:
        assert [key(number) in shelf for number in range(10)] == [True] * 4 + [False] * 6


def test_an_altered_row_is_told(store: FeatureStore) -> None:
    fill(store, range(3))
    (rows,) = segments(store, ".rows")
    data = bytearray(rows.read_bytes())
    data[ROW_BYTES + 4] ^= 1
    rows.write_bytes(data)
    with store.shelf(ABOUT, SHAPE) as shelf:
        shelf.read([key(0), key(2)])
        with pytest.raises(DataError, match=r"are damaged: remove them with --clear-cache"):
            shelf.read([key(1)])


WRITER = """
import sys, itertools
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import numpy as np
from imagesieve.learning.features.table import row_key
from imagesieve.learning.features.store import FeatureStore
store = FeatureStore(Path(sys.argv[1]), limit=1e12)
with store.shelf({"a": 1}, (4096,)) as shelf:
    for number in itertools.count():
        shelf.add(row_key(f"{number:064x}", ""), np.full(4096, number % 1000, np.float16))
        if number == 50:
            print("on", flush=True)
"""


def test_a_killed_writer_leaves_whole_rows_and_goes_on(tmp_path: Path) -> None:
    repository = Path(__file__).parents[2]
    counts = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path, repository], stdout=subprocess.PIPE
        )
        assert process.stdout
        assert process.stdout.readline() == b"on\n"
        time.sleep(0.05)
        process.kill()
        process.wait()
        process.stdout.close()
        with FeatureStore(tmp_path, limit=1e12).shelf({"a": 1}, (4096,)) as shelf:
            count = 0
            while key(count) in shelf:
                assert (shelf.read([key(count)]) == count % 1000).all()
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
    assert [holding.num_bytes > 1000 for holding in store.holdings()] == [False, True]


def test_a_shelf_can_be_asked_for_without_making_it(store: FeatureStore) -> None:
    assert not store.has_shelf(ABOUT, SHAPE)
    assert not store.folder.exists()
    fill(store, range(1))
    assert store.has_shelf(ABOUT, SHAPE)
    assert not store.has_shelf(ABOUT, (15,))


def test_holdings_tell_what_is_there(store: FeatureStore) -> None:
    assert store.holdings() == []
    fill(store, range(7))
    (holding,) = store.holdings()
    assert describe(holding.about) == "B, 32×32, pooled, e"
    assert holding.num_rows == 7
    assert 7 * (ROW_BYTES + 20) <= holding.num_bytes <= 7 * (ROW_BYTES + 20) + 1000
    assert abs(holding.used_at - time.time()) < 60


def test_clearing_spares_what_is_in_use(store: FeatureStore) -> None:
    fill(store, range(3), {"a": 1})
    with store.shelf({"a": 2}, SHAPE) as shelf:
        shelf.add(key(1), row(1))
        assert store.clear() > 0
        assert [holding.about["a"] for holding in store.holdings()] == [2]
        np.testing.assert_array_equal(shelf.read([key(1)]), [row(1)])
    store.clear()
    assert store.holdings() == []


def test_over_the_limit_what_was_not_used_for_long_gives_way(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", limit=10_000)
    for age, name in enumerate("abc"):
        fill(store, range(50), {"a": name})
        folder = max(store.folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(folder, (0, time.time() - 1000 + age))
    with store.shelf({"a": "d"}, SHAPE) as shelf:
        shelf.make_room(100, "100 images")
        assert sorted(holding.about["a"] for holding in store.holdings()) == ["c", "d"]


def test_more_than_the_limit_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", limit=1000)
    with (
        store.shelf(ABOUT, SHAPE) as shelf,
        pytest.raises(OutputError, match=r"of 100 images take 5\.0 kB, more than .* 1\.0 kB: ra"),
    ):
        shelf.make_room(100, "100 images")


def test_room_that_others_use_is_told(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", limit=6000)
    with store.shelf({"a": 1}, SHAPE) as one, store.shelf({"a": 2}, SHAPE) as other:
        for number in range(100):
            one.add(key(number), row(number))
        with pytest.raises(OutputError, match=r"other trainings use .* raise the limit of 6\.0 kB"):
            other.make_room(50, "50 images")


def test_a_disk_that_is_too_small_is_told(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"are free: free some space"):
        FeatureStore(tmp_path, limit=1e30).make_room(10**18, "many images")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(OutputError, match=r"a part of the path is a file|already there"),
        FeatureStore(tmp_path / "file", limit=1e9).shelf(ABOUT, SHAPE),
    ):
        pass


def test_a_temporary_store_is_gone_afterwards(tmp_path: Path) -> None:
    with temporary_store(tmp_path) as store:
        fill(store, range(3))
        assert store.holdings()
    assert list(tmp_path.iterdir()) == []


def test_stored_rows_are_an_array_that_is_read_piece_by_piece(shelf: Shelf) -> None:
    keys = [[key(number, view) for number in range(6)] for view in ("", "v")]
    for number in range(6):
        shelf.add(keys[0][number], row(number))
        shelf.add(keys[1][number], row(100 + number))
    rows = StoredRows(shelf, keys)
    assert rows.shape == (2, 6, *SHAPE)
    found = rows[np.array([1, 0, 1]), np.array([2, 2, 5])]
    np.testing.assert_array_equal(found, [row(102), row(2), row(105)])
    np.testing.assert_array_equal(rows.load()[1, 3], row(103))


def test_hundreds_of_trainings_do_not_use_up_the_open_files(store: FeatureStore) -> None:
    for number in range(40):
        fill(store, range(number, number + 1))
    before = num_open_files()
    with store.shelf(ABOUT, SHAPE) as shelf:
        found = shelf.read([key(number) for number in range(40)])
        assert num_open_files() <= before + 2
    np.testing.assert_array_equal(found, [row(number) for number in range(40)])


def num_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_rows_that_vanish_during_a_training_are_told(store: FeatureStore) -> None:
    fill(store, range(3))
    with store.shelf(ABOUT, SHAPE) as shelf:
        segments(store, ".rows")[0].unlink()  # somebody tidies up by hand
        with pytest.raises(DataError, match="--clear-cache"):
            shelf.read([key(1)])


def test_removing_a_shelf_and_opening_it_do_not_get_into_each_others_way(
    store: FeatureStore,
) -> None:
    end = time.monotonic() + 1.0
    failures: list[BaseException] = []

    def repeat(action: Callable[[], object]) -> None:
        try:
            while time.monotonic() < end:
                action()
        except BaseException as error:
            failures.append(error)

    def use() -> None:
        with store.place({"holds": "a file"}) as place, store.shelf(ABOUT, SHAPE) as shelf:
            (place / "file").write_bytes(b"x")
            shelf.add(key(4), row(4))
            np.testing.assert_array_equal(shelf.read([key(4)]), [row(4)])
            kept = [holding.about for holding in store.holdings()]
            assert {"holds": "a file"} in kept
            assert {**ABOUT, "row_shape": [*SHAPE]} in kept

    actions = [use, use, store.clear, store.clear, lambda: store.make_room(1, "an image")]
    threads = [threading.Thread(target=repeat, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_what_a_killed_removal_left_is_no_shelf_and_is_removed_next_time(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, range(3))

    def killed(path: Path) -> None:
        next(path.glob("*.rows")).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.clear()
    with store.shelf(ABOUT, SHAPE) as shelf:
        assert key(0) not in shelf
        shelf.add(key(0), row(0))
    assert len(store.holdings()) == 2
    store.clear()
    assert store.holdings() == []
