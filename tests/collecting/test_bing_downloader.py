"""The script from end to end: options, exit codes, what it prints, and how it stops."""

import collections
import csv
import io
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_bing import CAPTCHA, CHANGED, FakeBing, draw, page_of
from filling import images_in
from painted import encode
from PIL import Image
from web_host import later, send

import bing_downloader
from imagesieve import images
from imagesieve.errors import UsageError
from imagesieve.images import fingerprints

SCRIPT = Path(bing_downloader.__file__)
Start = Callable[..., int]
Capsys = pytest.CaptureFixture[str]


def test_filled_folder_exits_0_with_a_table(
    bing: FakeBing, start: Start, tmp_path: Path, capsys: Capsys
) -> None:
    bing.add_images(3)
    bing.add("/dead.jpg", send(b"", 404))
    bing.add("/same.jpg", draw(0))
    bing.add("/small.jpg", draw(9, size=(200, 79)))
    bing.add("/3.jpg", draw(3))
    options = ("--limit", "4", "--threads", "1", "--min-side", "80")
    assert start("-s", "red panda", "-o", "out", *options) == 0
    assert {images.decode(path).height for path in images_in(tmp_path / "out")} == {80}
    out = capsys.readouterr().out
    rows = {line.rpartition(" ")[0].strip(): line.split()[-1] for line in out.splitlines() if line}
    assert (rows["kept"], rows["duplicates"], rows["failed: http status 404"]) == ("4", "1", "1")
    assert rows["failed: too small"] == "1"
    assert out.endswith("4 images in out; 1 of 1 filled.\n")


def test_search_file_fills_a_folder_for_each_line(
    bing: FakeBing, start: Start, tmp_path: Path, capsys: Capsys
) -> None:
    (tmp_path / "queries.txt").write_text("\ufeffred panda\n\n a/b \n寿司\n", encoding="utf-8")
    bing.add_images(2)
    assert start("-f", "queries.txt", "-o", "out", "--limit", "2") == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a_b", "red_panda", "寿司"]
    assert all(len(images_in(path)) == 2 for path in (tmp_path / "out").iterdir())
    shown = capsys.readouterr()
    assert "6 images in 3 folders; 3 of 3 filled." in shown.out
    assert "are in other classes too" in shown.err


def test_blocked_query_does_not_stop_the_others(
    bing: FakeBing, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "queries.txt").write_text("a\nb\nc\n")
    bing.add_images(2)
    bing.search_answer_of["b"] = send(b"captcha")
    assert start("-f", "queries.txt", "--limit", "2") == 4
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["a", "c"]


def test_captcha_exits_4_and_says_what_to_do(bing: FakeBing, start: Start, capsys: Capsys) -> None:
    bing.show(CAPTCHA)
    options = ("--adult-filter-off", "--filters", "+filterui:a")
    assert start("-s", "crème & co", "--quiet", *options) == 4
    page = bing.page_requests[0]
    assert (page["q"], page["adlt"], page["qft"]) == ("crème & co", "off", "+filterui:a")
    shown = capsys.readouterr()
    assert "Wait some hours" in shown.err
    assert shown.out == ""


def test_other_failures_of_the_search_exit_5_and_6(
    bing: FakeBing, start: Start, tmp_path: Path, capsys: Capsys
) -> None:
    bing.show(CHANGED)
    assert start("-s", "x") == 5
    (page,) = (tmp_path / "log").glob("*-page-0.html")  # which shows what is new
    assert "newGrid" in page.read_text()
    with FakeBing() as gone:
        pass
    assert start("-s", "x", "--base-url", gone.url) == 6
    assert "cannot be reached" in capsys.readouterr().err


def test_json_is_one_object_and_nothing_else(bing: FakeBing, start: Start, capsys: Capsys) -> None:
    bing.add_images(2)
    bing.add("/a.jpg", b"<html>")
    assert start("-s", "x", "--limit", "3", "--json", "-o", "out") == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["kept"], found["failed"], found["exit_code"]) == (2, {"not an image": 1}, 3)
    assert found["classes"][0]["folders"] == [{"path": "out", "limit": 3}]


USELESS_VALUES = {
    "--limit": ("0", "-5"),
    "--threads": ("129",),
    "--min-side": ("1.5",),
    "--base-url": ("bing", "", "http://127.0.0.1:99999", "http://127.0.0.1/?a=b"),
    "--safe-search": ("none",),
    "--size": ("huge",),
    "--market": ("english",),
    "--validation-fraction": ("1",),
    "--timeout": ("0", "nan"),
    "--host-interval": ("-1", "1e10"),
    "--page-interval": ("-1",),
    "--format": ("tiff",),
    "--page-file": ("missing",),
    "-f": ("y",),
    "-o": ("",),
}
WRONG = (
    *([], ["-s", " "], ["-f", "missing.txt"], ["-f", "empty.txt"], ["--plan", "missing.toml"]),
    ["-s", "x", "--adult-filter-on", "--adult-filter-off"],
    ["-s", "x", "--adult-filter-on", "--safe-search", "off"],
    ["-s", "x", "--validation-fraction", "0.2", "--limit", "1"],
    ["-s", "x", "--min-side", "100", "--max-side", "99"],
    ["-f", "queries.txt", "--page-file", "missing"],
    ["--plan", "plan.toml", "--limit", "5"],
    ["--plan", "plan.toml", "--size", "large"],
    ["--plan", "plan.toml", "--validation-fraction", "0.2"],
    ["--export", "xml"],
    ["--export", "csv", "-o", "missing"],
    ["--verify", "-o", "missing"],
    ["--verify", "--export", "csv"],
    ["--export", "csv", "--json", "-o", "."],
    *(["-s", "x", name, value] for name in USELESS_VALUES for value in USELESS_VALUES[name]),
)


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_usage_exits_2_without_a_request(
    bing: FakeBing, start: Start, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "queries.txt").write_text("a\nb\n")
    (tmp_path / "plan.toml").write_text('[class.a]\nqueries = ["a"]\n')
    assert start(*arguments) == UsageError.exit_code == 2
    assert bing.requests == []


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", SCRIPT, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"(\w+)$", done.stderr, re.MULTILINE))
    assert "argparse" in loaded  # the list was understood
    assert not loaded & {"numpy", "PIL", "urllib3", "protego", "rich"}


def run_apart(bing: FakeBing, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the script as a process of its own."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, "--allow-private-hosts", *arguments],
        cwd=folder,
        env={**os.environ, "BING_BASE_URL": bing.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(is_reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_reached() and time.monotonic() < end:
        time.sleep(0.01)
    assert is_reached()


def test_ctrl_c_stops_soon_with_nothing_half_written(bing: FakeBing, tmp_path: Path) -> None:
    bing.add_images(5)
    for number in range(5, 40):
        bing.add(f"/{number}.jpg", later(send(draw(number)), 15.0), host=number)
    with run_apart(bing, tmp_path, "-s", "x", "-o", "out", "--threads", "8") as process:
        wait_for(lambda: len(bing.image_requests) >= 13)
        stop = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
    assert time.monotonic() - stop < 4.0  # 0.3 s on a quiet machine
    assert (process.returncode, errors.splitlines()[-1]) == (130, "interrupted")
    assert "5 images in out; 0 of 1 filled." in out
    check_that_all_are_whole(tmp_path / "out", 5)


def test_killed_runs_resume_exactly(bing: FakeBing, start: Start, tmp_path: Path) -> None:
    dice, out = random.Random(0), tmp_path / "out"
    path_of = {draw(number): f"/{number}.jpg" for number in range(150)}
    for number, (data, path) in enumerate(path_of.items()):
        bing.add(path, later(send(data), 0.03), host=1 + number % 20)
    for _ in range(4):
        already = {path_of[path.read_bytes()] for path in out.glob("*.jpg")}
        num_requests = len(bing.image_requests)
        with run_apart(bing, tmp_path, "-s", "x", "-o", "out", "--limit", "120") as process:
            least = num_requests + dice.randrange(5, 30)
            wait_for(lambda least=least: len(bing.image_requests) >= least)
            process.kill()
            process.communicate()
        assert not already & set(bing.image_requests[num_requests:])
    already = {path_of[path.read_bytes()] for path in out.glob("*.jpg")}
    num_requests = len(bing.image_requests)
    assert start("-s", "x", "-o", "out", "--limit", "120") == 0
    assert not already & set(bing.image_requests[num_requests:])
    check_that_all_are_whole(out, 120)


def check_that_all_are_whole(folder: Path, count: int) -> None:
    kept = images_in(folder)
    assert len({images.decode(path).sha256 for path in kept}) == len(kept) == count
    assert list(folder.glob(".partial-*")) == []


def test_dry_run_prints_urls_and_requests_no_image(
    bing: FakeBing, start: Start, tmp_path: Path, capsys: Capsys
) -> None:
    bing.add_images(50)
    assert start("-s", "x", "--dry-run", "--limit", "40") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t") for line in lines] == [["x", i["murl"]] for i in bing.items[:40]]
    assert start("-s", "x", "--dry-run", "--json", "--limit", "2") == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [fields["url"] for fields in objects] == [i["murl"] for i in bing.items[:2]]
    assert bing.image_requests == []
    assert not (tmp_path / "data").exists()


def test_export_and_verify_show_what_was_downloaded(
    bing: FakeBing, start: Start, tmp_path: Path, capsys: Capsys
) -> None:
    bing.add_images(3)
    bing.add("/dead.jpg", send(b"", 404))
    start("-s", "x", "-o", "out", "--limit", "4")
    capsys.readouterr()
    assert start("--export", "urls", "-o", "out") == 0
    urls = capsys.readouterr().out.split()
    assert sorted(urls) == sorted(fields["murl"] for fields in bing.items[:3])
    assert start("--export", "csv", "-o", "out") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert collections.Counter(row["status"] for row in rows) == {"kept": 3, "failed": 1}
    assert start("--verify", "-o", "out") == 0
    victim = images_in(tmp_path / "out")[0]
    victim.write_bytes(victim.read_bytes()[:-7])
    capsys.readouterr()
    assert start("--verify", "-o", "out", "--json") == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["path"] == f"out/{victim.name}"
    assert start("-s", "x", "-o", "out", "--limit", "3") == 0
    assert start("--verify", "-o", "out") == 0


def test_saved_pages_stand_in_for_bing(bing: FakeBing, start: Start, tmp_path: Path) -> None:
    bing.add_images(6)
    (tmp_path / "saved.html").write_text(page_of(bing.items))
    for limit in ("3", "5"):  # the current folder can be filled again
        assert start("-s", "x", "-o", ".", "--limit", limit, "--page-file", "saved.html") == 0
        assert len(list(tmp_path.glob("*.jpg"))) == int(limit)
    assert bing.page_requests == []


def test_the_first_generations_history_is_taken_over(
    bing: FakeBing, start: Start, tmp_path: Path
) -> None:
    bing.add_images(3)
    (tmp_path / "out").mkdir()
    tried = [bing.items[0]["murl"], bing.items[1]["murl"]]
    history = pickle.dumps(tried) + pickle.dumps({"0" * 32: "cat.jpg"})
    (tmp_path / "out" / "download_history.pickle").write_bytes(history)
    assert start("-s", "x", "-o", "out", "--limit", "3") == 3
    assert bing.image_requests == ["/2.jpg"]
    assert start("-s", "x", "-o", "out", "--limit", "3", "--retry-failed") == 0


def test_a_place_that_cannot_be_written_to_is_named(
    bing: FakeBing, start: Start, capsys: Capsys
) -> None:
    bing.add_images(3)
    assert start("-s", "x", "-o", "/proc/nowhere", "--limit", "3") == 1
    assert "Cannot write /proc/nowhere" in capsys.readouterr().err


def run_between(
    bing: FakeBing, folder: Path, before: str, after: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the script in a process of its own, which runs other code before and after it."""
    code = (
        f"import sys; {before}\n"
        f"sys.argv[0] = {str(SCRIPT)!r}; sys.path[0] = {str(SCRIPT.parent)!r}\n"
        "import runpy\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        f"finally: {after}"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "--allow-private-hosts", "-s", "x", "-o", "out", *arguments],
        cwd=folder,
        env={**os.environ, "BING_BASE_URL": bing.url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_disk_that_fills_up_ends_the_run_with_one_sentence(
    bing: FakeBing, tmp_path: Path
) -> None:
    for number in range(5):
        bing.add(f"/{number}.bmp", draw(number, "BMP", size=(200, 200)))  # 120 kB
    small = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))"
    done = run_between(bing, tmp_path, small, "pass", "--limit", "5")
    assert done.returncode == 1
    assert "error: Cannot write out/" in done.stderr
    assert "Traceback" not in done.stderr
    check_that_all_are_whole(tmp_path / "out", 0)


def test_the_time_limit_holds_while_a_result_page_is_awaited(
    bing: FakeBing, start: Start, capsys: Capsys
) -> None:
    bing.search_answer = later(send(b""), 20.0)
    begin = time.monotonic()
    assert start("-s", "x", "--time-limit", "0.5") == 3
    assert time.monotonic() - begin < 5.0
    assert "the time is over" in capsys.readouterr().err


def test_an_interrupted_plan_sums_up_every_class(bing: FakeBing, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        'limit = 2\n[class.a]\nqueries = ["a"]\n[class.b]\nqueries = ["b"]\n'
    )
    bing.add("/a.jpg", later(send(draw(0)), 15.0))
    with run_apart(bing, tmp_path, "--plan", "plan.toml", "--json") as process:
        wait_for(lambda: bool(bing.image_requests))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    summary = json.loads(out)
    assert process.returncode == summary["exit_code"] == 130
    assert [fields["class"] for fields in summary["classes"]] == ["a", "b"]


def test_closed_streams_are_no_bug(bing: FakeBing, tmp_path: Path) -> None:
    bing.add_images(2)
    command = f"{sys.executable} {SCRIPT} --allow-private-hosts -s x --limit 2 -o out --base-url"
    for streams in (">&- 2>&-", "--json 2>&-"):
        line = f"{command} {bing.url} {streams}"
        done = subprocess.run(
            line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), streams
    assert json.loads(done.stdout)["kept"] == 0


def test_large_bodies_are_few_in_memory(bing: FakeBing, tmp_path: Path) -> None:
    large = draw(0) + bytes(12 * 2**20)
    for number in range(24):
        bing.add(f"/{number}.jpg", large, host=1 + number)
    # Not `ru_maxrss`, which begins with the size of the process that started this one.
    peak_of = "print(open('/proc/self/status').read(), file=sys.stderr)"
    done = run_between(bing, tmp_path, "pass", peak_of, "--limit", "24", "--quiet")
    assert done.returncode == 3
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", done.stderr, flags=re.MULTILINE)
    assert int(peak) < 200 * 1024  # 24 of 12 MB would be 300 MB alone


def copy_of(number: int) -> bytes:
    """Return the image that `draw(number)` draws in another encoding."""
    return encode(Image.open(io.BytesIO(draw(number))), "PNG")


PLAN = """
output = "data"
type = "photo"
train_limit = 30
validation_limit = 21

[class.menu]
queries = ["restaurant menu", "menu board"]
validation_queries = ["cafe menu"]

[class.not-menu]
queries = ["food", "restaurant interior"]
validation_queries = ["street"]
"""
QUERIES = ("restaurant menu", "menu board", "cafe menu", "food", "restaurant interior", "street")


def test_a_plan_fills_a_data_set_that_training_finds_nothing_wrong_with(
    bing: FakeBing, start: Start, tmp_path: Path
) -> None:
    for number, query in enumerate(QUERIES):
        bing.add_images(45, start=100 * number, query=query)
    # What leaks: a validation query that finds images of training again, whole and re-encoded.
    for number in range(5):
        bing.add(f"/again{number}.jpg", draw(number), query="cafe menu")
        bing.add(f"/copy{number}.png", copy_of(10 + number), query="street")
    bing.items_of["cafe menu"].reverse()
    bing.items_of["street"].reverse()
    (tmp_path / "plan.toml").write_text(PLAN)

    assert start("--plan", "plan.toml") == 0
    counts = {
        folder.relative_to(tmp_path / "data").as_posix(): len(images_in(folder))
        for folder in (tmp_path / "data").glob("*/*")
    }
    names = ("train/menu", "train/not-menu", "validation/menu", "validation/not-menu")
    assert counts == dict(zip(names, (30, 30, 21, 21), strict=True))
    assert {page["qft"] for page in bing.page_requests} == {"+filterui:photo-photo"}

    training = SCRIPT.with_name("trainMyDataWithKerasModel.py")
    command = [sys.executable, training, "--data", "data", "--check-only"]
    check = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr
    assert "nothing wrong was found" in check.stdout + check.stderr

    bing.requests.clear()
    assert start("--plan", "plan.toml") == 0
    assert bing.requests == []


def prints_of(folder: Path) -> list[bytes]:
    size = fingerprints.CHECK_SIZE
    return [
        fingerprints.fingerprint(images.decode(path, image_size=size).pixels)
        for path in images_in(folder)
    ]


def test_a_fraction_splits_and_a_rerun_moves_nothing(
    bing: FakeBing, start: Start, tmp_path: Path
) -> None:
    for number in range(60):
        bing.add(f"/{number}.jpg", draw(number), host=1 + number % 20)
        if number % 3 == 0:
            bing.add(f"/{number}.png", copy_of(number), host=1 + number % 20)
    arguments = ("-s", "red panda", "-o", "data", "--validation-fraction", "0.25", "--limit")
    assert start(*arguments, "40") == 0
    train, validation = (
        tmp_path / "data" / split / "red_panda" for split in ("train", "validation")
    )
    before = {path: path.read_bytes() for path in (*images_in(train), *images_in(validation))}
    assert (len(images_in(train)), len(images_in(validation))) == (30, 10)

    assert start(*arguments, "56") == 0
    assert (len(images_in(train)), len(images_in(validation))) == (42, 14)
    assert all(path.read_bytes() == data for path, data in before.items())
    assert fingerprints.near_pairs(prints_of(train) + prints_of(validation)) == []
