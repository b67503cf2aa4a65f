"""`predictWithMyModel.py` from the command line and from an importing program."""

import base64
import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from painted import COLOURS, encode, paint

import predictWithMyModel
from imagesieve.errors import DataError, OutputError, UnreadableImageError, UsageError
from imagesieve.prediction import files

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name, colour in COLOURS.items():
        (folder / f"{name}.jpg").write_bytes(encode(paint(colour)))
    (folder / "deep" / "red.jpg").write_bytes(encode(paint(COLOURS["red"], seed=1)))
    (folder / "broken.jpg").write_bytes(encode(paint(COLOURS["red"]))[:300])
    (folder / ".hidden.jpg").write_bytes(b"no image")
    return folder


Run = Callable[..., tuple[list[str], str]]


@pytest.fixture
def run(
    version_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    _loggers_restored: None,
) -> Run:
    """Return a function that predicts, successfully, and returns lines of output, and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[list[str], str]:
        assert predictWithMyModel.main(["--model", str(version_path), *map(str, arguments)]) == 0
        printed = capsys.readouterr()
        return printed.out.splitlines(), printed.err

    return run


def test_json_lines_keep_the_order_given_and_name_what_failed(run: Run, images: Path) -> None:
    paths = [images / name for name in ("red.jpg", "broken.jpg", "blue.jpg", "none.jpg")]
    out, _ = run("--json", *paths)
    lines = [json.loads(line) for line in out]
    assert [line["path"] for line in lines] == [str(path) for path in paths]
    assert [line.get("label") for line in lines] == ["red", None, "blue", None]
    errors = [line["error"]["type"] for line in lines if "error" in line]
    assert errors == ["truncated-image", "unreadable-file"]
    assert list(lines[0]) == ["path", "label", "probability", "probabilities", "decision"]
    assert sum(lines[0]["probabilities"].values()) == pytest.approx(1)


def test_a_folder_is_read_at_any_depth_and_csv_holds_a_row_for_every_image(
    run: Run, images: Path
) -> None:
    out, err = run("--csv", "out/answers.csv", images)
    assert len(out) == 5
    assert not any("hidden" in line for line in out)
    assert "5 images: 1 blue, 1 green, 2 red, 1 unusable" in err
    with open("out/answers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [Path(row["path"]).name for row in rows]
    assert names == ["blue.jpg", "broken.jpg", "red.jpg", "green.jpg", "red.jpg"]
    assert rows[0]["label"] == rows[0]["decision"] == "blue"
    assert float(rows[0]["blue"]) == float(rows[0]["probability"]) > 0.5
    assert rows[1]["error"].startswith("truncated-image")
    assert list(Path("out").iterdir()) == [Path("out/answers.csv")]


def test_sort_into_copies_by_decision_and_overwrites_nothing(run: Run, images: Path) -> None:
    out = Path("out")
    (out / "blue/blue.jpg").mkdir(parents=True)  # a folder of that name
    for _ in range(2):  # a second run adds nothing
        run("--sort-into", "out", images)
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert found == ["blue/blue-2.jpg", "green/green.jpg", "red/red-2.jpg", "red/red.jpg"]
    assert (out / "blue/blue-2.jpg").read_bytes() == (images / "blue.jpg").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sort-into", "in/sorted"), "lies inside the input"),
        (("--csv", "in"), "--csv in is not a file: choose another name"),
        (("--csv", "pipe"), "--csv pipe is not a file: choose another name"),
    ],
)
def test_a_place_that_results_cannot_go_to_is_refused_and_stays(
    run: Run, images: Path, options: tuple[str, str], message: str
) -> None:
    os.mkfifo("pipe")  # like /dev/null, which a failing test must not replace
    before = sorted(images.rglob("*"))
    with pytest.raises(UsageError, match=message):
        run(*options, images)
    assert sorted(images.rglob("*")) == before
    assert not list(Path().glob(".partial-*"))
    assert Path("pipe").is_fifo()


def test_an_unsure_answer_is_the_fallback_class(run: Run, images: Path) -> None:
    policy = ["--decision", "confident", "--min-confidence", "0.999", "--fallback-class", "unsure"]
    ((line,), _) = run("--json", *policy, images / "red.jpg")
    answer = json.loads(line)
    assert (answer["label"], answer["decision"]) == ("red", "unsure")


SCRIPT = PROJECT / "predictWithMyModel.py"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("in/broken.jpg", "1 unusable"),
        ("--model nowhere in", r"error: There is no model at nowhere: train one with .*\.py\.\n"),
        ("- <&-", r"error: No image was found in -\.\n"),  # a closed standard input holds none
    ],
)
def test_it_fails_only_if_no_image_could_be_used(
    version_path: Path, images: Path, tmp_path: Path, arguments: str, message: str
) -> None:
    command = f"'{sys.executable}' '{SCRIPT}' --model '{version_path}' {arguments}"
    result = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 1
    assert re.search(message, result.stderr), result.stderr


@pytest.fixture
def installed(version_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder where importing programs find it."""
    folder = tmp_path / "modelFile"
    shutil.copytree(version_path.parent, folder)
    monkeypatch.setattr(predictWithMyModel, "MODEL_FOLDER", folder)
    predictWithMyModel._predictor.cache_clear()
    return folder


def test_the_functions_give_class_and_probability_or_code_and_message(
    installed: Path, images: Path
) -> None:
    class_name, probability = predictWithMyModel.predictWithImagePath(images / "green.jpg")
    assert class_name == "green"
    assert 0.5 < probability <= 1
    text = base64.b64encode((images / "blue.jpg").read_bytes()).decode()
    for form in (text, f"data:image/jpeg;base64,{text}"):
        code, message, class_name, probability = predictWithMyModel.predictWithImageBase64(form)
        assert (code, message, class_name) == ("00", "图片检测成功，类别是：blue", "blue")
        assert probability > 0.5


def test_the_base64_function_answers_98_instead_of_raising(installed: Path) -> None:
    assert predictWithMyModel.predictWithImageBase64("") == ("98", "缺少必要传入参数", "", 0.0)
    code, message, class_name, probability = predictWithMyModel.predictWithImageBase64("!!!")
    assert (code, class_name, probability) == ("98", "", 0.0)
    assert message.startswith("图片检测失败，原因是：")


ODD_NAMES = (
    b"no\xff\xfeutf8.jpg",
    "菜单 😀.jpg".encode(),
    b"new\nline.jpg",
    b"-dash.jpg",
    b"q\"uo'te.jpg",
)


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_any_file_name_is_read_answered_and_written(
    version_path: Path, tmp_path: Path, encoding: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ODD_NAMES:
        (folder / os.fsdecode(name)).write_bytes(encode(paint(COLOURS["red"])))
    listed = b"\n" + b"".join(b"in/" + name + b"\r\n" for name in ODD_NAMES if b"\n" not in name)
    command = [sys.executable, str(SCRIPT), "--model", str(version_path)]
    for options in (["--json", "--csv", "answers.csv", "--sort-into", "out"], []):
        result = subprocess.run(
            [*command, *options, "in", "-"],
            cwd=tmp_path,
            capture_output=True,
            input=listed,
            check=False,
            timeout=120,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == b"9 images: 9 red\n"
        if options:  # every line is JSON in valid UTF-8, and gives the very name back
            answers = [json.loads(line.decode()) for line in result.stdout.splitlines()]
            paths = {os.fsencode(answer["path"]).removeprefix(b"in/") for answer in answers}
            assert paths == set(ODD_NAMES)
    assert {os.fsencode(path.name) for path in (tmp_path / "out/red").iterdir()} == set(ODD_NAMES)
    with open(tmp_path / "answers.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) == 10


@pytest.mark.parametrize(
    ("path", "options", "error"),
    [("in", ("--sort-into", "in/sorted"), UsageError), ("empty", (), DataError)],
)
def test_an_old_csv_stays_where_nothing_was_predicted(
    run: Run, images: Path, path: str, options: tuple[str, ...], error: type[Exception]
) -> None:
    Path("empty").mkdir()
    Path("answers.csv").write_text("path\nold.jpg\n")
    with pytest.raises(error):
        run("--csv", "answers.csv", *options, path)
    assert Path("answers.csv").read_text() == "path\nold.jpg\n"
    assert not list(Path().glob(".partial-*"))


def test_an_image_that_went_before_it_was_copied_stops_no_other(
    run: Run, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_bytes = Path.read_bytes

    def read_but_one(path: Path) -> bytes:
        if path == Path("in/blue.jpg"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return read_bytes(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", read_but_one)
        _, err = run("--sort-into", "out", "in")
    assert {path.name for path in Path("out").glob("*/*")} == {"green.jpg", "red.jpg", "red-2.jpg"}
    assert "in/blue.jpg is not copied, for it cannot be read: No such file" in err


def test_a_csv_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    unfinished = files.csv_file(path, ["a", "b"])
    unfinished.__enter__()("image.jpg", UnreadableImageError("it is not there"))
    path.mkdir()
    with pytest.raises(OutputError, match="Cannot write"):
        unfinished.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == [path]
