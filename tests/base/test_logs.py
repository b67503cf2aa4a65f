import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from imagesieve import logs
from imagesieve.errors import OutputError

REPOSITORY = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.usefixtures("_loggers_restored")


@pytest.mark.parametrize(("quiet", "shown"), [(False, "two\nthree\n"), (True, "three\n")])
def test_the_terminal_gets_short_lines_and_the_file_every_detail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quiet: bool, shown: str
) -> None:
    path = logs.start_logging("train", quiet=quiet, folder=tmp_path / "log")
    assert path.parent == tmp_path / "log"
    assert re.fullmatch(r"train-\d{8}-\d{6}\.log", path.name)
    log = logging.getLogger("imagesieve.part")
    log.debug("one")
    log.info("two")
    log.warning("three")

    out, err = capsys.readouterr()
    assert out == ""
    assert err == shown
    lines = path.read_text().splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["one", "two", "three"]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ DEBUG imagesieve\.part ", lines[0])


def test_other_libraries_are_logged_only_when_something_went_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.start_logging("first", folder=tmp_path)
    path = logs.start_logging("train", folder=tmp_path)  # which takes the place of the first
    logging.getLogger("urllib3").info("chatter")
    logging.getLogger("urllib3").warning("trouble")
    logging.getLogger("imagesieve").info("once")
    assert capsys.readouterr().err == "once\n"
    assert [line.rsplit(" ", 1)[1] for line in path.read_text().splitlines()] == ["trouble", "once"]


def test_a_file_name_that_is_not_utf8_can_be_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = logs.start_logging("train", folder=tmp_path, quiet=True)
    logging.getLogger("imagesieve").info("left out: %s", os.fsdecode(b"photo-\xff.jpg"))
    assert "photo-\\udcff.jpg" in path.read_text()
    assert capsys.readouterr().err == ""  # logging would print a traceback


def test_a_log_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with pytest.raises(OutputError, match=r"Cannot write .*log/train-.*\.log: "):
        logs.start_logging("train", folder=tmp_path / "log")


def test_a_full_disk_ends_the_log_file_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = logs.start_logging("train", folder=tmp_path)
    path.unlink()
    handler = next(h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler))
    assert handler.stream
    handler.stream.close()
    handler.stream = open("/dev/full", "w")  # noqa: SIM115 (the handler closes it)
    log = logging.getLogger("imagesieve.part")
    log.warning("one")
    log.warning("two")
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("warning: Cannot write") for line in lines) == 1
    assert [line for line in lines if "Cannot write" not in line] == ["one", "two"]


def test_a_log_that_grows_is_cut_into_files_and_the_oldest_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_FILE_BYTES", 2000)
    path = logs.start_logging("main", folder=tmp_path, quiet=True)
    for number in range(1000):
        logging.getLogger("imagesieve.part").debug("request %04d", number)
    files = sorted(tmp_path.iterdir(), key=lambda file: (len(file.name), file.name))
    older = [f"{path.name}.{number}" for number in range(1, 1 + logs.NUM_OLDER_FILES)]
    assert [file.name for file in files] == [path.name, *older]
    assert all(0 < file.stat().st_size <= 2000 for file in files)
    newest_last = "".join(file.read_text() for file in reversed(files)).splitlines()
    numbers = [int(line.rsplit(" ", 1)[1]) for line in newest_last]
    assert numbers == list(range(numbers[0], 1000))


def test_native_messages_go_to_the_log_and_back_to_the_terminal(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from imagesieve import logs\n"
        f"path = logs.start_logging('train', folder=Path({str(tmp_path)!r}))\n"
        "try:\n"
        "    with logs.native_messages_in_log():\n"
        "        os.write(2, b'greeting\\n')\n"
        "        raise ValueError\n"
        "except ValueError: os.write(2, b'after\\n')\n"
        "print(path)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert run.stderr == "after\n"
    assert Path(run.stdout.strip()).read_text() == "greeting\n"


def test_native_messages_are_not_lost_without_a_log_file(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with logs.native_messages_in_log():
        os.write(2, b"greeting\n")
    assert capfd.readouterr().err == "greeting\n"
