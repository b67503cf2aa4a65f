"""The journal: whole lines whatever happens, one writer at a time, and no traces of nothing."""

import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagesieve.collecting import journal
from imagesieve.collecting.journal import JOURNAL_NAME, KEPT, BusyError, open_journal
from imagesieve.errors import OutputError
from imagesieve.files import PARTIAL_PREFIX

REPOSITORY = Path(__file__).resolve().parents[2]


PROGRAM = """
import itertools, resource, signal, sys
from pathlib import Path
from imagesieve.collecting.journal import open_journal
from imagesieve.errors import OutputError
with open_journal(Path(sys.argv[1])) as journal:
"""


def start(lines: str, folder: Path) -> subprocess.Popen[str]:
    """Run a program of its own, whose last lines have the journal of `folder` open."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + textwrap.indent(lines, "    "), str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def entries_of(folder: Path) -> list[journal.Entry]:
    return list(journal.read_entries(folder / JOURNAL_NAME))


def urls_of(folder: Path) -> list[str]:
    return [entry["url"] for entry in entries_of(folder)]


def keep(folder: Path, url: str, **fields: object) -> None:
    with open_journal(folder) as one:
        one.add({"url": url, "status": KEPT, **fields})


def test_lines_come_back_in_order_with_their_time(tmp_path: Path) -> None:
    for number in range(3):
        keep(tmp_path / "class", f"http://h/{number}", width=number, title="")
    assert urls_of(tmp_path / "class") == ["http://h/0", "http://h/1", "http://h/2"]
    first = entries_of(tmp_path / "class")[0]
    assert first["time"].endswith("Z")
    assert (first["width"], "title" in first) == (0, False)


@pytest.mark.parametrize(
    "value",
    [
        "NUL \0 and \x1b[31m",
        "line\nends\r\nof\u2028every\x85kind\x0b\x0c",
        "寿司 🍣 مطعم e\u0301",
        "lone \ud800 surrogate",
        '"quoted" \\ back',
        "x" * 300_000,
    ],
)
def test_any_text_comes_back_as_it_was(tmp_path: Path, value: str) -> None:
    keep(tmp_path, value, title=value)
    keep(tmp_path, "http://h/next")
    assert [entry.get("title") for entry in entries_of(tmp_path)] == [value, None]
    assert (tmp_path / JOURNAL_NAME).read_bytes().count(b"\n") == 2


TORN = '{"url": "http://h/2", "status": "kept", "title": "é", "path": "x.jpg"}'.encode()


@pytest.mark.parametrize(
    "tail",
    [
        *(TORN[:length] for length in range(len(TORN))),  # cut off anywhere
        b"\0\0\0\0\0\0\0\0",
        b"[" * 100_000,
        b"9" * 10_000,
        b'{"url": 5}\n["url"]\nnull\n\n{"status": "kept"}',
        b'{"url": "a", "replaces": [1]}\n{"url": "b", "min_side": 1e999}\n{"url": "c", "path": 5}',
        b'[1]\n"text"\n{}\n\xff\xfe{',
    ],
    ids=lambda tail: f"{tail[-8:]}",
)
def test_a_torn_or_foreign_line_is_passed_over_and_not_glued_to(
    tmp_path: Path, tail: bytes
) -> None:
    keep(tmp_path, "http://h/1")
    with open(tmp_path / JOURNAL_NAME, "ab") as file:
        file.write(tail)
    assert urls_of(tmp_path) == ["http://h/1"]
    keep(tmp_path, "http://h/3")
    assert urls_of(tmp_path) == ["http://h/1", "http://h/3"]


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    with open_journal(tmp_path) as one, ThreadPoolExecutor(16) as pool:

        def add(thread: int) -> None:
            for number in range(100):
                one.add({"url": f"{thread} {number}", "status": KEPT, "title": "é" * thread * 100})

        list(pool.map(add, range(16)))
    urls = urls_of(tmp_path)
    assert len(urls) == 1600
    for thread in range(16):  # each thread's lines in its order
        own = [url for url in urls if url.startswith(f"{thread} ")]
        assert own == [f"{thread} {number}" for number in range(100)]


def test_a_folder_is_filled_by_one_at_a_time(tmp_path: Path) -> None:
    with open_journal(tmp_path) as one:
        one.add({"url": "http://h/1", "status": KEPT})
        with pytest.raises(BusyError, match=str(tmp_path)), open_journal(tmp_path):
            pass
        one.add({"url": "http://h/2", "status": KEPT})
        keep(tmp_path / "other", "http://h/3")
    with pytest.raises(TypeError):  # an error in the block lets go
        keep(tmp_path, "http://h/4", title=object())
    with open_journal(tmp_path):
        pass
    assert urls_of(tmp_path) == ["http://h/1", "http://h/2"]


def test_another_process_is_refused_and_a_killed_one_releases_the_folder(tmp_path: Path) -> None:
    lines = """
journal.add({"url": "http://h/child", "status": "kept"})
(journal.path.parent / ".partial-image").write_bytes(b"half")
print("open", flush=True)
sys.stdin.read()
"""
    with start(lines, tmp_path) as child:
        try:
            assert child.stdout.readline() == "open\n"
            with pytest.raises(BusyError, match=r"Another bing_downloader\.py"):
                keep(tmp_path, "http://h/early")
            assert (tmp_path / ".partial-image").exists()
        finally:
            child.kill()
            child.wait(10)
    keep(tmp_path, "http://h/parent")
    assert not (tmp_path / ".partial-image").exists()
    assert urls_of(tmp_path) == ["http://h/child", "http://h/parent"]


def test_only_unfinished_files_are_removed(tmp_path: Path) -> None:
    kept = ["a.jpg", ".hidden", "partial-a", f"{PARTIAL_PREFIX}folder/a", f"sub/{PARTIAL_PREFIX}a"]
    stale = [f"{PARTIAL_PREFIX}a", f"{PARTIAL_PREFIX}[b]"]
    for name in kept + stale:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    keep(tmp_path, "http://h/1")
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept, JOURNAL_NAME}


@pytest.mark.parametrize("left", [[], ["mine.jpg"]])
@pytest.mark.parametrize("was_there", [True, False])
def test_nothing_tried_leaves_what_others_put_there(
    tmp_path: Path, left: list[str], was_there: bool
) -> None:
    folder = tmp_path / "data" / "class"
    if was_there:
        folder.mkdir(parents=True)
    with open_journal(folder):
        assert (folder / JOURNAL_NAME).exists()
        for name in left:
            (folder / name).touch()
    assert folder.exists() == (was_there or bool(left))
    assert [path.name for path in folder.glob("*")] == left


def test_a_folder_that_opening_fails_for_is_not_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{PARTIAL_PREFIX}a").touch()

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:  # root may remove anything, so the system must say no
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(OutputError, match="permission is denied"):
            keep(tmp_path, "http://h/1")
    keep(tmp_path, "http://h/1")


def test_a_full_disk_is_an_error_and_the_lines_before_it_stay(tmp_path: Path) -> None:
    # A limit on the size of files stands in for a full disk.
    lines = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    for number in range(1000):
        journal.add({"url": f"http://h/{number}", "status": "kept"})
except OutputError as error:
    print(error)
"""
    with start(lines, tmp_path) as child:
        output, _ = child.communicate(timeout=20)
    assert output.startswith(f"Cannot write {tmp_path / JOURNAL_NAME}")
    assert child.returncode == 0
    urls = urls_of(tmp_path)
    assert urls == [f"http://h/{number}" for number in range(len(urls))]
    assert len(urls) > 10
    keep(tmp_path, "http://h/next")
    assert urls_of(tmp_path) == [*urls, "http://h/next"]


def test_killed_at_any_moment_the_lines_are_whole(tmp_path: Path) -> None:
    lines = """
for number in itertools.count():
    journal.add({"url": f"http://h/{number}", "status": "kept", "title": "x" * 5000})
    print(number, flush=True)
"""
    with start(lines, tmp_path) as child:
        last = [int(child.stdout.readline()) for _ in range(50)][-1]
        child.kill()
        child.wait(10)
    urls = urls_of(tmp_path)
    assert len(urls) > last
    assert urls == [f"http://h/{number}" for number in range(len(urls))]


def test_a_removed_journal_is_not_written_to(tmp_path: Path) -> None:
    """Two take turns with a folder in which nothing is kept, so each removes its empty file."""
    done = threading.Barrier(3)

    def take_turns() -> None:
        num_opened = 0
        while num_opened < 100:
            try:
                with open_journal(tmp_path):
                    num_opened += 1
                    assert (tmp_path / JOURNAL_NAME).exists()
            except BusyError:
                pass
        done.wait(20)

    for _ in range(2):
        threading.Thread(target=take_turns, daemon=True).start()
    done.wait(20)
    assert list(tmp_path.iterdir()) == []
