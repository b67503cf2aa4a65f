"""The script from end to end: options, exit codes, what it prints, and how it stops."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_bing import FakeBing, draw, later, send

import bing_downloader
from classifier import console, images
from classifier.errors import UsageError

SCRIPT = Path(bing_downloader.__file__)
Start = Callable[..., int]


@pytest.fixture
def start(
    bing: FakeBing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _closed_logs: None
) -> Start:
    """Give a function that runs the script against the fake Bing, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BING_BASE_URL", bing.url)

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as caught:
            console.run_script(bing_downloader.main, ["--allow-private-hosts", *arguments])
        return int(caught.value.code or 0)

    return run


def pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def test_filled_folder_exits_0_with_a_table(
    bing: FakeBing, start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bing.add_pictures(3)
    bing.add("/dead.jpg", send(b"", 404))
    bing.add("/same.jpg", draw(0))
    bing.add("/3.jpg", draw(3))
    assert start("-s", "red panda", "-o", "out", "--limit", "4", "--threads", "1") == 0
    assert len(pictures_in(tmp_path / "out")) == 4
    out = capsys.readouterr().out
    rows = {line.rpartition(" ")[0].strip(): line.split()[-1] for line in out.splitlines() if line}
    assert (rows["kept"], rows["duplicates"], rows["failed: http status 404"]) == ("4", "1", "1")
    assert out.endswith("4 pictures in out; 1 of 1 searches filled to 4.\n")


def test_search_string_goes_out_as_typed_with_the_filters(bing: FakeBing, start: Start) -> None:
    bing.find_nothing()
    assert start("-s", "crème & co", "--adult-filter-off", "--filters", "+filterui:a") == 3
    page = bing.page_requests[0]
    assert (page["q"], page["adlt"], page["qft"]) == ("crème & co", "off", "+filterui:a")


def test_adult_filter_is_moderate_by_default(bing: FakeBing, start: Start) -> None:
    bing.find_nothing()
    start("-s", "x")
    assert bing.page_requests[0]["adlt"] == "moderate"


def test_search_file_fills_a_folder_for_each_line(
    bing: FakeBing, start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "queries.txt").write_text("\ufeffred panda\n\n a/b \n寿司\n", encoding="utf-8")
    bing.add_pictures(2)
    assert start("-f", "queries.txt", "-o", "out", "--limit", "2") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a_b",
        "red panda",
        "寿司",
    ]
    assert all(len(pictures_in(path)) == 2 for path in (tmp_path / "out").iterdir())
    assert "6 pictures in out; 3 of 3 searches" in capsys.readouterr().out


def test_blocked_query_does_not_stop_the_others(
    bing: FakeBing, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "queries.txt").write_text("a\nb\nc\n")
    bing.add_pictures(2)
    bing.search_answer_of["b"] = send(b"captcha")
    assert start("-f", "queries.txt", "--limit", "2") == 4
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["a", "c"]


def test_exhausted_results_exit_3(bing: FakeBing, start: Start) -> None:
    bing.add_pictures(2)
    assert start("-s", "x", "--limit", "5") == 3


def test_captcha_exits_4_and_says_what_to_do(
    bing: FakeBing, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    bing.ask_for_captcha()
    assert start("-s", "x", "--quiet") == 4
    shown = capsys.readouterr()
    assert "Wait some hours" in shown.err
    assert shown.out == ""


def test_changed_markup_exits_5_and_keeps_the_page(
    bing: FakeBing, start: Start, tmp_path: Path
) -> None:
    bing.change_markup()
    assert start("-s", "x") == 5
    (page,) = (tmp_path / "log").glob("*-page-0.html")
    assert "newGrid" in page.read_text()


def test_nobody_listening_exits_6(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeBing() as gone:
        pass
    assert start("-s", "x", "--base-url", gone.url) == 6
    assert "cannot be reached" in capsys.readouterr().err


def test_json_is_one_object_and_nothing_else(
    bing: FakeBing, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    bing.add_pictures(2)
    bing.add("/a.jpg", b"<html>")
    assert start("-s", "x", "--limit", "3", "--json", "-o", "out") == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["kept"], found["failed"], found["exit_code"]) == (2, {"not a picture": 1}, 3)
    assert found["queries"][0]["folder"] == "out"


def test_min_side_is_kept_to(bing: FakeBing, start: Start, tmp_path: Path) -> None:
    bing.add("/small.jpg", draw(0, size=(200, 99)))
    bing.add("/large.jpg", draw(1, size=(200, 100)))
    assert start("-s", "x", "--min-side", "100", "--limit", "2", "-o", "out") == 3
    assert [images.decode(path).height for path in pictures_in(tmp_path / "out")] == [100]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-s", "x", "-f", "y"],
        ["-s", " "],
        ["-f", "missing.txt"],
        ["-f", "empty.txt"],
        ["-s", "x", "--limit", "0"],
        ["-s", "x", "--limit", "-5"],
        ["-s", "x", "--threads", "129"],
        ["-s", "x", "--min-side", "1.5"],
        ["-s", "x", "--base-url", "bing"],
        ["-s", "x", "--adult-filter-on", "--adult-filter-off"],
    ],
)
def test_wrong_usage_exits_2_without_a_request(
    bing: FakeBing, start: Start, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    assert start(*arguments) == UsageError.exit_code == 2
    assert bing.requests == []


def test_help_is_quick_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "import bing_downloader\n"
        "try: bing_downloader.main(['--help'])\n"
        "finally: print(*{'numpy', 'PIL', 'requests', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        seconds.append(time.monotonic() - start)
    assert "--search-string" in done.stdout
    assert done.stderr.strip() == ""
    assert min(seconds) < 1.5  # 0.1 s on a quiet machine
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_stops_soon_with_nothing_half_written(bing: FakeBing, tmp_path: Path) -> None:
    bing.add_pictures(5)
    for number in range(5, 40):
        bing.add(f"/{number}.jpg", later(send(draw(number)), 15.0))
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "-s", "x", "-o", "out", "--allow-private-hosts", "--threads", "8"],
        cwd=tmp_path,
        env={**os.environ, "BING_BASE_URL": bing.url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        end = time.monotonic() + 20
        while len(bing.picture_requests) < 13 and time.monotonic() < end:
            time.sleep(0.02)
        stop = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert time.monotonic() - stop < 8.0
    assert (process.returncode, errors.splitlines()[-1]) == (130, "interrupted")
    assert list((tmp_path / "out").glob(".partial-*")) == []
    kept = pictures_in(tmp_path / "out")
    assert len(kept) == 5
    for path in kept:
        images.decode(path)
