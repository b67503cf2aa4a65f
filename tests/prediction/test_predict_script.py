"""`predictWithMyModel.py` from the command line and from an importing program."""

import base64
import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from painted import COLOURS, encode, paint

import predictWithMyModel
from imagesieve.errors import OutputError
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


def run(
    folder: Path, *arguments: object, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROJECT / "predictWithMyModel.py"), *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, input=given, check=False, timeout=120
    )


def test_json_lines_keep_the_order_given_and_name_what_failed(
    version_path: Path, images: Path, tmp_path: Path
) -> None:
    paths = [images / name for name in ("red.jpg", "broken.jpg", "blue.jpg", "none.jpg")]
    result = run(tmp_path, "--json", "--model", version_path, *paths)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0, result.stderr
    assert [line["path"] for line in lines] == [str(path) for path in paths]
    assert [line.get("label") for line in lines] == ["red", None, "blue", None]
    errors = [line["error"]["type"] for line in lines if "error" in line]
    assert errors == ["truncated-image", "unreadable-file"]
    assert list(lines[0]) == ["path", "label", "probability", "probabilities", "decision"]
    assert sum(lines[0]["probabilities"].values()) == pytest.approx(1)


def test_a_folder_is_read_at_any_depth_and_csv_holds_a_row_for_every_image(
    version_path: Path, images: Path, tmp_path: Path
) -> None:
    result = run(tmp_path, "--csv", "out/answers.csv", "--model", version_path, images)
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 5
    assert "hidden" not in result.stdout
    assert "5 images: 1 blue, 1 green, 2 red, 1 unusable" in result.stderr
    with open(tmp_path / "out/answers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [Path(row["path"]).name for row in rows]
    assert names == ["blue.jpg", "broken.jpg", "red.jpg", "green.jpg", "red.jpg"]
    assert rows[0]["label"] == rows[0]["decision"] == "blue"
    assert float(rows[0]["blue"]) == float(rows[0]["probability"]) > 0.5
    assert rows[1]["error"].startswith("truncated-image")
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out/answers.csv"]


def test_sort_into_copies_by_decision_and_overwrites_nothing(
    version_path: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "out/blue/blue.jpg").mkdir(parents=True)  # a folder of that name
    for _ in range(2):  # a second run adds nothing
        result = run(tmp_path, "--sort-into", "out", "--model", version_path, images)
        assert result.returncode == 0, result.stderr
    out = tmp_path / "out"
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert found == ["blue/blue-2.jpg", "green/green.jpg", "red/red-2.jpg", "red/red.jpg"]
    assert (out / "blue/blue-2.jpg").read_bytes() == (images / "blue.jpg").read_bytes()


def test_sort_into_an_input_folder_is_refused(
    version_path: Path, images: Path, tmp_path: Path
) -> None:
    target = images / "sorted"
    result = run(tmp_path, "--sort-into", target, "--model", version_path, images)
    assert result.returncode == 2
    assert "lies inside the input" in result.stderr
    assert not target.exists()


def test_an_unsure_answer_is_the_fallback_class(
    version_path: Path, images: Path, tmp_path: Path
) -> None:
    policy = ["--decision", "confident", "--min-confidence", "0.999", "--fallback-class", "unsure"]
    result = run(tmp_path, "--json", *policy, "--model", version_path, images / "red.jpg")
    answer = json.loads(result.stdout)
    assert (answer["label"], answer["decision"]) == ("red", "unsure")


def test_it_fails_only_if_no_image_could_be_used(
    version_path: Path, images: Path, tmp_path: Path
) -> None:
    assert run(tmp_path, "--model", version_path, images / "broken.jpg").returncode == 1
    missing = run(tmp_path, images)
    assert missing.returncode == 1
    assert missing.stderr == (
        "error: There is no model at modelFile: train one with trainMyDataWithKerasModel.py.\n"
    )


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
    command = [sys.executable, str(PROJECT / "predictWithMyModel.py"), "--model", str(version_path)]
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


def test_a_closed_standard_input_holds_no_image(version_path: Path, tmp_path: Path) -> None:
    script = PROJECT / "predictWithMyModel.py"
    command = f"'{sys.executable}' '{script}' - --model '{version_path}' <&-"
    result = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert (result.returncode, result.stderr) == (1, "error: No image was found in -.\n")


@pytest.mark.parametrize("name", ["in", "pipe"])
def test_a_csv_replaces_only_a_file(
    version_path: Path, images: Path, tmp_path: Path, name: str
) -> None:
    os.mkfifo(tmp_path / "pipe")  # like /dev/null, which a failing test must not replace
    result = run(tmp_path, "--csv", name, "--model", version_path, images)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: --csv {name} is not a file: choose another name.\n"
    assert (tmp_path / "pipe").is_fifo()
    assert list(tmp_path.glob(".partial-*")) == []


def test_a_csv_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    with pytest.raises(OutputError, match="Cannot write"), files.csv_file(path, ["a", "b"]):
        path.mkdir()
    assert list(tmp_path.iterdir()) == [path]
