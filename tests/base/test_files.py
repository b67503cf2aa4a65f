import contextlib
import errno
import hashlib
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagesieve import files
from imagesieve.errors import OutputError

REPOSITORY = Path(__file__).resolve().parents[2]

WRITER = """
import signal, sys
from pathlib import Path
from imagesieve import files
with files.new_folder(Path(sys.argv[1])) as partial:
    (partial / "half").write_text("half")
    print("ready", flush=True)
    signal.pause()
"""
LOCKER = """
import sys
from pathlib import Path
from imagesieve import files
with files.locked(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def umask() -> Iterator[None]:
    """Restore the process's umask after a test has changed it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@contextlib.contextmanager
def ordinary_user() -> Iterator[Path]:
    """Return a folder of an ordinary user, and be that user: root may write anywhere."""
    user = os.geteuid() or 65534
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, user, -1)
        before = os.geteuid()
        os.seteuid(user)
        try:
            yield Path(folder)
        finally:
            os.seteuid(before)


@contextlib.contextmanager
def child_with(path: Path, code: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that writes or has locked `path`, and waits there."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes) as child:
        assert child.stdout.readline() == "ready\n"
        try:
            yield child
        finally:
            child.kill()


def test_a_folder_appears_whole_when_its_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "version"
    with files.new_folder(target) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "a").write_bytes(b"a")
        assert not target.exists()
    assert names(tmp_path / "deep") == ["version"]
    assert names(target) == ["inner"]  # the lock is gone
    assert (target / "inner" / "a").read_bytes() == b"a"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_block_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fill_and_fail() -> None:
        with files.new_folder(tmp_path / "version") as partial:
            (partial / "half").write_text("half")
            raise error

    with pytest.raises(error):
        fill_and_fail()
    assert names(tmp_path) == []


@pytest.mark.parametrize("is_early", [True, False])
def test_an_existing_target_is_refused_and_kept(tmp_path: Path, is_early: bool) -> None:
    target = tmp_path / "version"

    def appear() -> None:
        target.mkdir()
        (target / "other").write_text("other")

    def fill() -> None:
        with files.new_folder(target) as partial:
            assert not is_early
            (partial / "new").write_text("new")
            appear()

    if is_early:
        appear()
    with pytest.raises(OutputError, match=r"Cannot write .*version: "):
        fill()
    assert names(tmp_path) == ["version"]
    assert names(target) == ["other"]


def test_a_killed_writer_leaves_a_hidden_folder_that_the_next_one_removes(tmp_path: Path) -> None:
    with child_with(tmp_path / "version", WRITER) as child:
        child.kill()
        child.wait()
    (leftover,) = names(tmp_path)
    assert leftover.startswith(".partial-version-")
    with child_with(tmp_path / "version", WRITER):
        (living,) = names(tmp_path)
        with files.new_folder(tmp_path / "other"):
            assert leftover not in names(tmp_path)
        assert names(tmp_path) == [living, "other"]
        assert (tmp_path / living / "half").read_text() == "half"


def test_a_writer_killed_while_it_flushes_is_cleaned_up_too(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from imagesieve import files\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with files.new_folder(Path(sys.argv[1])) as partial: (partial / 'a').touch()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "version")]
    assert subprocess.run(command, cwd=REPOSITORY, check=False).returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    files.remove_stale_partials(tmp_path)
    assert names(tmp_path) == []


def test_leftovers_of_others_are_kept_and_block_no_writer() -> None:
    with ordinary_user() as folder:
        leftover = folder / ".partial-other"
        leftover.mkdir()
        (leftover / ".writing").touch(mode=0)
        (folder / ".partial-folder").mkdir()
        (folder / ".partial-file").touch()
        with files.new_folder(folder / "version"):
            pass
        others = [".partial-file", ".partial-folder", ".partial-other"]
        assert names(folder) == [*others, "version"]


def test_a_full_disk_is_one_clear_sentence_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "current.json"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as caught:
        files.write_text(target, "new")
    assert str(caught.value) == (
        f"Cannot write {target}: no space is left on the disk: free some and try again."
    )
    assert names(tmp_path) == ["current.json"]
    assert target.read_text() == "old"

    with pytest.raises(OutputError, match="no space is left"), files.new_folder(tmp_path / "v"):
        pass
    assert names(tmp_path) == ["current.json"]


def test_a_file_over_the_systems_limit_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from imagesieve import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: files.write_bytes(Path(sys.argv[1]), bytes(5000))\n"
        "except files.OutputError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "big")]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert run.stdout.endswith("big: the file would be larger than the system allows.\n")
    assert names(tmp_path) == []


def test_a_folder_without_write_permission_is_named() -> None:
    with ordinary_user() as folder:
        folder.chmod(0o555)
        expected = rf"Cannot write {folder}/\w+: permission is denied: choose a place"
        with pytest.raises(OutputError, match=expected):
            files.write_text(folder / "file", "text")
        with pytest.raises(OutputError, match=expected), files.new_folder(folder / "version"):
            pytest.fail("the block must not run")
        folder.chmod(0o755)
        assert names(folder) == []


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Cannot write .*file/below: "):
        files.write_text(tmp_path / "file" / "below", "text")


def test_a_lock_is_one_processs_until_it_ends_or_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    def cannot_be_locked(*, shared: bool) -> bool:
        with pytest.raises(BlockingIOError), files.locked(path, wait=False, shared=shared):
            pytest.fail("the block must not run")
        return True

    with child_with(path, LOCKER) as child:
        assert cannot_be_locked(shared=True)
        assert cannot_be_locked(shared=False)
        child.kill()
        child.wait()
        with files.locked(path, wait=False) as file:
            file.write(b"ours")
    assert path.read_bytes() == b"ours"
    with files.locked(path, shared=True), files.locked(path, shared=True, wait=False):
        assert cannot_be_locked(shared=False)


def test_a_lock_waits_for_the_other_process(tmp_path: Path) -> None:
    with child_with(tmp_path / "lock", LOCKER) as child:
        threading.Timer(0.2, child.stdin.close).start()
        with files.locked(tmp_path / "lock"):
            assert child.wait(5) == 0


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_taken_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with child_with(path, LOCKER) as child:
        remove = threading.Timer(0.2, lambda: (path.unlink(), child.stdin.close()))
        remove.start()
        with files.locked(path) as file:
            assert os.path.samestat(os.fstat(file.fileno()), path.stat())
    remove.join()


def test_a_lock_creates_no_file_unless_allowed_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "lock")
    with pytest.raises(FileNotFoundError), files.locked(tmp_path / "lock", create=False):
        pytest.fail("the block must not run")
    with pytest.raises(OSError, match="link"), files.locked(tmp_path / "link"):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["link"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    target = tmp_path / "value.json"
    values = ["a" * 200_000, "b" * 100_000]
    files.write_text(target, values[0])
    writer = multiprocessing.get_context("spawn").Process(
        target=write_alternately, args=(target, values)
    )
    writer.start()
    seen = set()
    while writer.is_alive():
        seen.add(target.read_text())
    writer.join()
    assert writer.exitcode == 0
    assert seen <= set(values)


def write_alternately(target: Path, values: list[str]) -> None:
    for number in range(60):
        files.write_text(target, values[number % 2])


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
@pytest.mark.usefixtures("umask")
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, expected: int) -> None:
    os.umask(mask)
    files.write_text(tmp_path / "file", "text")
    with files.new_folder(tmp_path / "version"):
        pass
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected
    assert stat.S_IMODE((tmp_path / "version").stat().st_mode) == 0o777 & ~mask
    assert os.umask(mask) == mask  # asking for it changed nothing


def test_json_is_utf8_as_people_read_it(tmp_path: Path) -> None:
    value = {"名": ["é", 1.5, None], "not UTF-8": os.fsdecode(b"photo-\xff.jpg")}
    files.write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert ("名" in text, text[-1]) == (True, "\n")
    assert json.loads(text) == value
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.write_json(tmp_path / "value.json", {"loss": number})
    assert (tmp_path / "value.json").read_text(encoding="utf-8") == text


def test_the_checksum_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert files.sha256_of(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
