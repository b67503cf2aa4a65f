"""The two training scripts: results, errors, interruptions, kills.

What a signal or a kill is part of runs in processes of its own, all else in this one.
"""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from data_folders import fill
from forked import Forked
from tiny_backbone import TINY

import reTrainMyDataWithKerasModel
import trainMyDataWithKerasModel
from imagesieve.console import run_script
from imagesieve.errors import ClassifierError
from imagesieve.model import versions

ROOT = Path(__file__).parents[1]
TRAIN = "trainMyDataWithKerasModel.py"
train, retrain = trainMyDataWithKerasModel.main, reTrainMyDataWithKerasModel.main
SMALL = ("--backbone", "SmallCNN", "--image-size", "48", "--epochs", "4", "--batch-size", "8")


def start(folder: Path, *arguments: str) -> Forked:
    return Forked(folder, folder / "outputs", run_script, train, arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclasses.dataclass(frozen=True)
class Place:
    """A working folder with `data/` and perhaps `modelFile/`, and what ran in it."""

    folder: Path
    result: subprocess.CompletedProcess[str]

    @property
    def models(self) -> Path:
        return self.folder / "modelFile"

    def current(self) -> versions.ModelVersion:
        return versions.load(self.models)

    def copy(self, folder: Path) -> Path:
        for name in ("data", "modelFile"):
            shutil.copytree(self.folder / name, folder / name)
        return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Train SmallCNN on 24 painted images of three colours, as a user does."""
    folder = tmp_path_factory.mktemp("trained")
    fill(folder / "data", 8)
    command = [sys.executable, str(ROOT / TRAIN), *SMALL]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    return Place(folder, done)


def test_training_makes_a_version_the_current_one_and_closes_with_a_line(trained: Place) -> None:
    assert trained.result.returncode == 0, trained.result.stderr
    (line,) = trained.result.stdout.splitlines()
    assert re.fullmatch(
        r"modelFile/model-\d{8}-\d{6}: validation accuracy [\d.]+ % "
        r"\(95 % interval [\d.]+ to [\d.]+\) on 6 images",
        line,
    )
    version = trained.current()
    assert line.startswith(f"modelFile/{version.name}:")
    assert version.manifest.classes == ("blue", "green", "red")
    assert version.manifest.settings["epochs"] == 4
    assert version.manifest.data["validation_taken_from_train"] is True
    assert (version.path / versions.REPORT).is_file()
    assert [path.name for path in trained.models.glob(".*")] == []


def test_progress_goes_to_standard_error_and_the_log_file(trained: Place) -> None:
    err = trained.result.stderr
    assert "network: epoch 4 of 4" in err
    assert "note: The class 'blue' has 6 images in train" in err
    assert "WARNING" not in err
    assert "Traceback" not in err
    logs = list((trained.folder / "log").glob("train-*.log"))
    assert any("network: epoch 4 of 4" in path.read_text() for path in logs)


@pytest.fixture
def folder(trained: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the place of the training, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return trained.copy(tmp_path)


in_this_process = pytest.mark.usefixtures("_loggers_restored")


@in_this_process
def test_check_only_trains_nothing_and_exits_0(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder / "modelFile")
    assert train(["--check-only"]) == 0
    plain = capsys.readouterr()
    assert plain.out == ""
    assert "it can be trained on" in plain.err
    assert train(["--check-only", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["classes"], value["train"]) == (["blue", "green", "red"], 18)
    assert len(value["findings"]) == 6
    assert contents(folder / "modelFile") == before


def tamper(folder: Path) -> None:
    path = versions.load(folder / "modelFile").path / versions.KERAS_MODEL
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


# Script and arguments; exit code; message; what is done to the folder before.
BAD_INPUTS: dict[str, tuple[str, int, str, Callable[[Path], object]]] = {
    "no data folder": (
        *("train", 1, "no folder data/train: put images"),
        lambda folder: shutil.rmtree(folder / "data"),
    ),
    "unknown backbone": ("train --backbone inceptionv4", 2, "mean InceptionV3", bool),
    "tiny images": ("train --image-size 8", 2, "--image-size is 8", bool),
    "layers without epochs": ("train --fine-tune-layers all", 2, "epochs: say how many", bool),
    "name": ("train --name a/b", 2, "'a/b' cannot name a folder", bool),
    "confidence": ("train --min-confidence 2", 2, "'2' is not a number from 0 to 1", bool),
    "missing weights, and no data folder": (  # which is looked for later
        *("train --backbone MobileNetV2 --weights none.h5", 1, r"none\.h5 does not exist"),
        lambda folder: shutil.rmtree(folder / "data"),
    ),
    "file in the way": (
        *("train --backbone SmallCNN --model-dir blocked/models", 1, "is a file, not a folder"),
        lambda folder: (folder / "blocked").write_text("a file"),
    ),
    "retrain, no model": (
        *("retrain", 1, "There is no model at modelFile"),
        lambda folder: shutil.rmtree(folder / "modelFile"),
    ),
    "retrain, tampered model": ("retrain", 1, r"altered: the checksum of model\.keras", tamper),
}


@in_this_process
@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_is_an_error_with_an_exit_code_and_changes_no_model(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    command, code, message, spoil = BAD_INPUTS[name]
    spoil(folder)
    script, *arguments = command.split()
    before = contents(folder / "modelFile")
    with pytest.raises(ClassifierError, match=message) as caught:
        {"train": train, "retrain": retrain}[script](arguments)
    assert caught.value.exit_code == code
    assert capsys.readouterr().out == ""
    assert contents(folder / "modelFile") == before


def test_an_error_is_the_one_line_that_closes_standard_error(tmp_path: Path) -> None:
    process = start(tmp_path, "--quiet")
    assert process.end() == 1
    assert process.stdout == ""
    assert re.fullmatch("error: There is no folder data/train: .*\n", process.stderr)


@in_this_process
def test_a_fine_tuned_network_is_saved_and_printed_as_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from imagesieve.learning.networks import backbones

    monkeypatch.setitem(backbones.BACKBONES, TINY.name, TINY)
    network = ["--backbone", TINY.name, "--weights", "random", "--image-size", "32"]
    few = ["--fine-tune-epochs", "1", "--views", "1", "--no-int8", "--json", "--quiet"]
    assert train([*network, *few]) == 0
    printed = capsys.readouterr()
    value, version = json.loads(printed.out), versions.load(folder / "modelFile")
    assert value["version"] == f"modelFile/{version.name}"
    assert value["promoted"] is True
    assert value["metrics"] == version.manifest.metrics
    assert (version.manifest.backbone, version.manifest.image_size) == (TINY.name, (32, 32))
    assert version.manifest.engines["openvino-f32"]["passed"] is True
    assert "epoch" not in printed.err


def mix_up(folder: Path) -> None:
    """Keep the validation images aside, then give every training image a wrong label."""
    fill(folder / "data", 4, split="validation")
    train = folder / "data/train"
    (train / "red").rename(train / "was-red")
    (train / "green").rename(train / "red")
    (train / "blue").rename(train / "green")
    (train / "was-red").rename(train / "blue")


BRIEF = ("--epochs", "1", "--batch-size", "8", "--no-int8")


@in_this_process
def test_retraining_that_brings_nothing_leaves_the_current_version_unless_it_is_forced(
    trained: Place, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mix_up(folder)
    before = contents(folder / "modelFile")
    assert retrain([*BRIEF, "--learning-rate", "1e-3"]) == 0
    printed = capsys.readouterr()
    assert "No better: model-" in printed.err
    assert printed.out.endswith("; not in use\n")
    after = contents(folder / "modelFile")
    assert before.items() <= after.items()  # current.json with them
    assert len([name for name in after if name.endswith("manifest.json")]) == 2

    assert retrain([*BRIEF, "--force-promote", "--json"]) == 0
    printed = capsys.readouterr()
    assert "is no better, and in use because of --force-promote" in printed.err
    value, version = json.loads(printed.out), versions.load(folder / "modelFile")
    assert value["promoted"] is True
    assert value["version"] == f"modelFile/{version.name}"
    assert version.manifest.parent == trained.current().name
    assert value["metrics"] == value["before"]  # nothing better was found: it is the old network


@in_this_process
def test_a_new_class_folder_becomes_a_new_class(
    trained: Place, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(folder / "data", 8, classes=("red",), first=50)
    (folder / "data/train/amber").mkdir()
    for path in sorted((folder / "data/train/red").iterdir())[8:]:
        path.rename(folder / "data/train/amber" / path.name)
    assert retrain([*BRIEF, "--epochs", "3", "--learning-rate", "1e-3"]) == 0
    current = versions.load(folder / "modelFile")
    assert current.manifest.classes == ("amber", "blue", "green", "red")
    assert current.manifest.parent == trained.current().name
    assert not capsys.readouterr().out.endswith("not in use\n")


def test_an_interrupted_training_exits_130_and_changes_nothing(
    trained: Place, folder: Path
) -> None:
    process = start(folder, *SMALL, "--epochs", "5000", "--learning-rate", "1e-6")
    process.wait_for(lambda err: "network: epoch 2" in err)
    assert process.end(signal.SIGINT) == 130
    assert process.stdout == ""
    assert process.stderr.splitlines()[-3:] == [
        "Stopped: no version was put in use, nothing was changed, "
        f"{trained.current().name} stays in use.",
        "What was learned so far is saved: --resume continues from there.",
        "interrupted",
    ]
    assert "Traceback" not in process.stderr
    found = contents(folder / "modelFile")
    (left,) = found.keys() - contents(trained.models).keys()
    assert left.startswith(".interrupted/")
    assert found.items() >= contents(trained.models).items()


@in_this_process
def test_a_training_that_was_killed_leaves_the_model_and_goes_on_to_the_very_same_end(
    trained: Place, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    models = folder / "modelFile"
    before = contents(models)
    for is_time, options in (
        (lambda err: "Loading Keras" in err, ()),
        (lambda err: "network: epoch 2" in err, ()),
        (lambda err: list(models.glob(".partial-*/model.keras")), ("--resume",)),
    ):
        process = start(folder, *SMALL, *options)
        read = process.wait_for(is_time)
        assert process.end(signal.SIGKILL) == -signal.SIGKILL
        versions.load(models)
        assert {k: v for k, v in contents(models).items() if not k.startswith(".")} == before
    assert "Continuing the training that was interrupted." in read
    assert not re.search(r"network: epoch [12] of 4", read)
    assert list(models.glob(".partial-*"))

    metrics = trained.current().manifest.metrics
    other = tmp_path_factory.mktemp("other") / "modelFile"
    shutil.copytree(models, other)
    for path, options in ((models, ("--resume",)), (other, ())):
        assert train([*SMALL, "--model-dir", str(path), *options]) == 0
        version = versions.load(path)
        assert version.name != trained.current().name
        assert version.manifest.metrics == metrics  # the same seed gives the same
        assert not list(path.glob(".*"))
        assert len(list(path.glob("model-*"))) == 2
