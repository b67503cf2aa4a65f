import argparse
import contextlib
import io
import logging
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from terminals import terminal

from imagesieve import console

REPOSITORY = Path(__file__).resolve().parents[2]

SCRIPT = """
import errno, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, os.environ["REPOSITORY"])
from imagesieve import console, errors, logs

def main(arguments):
    parser = console.argument_parser("Do something.", "  do.py --number 1")
    parser.add_argument("--number", type=int)
    parser.add_argument("--do")
    options = parser.parse_args(arguments)
    if options.do == "log, then break":
        logs.start_logging("do", folder=Path("log"))
    if options.do == "print":
        print("x" * 100_000)
    if options.do == "open":
        logs.start_logging("do", folder=Path("log"))
        with logs.native_messages_in_log():
            return int(os.open("/dev/null", os.O_RDONLY) <= 2)
    if options.do == "stat":
        Path("x" * 300).stat()
    if options.do == "fail":
        raise errors.DataError("There are no images\\n  in data/train.")
    if options.do == "wait":
        try:
            print("waiting", flush=True)
            signal.pause()
        finally:
            print("tidied up")
    if options.do == "eat":
        raise MemoryError
    if number := getattr(errno, options.do or "", None):
        raise OSError(number, os.strerror(number))
    if "break" in (options.do or ""):
        raise RuntimeError("a bug\\nin two lines")
    return 1 if options.do == "partly" else 0

console.run_script(main, sys.argv[1:])
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "do.py"
    path.write_text(SCRIPT)
    return path


def environment() -> Mapping[str, str]:
    return {**os.environ, "REPOSITORY": str(REPOSITORY)}


@pytest.fixture
def end(
    script: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    _loggers_restored: None,
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Yield a function that runs the script here; it returns exit code, errors and output."""
    monkeypatch.chdir(script.parent)
    monkeypatch.setenv("REPOSITORY", str(REPOSITORY))
    monkeypatch.setattr(sys, "path", [*sys.path])
    handler = signal.getsignal(signal.SIGTERM)

    def run_here(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["do.py", *arguments])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(script), run_name="__main__")
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), err, out

    yield run_here
    signal.signal(signal.SIGTERM, handler)


WRONG = (["--nubmer", "1"], ["--number", "one"], ["--num", "1"], ["extra"], ["--number"])
NO_MEMORY = "error: Not enough memory: use a smaller --batch-size or --image-size.\n"
DISK = {
    "ENOSPC": "no space is left on the disk: free some and try again",
    "EDQUOT": "the disk quota is used up: free some space and try again",
    "EROFS": "the file system is read-only: choose another place",
}
BUG = "error: Unexpected RuntimeError: a bug in two lines\n"


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        ([], 0, ""),
        (["--do", "partly"], 1, ""),
        (["--do", "fail"], 1, "error: There are no images in data/train.\n"),
        (["--do", "eat"], 1, NO_MEMORY),
        *((["--do", x], 1, f"error: Cannot write the output: {DISK[x]}.\n") for x in DISK),
        (["--do", "stat"], 1, f"error: Cannot use {'x' * 300}: File name too long.\n"),
        (["--do", "ENOENT"], 1, "error: Unexpected FileNotFoundError: (?s:.*)"),
        (["--do", "break"], 1, rf"{BUG}Traceback \(most recent call last\)(?s:.*)"),
        (["--do", "log, then break"], 1, rf"{BUG}This is a bug; the details are in log/do-.*\n"),
        *((wrong, 2, r"error: .*\(see: do\.py --help\)\n") for wrong in WRONG),
    ],
)
def test_each_end_has_its_exit_code_and_its_line(
    end: Callable[..., tuple[int, str, str]], arguments: list[str], code: int, error: str
) -> None:
    found, errors, out = end(*arguments)
    assert (found, out) == (code, "")
    assert re.fullmatch(error, errors)
    assert errors.count("Traceback") <= 1
    for log in Path("log").glob("*"):
        assert log.read_text().count("Traceback (most recent call last)") == 1


def test_help_goes_to_standard_output_with_the_examples_as_written(
    end: Callable[..., tuple[int, str, str]],
) -> None:
    code, errors, out = end("--help")
    assert (code, errors) == (0, "")
    assert "examples:\n  do.py --number 1\n" in out
    assert "--quiet" in out


@pytest.mark.parametrize(
    ("number", "code", "error"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_a_signal_still_tidies_up_and_has_its_exit_code(
    script: Path, number: signal.Signals, code: int, error: str
) -> None:
    with subprocess.Popen(
        [sys.executable, str(script), "--do", "wait"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == "waiting\n"
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
    assert (out, err, child.returncode) == ("tidied up\n", error, code)


@pytest.mark.parametrize("arguments", ["--do print | true", "--help | true", "--do print >&-"])
def test_a_closed_pipe_is_quiet(script: Path, arguments: str) -> None:
    command = f"set -o pipefail; {sys.executable} {script} {arguments}"
    done = subprocess.run(
        ["bash", "-c", command], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode in (0, 128 + signal.SIGPIPE)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_takes_the_place_of_a_closed_stream(script: Path, closed: str) -> None:
    """What libraries print would be written into it."""
    command = f"{sys.executable} {script} --do open {closed}"
    done = subprocess.run(["bash", "-c", command], env=environment(), check=False)
    assert done.returncode == 0


def test_a_table_aligns_numbers_to_the_right() -> None:
    text = console.table(["class", "images"], [["menu", 7], ["not-menu", 1200]])
    header, rule, *rows = text.split("\n")
    assert header.split() == ["class", "images"]
    assert set(rule) == {"─"}
    assert [row.split() for row in rows] == [["menu", "7"], ["not-menu", "1200"]]
    assert {len(line) for line in (header, *rows)} == {len(rule)}


def test_a_table_shows_cells_as_they_stand() -> None:
    cells = ["[red]apples", "[/red]", ":smile:", "[link=x]y", "\\[a]", "x" * 120]
    text = console.table(["class", "n"], [[cell, 1] for cell in cells])
    assert [line.split()[0] for line in text.splitlines()[2:]] == cells


def test_a_whole_number_must_be_plain_and_within_its_bounds() -> None:
    parse = console.whole_number(1, 7)
    assert [parse(text) for text in ("1", "007", "4")] == [1, 7, 4]
    for text in ("0", "8", "-1", "+1", "1.0", "1_0", " 1", "", "٣", "9" * 5000):
        with pytest.raises(argparse.ArgumentTypeError, match=r"is not a whole number from 1 to 7$"):
            parse(text)


@pytest.mark.parametrize(
    ("parse", "inside", "outside", "message"),
    [
        (console.number(), ("0", "1e3"), ("-0.1", "1e10"), "number from 0 to 1,000,000,000"),
        (console.number(0, 1), ("0", "1"), ("-1", "1.1"), "number from 0 to 1"),
        (console.number(above=0, below=1), ("0.2",), ("0", "1"), "number above 0 and below 1"),
        (
            console.number(above=0, most=1000000, what="number of requests"),
            ("0.1", "1000000"),
            ("0", "1000001"),
            "number of requests above 0 and at most 1,000,000",
        ),
    ],
)
def test_a_number_must_lie_within_its_bounds(
    parse: Callable[[str], float], inside: Sequence[str], outside: Sequence[str], message: str
) -> None:
    assert [parse(text) for text in inside] == [float(text) for text in inside]
    for text in (*outside, "nan", "inf", "-inf", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            parse(text)
        assert str(caught.value) == f"{text!r} is not a {message}"


def test_progress_without_a_terminal_is_a_line_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_PLAIN_PROGRESS_SECONDS", 0.02)
    caplog.set_level(logging.INFO, "imagesieve")
    expected = {"reading: 200 of 1,000, 0 s, about 0 s left", "menu: 1/3 kept"}
    with (
        console.progress("reading", 1000) as known,
        console.progress("menu", 3, status=lambda: (1, "1/3 kept")),
    ):
        known(200)
        end = time.monotonic() + 5.0
        while not expected <= set(caplog.messages) and time.monotonic() < end:
            time.sleep(0.01)
    assert expected <= set(caplog.messages)
    count = len(caplog.records)
    time.sleep(0.05)
    assert len(caplog.records) == count, "nothing comes afterwards"


def test_quiet_progress_shows_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_PLAIN_PROGRESS_SECONDS", 0.01)
    caplog.set_level(logging.DEBUG)
    for screen in (terminal(), contextlib.nullcontext(str)):
        with screen as read:
            with console.progress("reading", 1, quiet=True) as advance:
                advance(1)
                time.sleep(0.05)
            assert read() == ""
    assert not caplog.records


def line(name: str, done: int, total: int, text: str) -> str:
    file = io.StringIO()
    shown = console._line(name, total, lambda: (done, text), 80)
    Console(width=80, file=file, force_terminal=True, color_system=None).print(shown)
    return file.getvalue().removesuffix("\n")


COUNTS = "1000000/1000000 kept · 10000000 found · 1000000 dup · 172 failed"


@pytest.mark.parametrize("name", ["menu", "寿司メニュー" * 5, "x" * 60, "[red]x[/red] :smile:"])
@pytest.mark.parametrize("text", ["0/3 kept · 0.0/s", COUNTS])
def test_progress_is_one_line_whose_name_gives_way_to_the_numbers(name: str, text: str) -> None:
    shown = line(name, 7, 3, text)
    assert cell_len(shown) <= 80
    assert "\n" not in shown
    assert text in shown or shown.rstrip().endswith("…")
    assert shown.startswith((name[:1], " …"))


def test_progress_on_a_terminal_changes_while_the_block_runs() -> None:
    done = 0
    with terminal() as read:
        with console.progress("寿司", 3, status=lambda: (done, f"{done}/3 kept")):
            for _ in range(3):
                done += 1
                time.sleep(0.3)
        with console.progress("fetching [menus]", 2) as advance:
            advance(2)
        seen = read()
    assert "寿司" in seen
    assert seen.rindex("3/3 kept") > seen.index("1/3 kept")
    assert "fetching [menus]" in seen
    assert "2 of 2, 0 s" in seen


@pytest.mark.parametrize("screen", [contextlib.nullcontext, terminal])
def test_an_error_in_the_block_of_progress_comes_through(
    screen: Callable[[], contextlib.AbstractContextManager[object]],
) -> None:
    before = set(threading.enumerate())
    with screen(), pytest.raises(KeyboardInterrupt), console.progress("reading", 3):
        raise KeyboardInterrupt
    for thread in set(threading.enumerate()) - before:
        thread.join(2.0)
        assert not thread.is_alive()
