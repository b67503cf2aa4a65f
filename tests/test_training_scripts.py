"""The two training scripts: results, errors, interruptions, kills.

What a signal or a kill is part of runs in processes of its own, all else in this one.
"""

import concurrent.futures
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest
from data_folders import fill
from tiny_backbone import TINY

import reTrainMyDataWithKerasModel
import trainMyDataWithKerasModel
from imagesieve.errors import ClassifierError
from imagesieve.model import versions

ROOT = Path(__file__).parents[1]
TRAIN = "trainMyDataWithKerasModel.py"
train, retrain = trainMyDataWithKerasModel.main, reTrainMyDataWithKerasModel.main
SMALL = ("--backbone", "SmallCNN", "--image-size", "48", "--epochs", "4", "--batch-size", "8")
TIMEOUT_SECONDS = 240  # of one process on a busy machine

# A test may wait for its job while those of others run first.
pytestmark = pytest.mark.timeout(3 * TIMEOUT_SECONDS)

Result = subprocess.CompletedProcess[str]


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / TRAIN), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def run(folder: Path, *arguments: str) -> Result:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    """Read standard error up to a line with `text`; return what was read."""
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"no {text!r} in:\n{''.join(lines)}")


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
    result: Result

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
    """Train SmallCNN on 24 painted images of three colours."""
    folder = tmp_path_factory.mktemp("trained")
    fill(folder / "data", 8)
    return Place(folder, run(folder, *SMALL))


Later = dict[str, "concurrent.futures.Future[Place]"]


@pytest.fixture(scope="module")
def later(trained: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Later]:
    """Start every other process, two at a time."""
    pool = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="later")

    def submit(job: Callable[[Path], Result]) -> "concurrent.futures.Future[Place]":
        folder = trained.copy(tmp_path_factory.mktemp("later"))
        return pool.submit(lambda: Place(folder, job(folder)))

    yield {job.__name__: submit(job) for job in (killed, resumed, interrupted)}
    pool.shutdown(cancel_futures=True)


def killed(folder: Path) -> Result:
    """Kill three trainings at three moments, then train in peace."""
    before = contents(folder / "modelFile")
    for text in ("Loading Keras", "network: epoch 1", "Writing modelFile"):
        with start(folder, *SMALL) as process:
            wait_for(process, text)
            if text.startswith("Writing"):
                while not list((folder / "modelFile").glob(".partial-*/model.keras")):
                    assert process.poll() is None
                    time.sleep(0.01)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        versions.load(folder / "modelFile")
        found = contents(folder / "modelFile")
        assert {k: v for k, v in found.items() if not k.startswith(".")} == before
    assert list((folder / "modelFile").glob(".partial-*"))
    return run(folder, *SMALL, "--json")


def resumed(folder: Path) -> Result:
    """Kill a training after its second epoch, and go on with it."""
    with start(folder, *SMALL) as process:
        wait_for(process, "network: epoch 2")
        process.kill()
    return run(folder, *SMALL, "--resume")


def interrupted(folder: Path) -> Result:
    with start(folder, *SMALL, "--epochs", "5000", "--learning-rate", "1e-6") as process:
        read = wait_for(process, "network: epoch 2")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, read + err)


@pytest.mark.usefixtures("later")  # so that the long runs go on while the quick tests do
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


def keep_one_class(folder: Path) -> None:
    shutil.rmtree(folder / "data/train/red")
    shutil.rmtree(folder / "data/train/green")


def tamper(folder: Path) -> None:
    path = versions.load(folder / "modelFile").path / versions.KERAS_MODEL
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


def write_foreign_weights(folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as file:
        file.attrs["layer_names"] = [b"only"]
        file.create_group("only").attrs["weight_names"] = []


# Script and arguments; exit code; message; what is done to the folder before.
BAD_INPUTS: dict[str, tuple[str, int, str, Callable[[Path], object]]] = {
    "no data folder": (
        *("train", 1, "no folder data/train: put images"),
        lambda folder: shutil.rmtree(folder / "data"),
    ),
    "one class": ("train", 1, "only the class 'blue'", keep_one_class),
    "broken split file": (
        *("train", 1, r"\.split\.json is unreadable"),
        lambda folder: (folder / "data/.split.json").write_text("{"),
    ),
    "unknown backbone": ("train --backbone inceptionv4", 2, "mean InceptionV3", bool),
    "negative epochs": ("train --epochs -1", 2, "--epochs: '-1' is not a whole number", bool),
    "no number": ("train --epochs ten", 2, "'ten' is not a whole number", bool),
    "learning rate": ("train --learning-rate nan", 2, "--learning-rate: 'nan'", bool),
    "tiny images": ("train --image-size 8", 2, "--image-size is 8", bool),
    "layers without epochs": ("train --fine-tune-layers all", 2, "epochs: say how many", bool),
    "name": ("train --name a/b", 2, "'a/b' cannot name a folder", bool),
    "confidence": ("train --min-confidence 2", 2, "'2' is not a number from 0 to 1", bool),
    "unknown option": ("train --epoch 3", 2, "unrecognized arguments: --epoch", bool),
    "missing weights": (
        *("train --backbone MobileNetV2 --weights none.h5", 1, r"none\.h5 does not exist"),
        bool,
    ),
    "foreign weights": (
        *("train --backbone MobileNetV2 --weights other.h5", 1, "not hold the weights of Mobile"),
        write_foreign_weights,
    ),
    "file in the way": (
        *("train --backbone SmallCNN --model-dir blocked/models", 1, "is a file, not a folder"),
        lambda folder: (folder / "blocked").write_text("a file"),
    ),
    "retrain, no model": (
        *("retrain", 1, "There is no model at modelFile"),
        lambda folder: shutil.rmtree(folder / "modelFile"),
    ),
    "retrain, negative epochs": ("retrain --epochs -1", 2, "'-1' is not a whole number", bool),
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
    result = run(tmp_path, "--quiet")
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch("error: There is no folder data/train: .*\n", result.stderr)


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
    trained: Place, later: Later
) -> None:
    place = later["interrupted"].result()
    assert place.result.returncode == 130
    lines = place.result.stderr.splitlines()
    assert lines[-3:] == [
        "Stopped: no version was put in use, nothing was changed, "
        f"{trained.current().name} stays in use.",
        "What was learned so far is saved: --resume continues from there.",
        "interrupted",
    ]
    assert "Traceback" not in place.result.stderr
    found = contents(place.models)
    assert found.pop(".interrupted/model-network.npz")
    assert found == contents(trained.models)


def test_a_training_that_was_killed_and_resumed_ends_as_one_that_was_not(
    trained: Place, later: Later
) -> None:
    place = later["resumed"].result()
    assert place.result.returncode == 0, place.result.stderr
    assert "Continuing the training that was interrupted." in place.result.stderr
    assert not re.search(r"network: epoch [12] of 4", place.result.stderr)
    assert place.current().name != trained.current().name
    assert place.current().manifest.metrics == trained.current().manifest.metrics
    assert not list(place.models.glob(".*"))


def test_killed_trainings_leave_the_model_and_the_next_one_tidies_up(
    trained: Place, later: Later
) -> None:
    place = later["killed"].result()  # which looked after each kill
    assert place.result.returncode == 0, place.result.stderr
    assert not list(place.models.glob(".*"))
    assert len(list(place.models.glob("model-*"))) == 2
    # The same seed gives the same metrics.
    value = json.loads(place.result.stdout)
    assert value["metrics"] == json.loads(json.dumps(trained.current().manifest.metrics))
