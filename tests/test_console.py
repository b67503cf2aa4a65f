import logging
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from imagesieve import console

REPOSITORY = Path(__file__).resolve().parents[1]

SCRIPT = """
import os, signal, sys, time
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


def run(script: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=script.parent,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "lines"),
    [
        ([], 0, ""),
        (["--do", "partly"], 1, ""),
        (["--do", "fail"], 1, "error: There are no images in data/train.\n"),
        (
            ["--do", "eat"],
            1,
            "error: Not enough memory: use a smaller --batch-size or --image-size.\n",
        ),
    ],
)
def test_an_error_of_ours_is_one_line_and_the_exit_code(
    script: Path, arguments: list[str], code: int, lines: str
) -> None:
    done = run(script, *arguments)
    assert (done.returncode, done.stderr, done.stdout) == (code, lines, "")


@pytest.mark.parametrize(
    "arguments",
    [["--nubmer", "1"], ["--number", "one"], ["--num", "1"], ["extra"], ["--number"]],
)
def test_a_usage_error_is_one_line_that_points_to_the_help(
    script: Path, arguments: list[str]
) -> None:
    done = run(script, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith("(see: do.py --help)\n")
    assert done.stderr.count("\n") == 1


def test_help_goes_to_standard_output_with_the_examples_as_written(script: Path) -> None:
    done = run(script, "--help")
    assert done.returncode == 0
    assert "examples:\n  do.py --number 1\n" in done.stdout
    assert "--quiet" in done.stdout
    assert done.stderr == ""


def test_ctrl_c_is_one_line_and_130(script: Path) -> None:
    with subprocess.Popen(
        [sys.executable, str(script), "--do", "wait"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == "waiting\n"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=10)
    assert (child.returncode, err) == (130, "interrupted\n")


def test_a_termination_still_tidies_up(script: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(script), "--do", "wait"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "waiting\n"
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == ("tidied up\n", "", 143)


@pytest.mark.parametrize("arguments", [["--do", "print"], ["--help"]])
def test_a_closed_pipe_is_quiet(script: Path, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (0, 128 + signal.SIGPIPE)


def test_a_closed_standard_output_is_no_error(script: Path) -> None:
    command = f"{sys.executable} {script} --do print >&-"
    done = subprocess.run(
        command, shell=True, env=environment(), stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unexpected_error_names_the_log_file_that_has_the_traceback(script: Path) -> None:
    done = run(script, "--do", "log, then break")
    (log,) = (script.parent / "log").iterdir()
    assert done.returncode == 1
    assert done.stderr == (
        "error: Unexpected RuntimeError: a bug in two lines\n"
        f"This is a bug; the details are in log/{log.name}.\n"
    )
    assert log.read_text().count("Traceback (most recent call last)") == 1


def test_without_a_log_file_the_traceback_is_shown_once(script: Path) -> None:
    done = run(script, "--do", "break")
    assert done.returncode == 1
    assert done.stderr.startswith("error: Unexpected RuntimeError: a bug in two lines\n")
    assert done.stderr.count("Traceback (most recent call last)") == 1


def test_a_table_aligns_numbers_to_the_right() -> None:
    assert console.table(["class", "images"], [["menu", 7], ["not-menu", 1200]]).split("\n") == [
        "class      images",
        "───────────────────",
        "menu              7",
        "not-menu       1200",
    ]


def test_a_table_shows_cells_as_they_stand() -> None:
    cells = ["[red]apples", "[/red]", ":smile:", "[link=x]y", "\\[a]"]
    text = console.table(["class", "n"], [[cell, 1] for cell in cells])
    assert [line.split()[0] for line in text.splitlines()[2:]] == cells


def test_a_table_in_a_pipe_is_not_cut_at_80_columns() -> None:
    path = "data/train/menu/" + "x" * 120
    assert path in console.table(["path", "why"], [[path, "damaged"]])


def test_progress_without_a_terminal_is_a_line_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with (
        caplog.at_level(logging.INFO, "imagesieve"),
        console.progress("reading", 100) as known,
        console.progress("searching", None) as unknown,
    ):
        for _ in range(50):
            known(2)
            unknown(1)
            now += 0.5
    assert caplog.messages == [
        "reading: 42 of 100, 10 s",
        "searching: 21, 10 s",
        "reading: 82 of 100, 20 s",
        "searching: 41, 20 s",
    ]


def test_quiet_progress_says_nothing(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), console.progress("reading", 1, quiet=True) as advance:
        advance(1)
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_is_a_bar_with_the_text_as_it_stands() -> None:
    code = (
        "from imagesieve import console\n"
        "with console.progress('fetching [menus]', 2) as advance: advance(2)"
    )
    terminal, end = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=env,
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
        check=True,
    )
    os.close(end)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert "fetching [menus]" in shown
    assert "2/2" in shown
    assert done.stdout == ""
