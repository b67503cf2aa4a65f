"""The two training scripts as real child processes: results, errors, interruptions, kills."""

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

from imagesieve.model import versions

ROOT = Path(__file__).parents[1]
TRAIN = "trainMyDataWithKerasModel.py"
RETRAIN = "reTrainMyDataWithKerasModel.py"
SMALL = ("--backbone", "SmallCNN", "--image-size", "48", "--epochs", "4", "--batch-size", "8")
TIMEOUT_SECONDS = 240  # of one process on a busy machine

# A test may wait for its job while those of others run first.
pytestmark = pytest.mark.timeout(3 * TIMEOUT_SECONDS)

Result = subprocess.CompletedProcess[str]


def start(folder: Path, script: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def run(folder: Path, script: str, *arguments: str) -> Result:
    process = start(folder, script, *arguments)
    out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    """Read standard error up to a line with `text`; gives what was read."""
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


def error_of(result: Result) -> str:
    """Return the one error line that must close standard error."""
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    assert errors == lines[-1:], result.stderr
    assert result.stdout == ""
    return errors[0]


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


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Train SmallCNN on 24 painted images of three colours."""
    folder = tmp_path_factory.mktemp("trained")
    fill(folder / "data", 8)
    return Place(folder, run(folder, TRAIN, *SMALL))


Later = dict[str, "concurrent.futures.Future[Place]"]


@pytest.fixture(scope="session")
def later(trained: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Later]:
    """Start every other run that loads TensorFlow, two at a time."""
    pool = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="later")

    def submit(job: Callable[[Path], Result]) -> "concurrent.futures.Future[Place]":
        folder = trained.copy(tmp_path_factory.mktemp("later"))
        return pool.submit(lambda: Place(folder, job(folder)))

    yield {job.__name__.strip("_"): submit(job) for job in JOBS}
    pool.shutdown(cancel_futures=True)


def _killed(folder: Path) -> Result:
    """Kill three trainings at three moments, then train in peace."""
    before = contents(folder / "modelFile")
    for text in ("Loading Keras", "network: epoch 1", "Writing modelFile"):
        with start(folder, TRAIN, *SMALL) as process:
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
    return run(folder, TRAIN, *SMALL, "--json")


def _resumed(folder: Path) -> Result:
    """Kill a training after its second epoch, and go on with it."""
    with start(folder, TRAIN, *SMALL) as process:
        wait_for(process, "network: epoch 2")
        process.kill()
    return run(folder, TRAIN, *SMALL, "--resume")


def _interrupted(folder: Path) -> Result:
    with start(folder, TRAIN, *SMALL, "--epochs", "5000", "--learning-rate", "1e-6") as process:
        read = wait_for(process, "network: epoch 2")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, read + err)


def _fine_tuned(folder: Path) -> Result:
    shutil.rmtree(folder / "modelFile")
    backbone = ("--backbone", "MobileNetV2", "--weights", "random", "--image-size", "64")
    counts = ("--epochs", "3", "--fine-tune-epochs", "1")
    return run(folder, TRAIN, *backbone, *counts, "--json", "--quiet")


def _mix_up(folder: Path) -> None:
    """Keep the validation images aside, then give every training image a wrong label."""
    fill(folder / "data", 4, split="validation")
    train = folder / "data/train"
    (train / "red").rename(train / "was-red")
    (train / "green").rename(train / "red")
    (train / "blue").rename(train / "green")
    (train / "was-red").rename(train / "blue")


def _mistaught(folder: Path) -> Result:
    _mix_up(folder)
    return run(folder, RETRAIN, "--epochs", "2", "--batch-size", "8", "--learning-rate", "1e-3")


def _forced(folder: Path) -> Result:
    _mix_up(folder)
    return run(folder, RETRAIN, "--epochs", "1", "--batch-size", "8", "--force-promote", "--json")


def _grown(folder: Path) -> Result:
    fill(folder / "data", 8, classes=("red",), first=50)
    (folder / "data/train/amber").mkdir()
    for path in sorted((folder / "data/train/red").iterdir())[8:]:
        path.rename(folder / "data/train/amber" / path.name)
    rate = ("--learning-rate", "1e-3")
    return run(folder, RETRAIN, "--epochs", "3", "--batch-size", "8", *rate)


def _foreign_weights(folder: Path) -> Result:
    with h5py.File(folder / "other.h5", "w") as file:
        file.attrs["layer_names"] = [b"only"]
        file.create_group("only").attrs["weight_names"] = []
    return run(folder, TRAIN, "--backbone", "MobileNetV2", "--weights", "other.h5", "--quiet")


def _missing_weights(folder: Path) -> Result:
    return run(folder, TRAIN, "--backbone", "MobileNetV2", "--weights", "none.h5", "--quiet")


def _file_in_the_way(folder: Path) -> Result:
    (folder / "blocked").write_text("a file")
    return run(folder, TRAIN, *SMALL, "--model-dir", "blocked/models")


JOBS = (
    _fine_tuned,
    _killed,
    _resumed,
    _mistaught,
    _forced,
    _grown,
    _interrupted,
    _foreign_weights,
    _missing_weights,
    _file_in_the_way,
)


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


def test_check_only_trains_nothing_and_exits_0(trained: Place, tmp_path: Path) -> None:
    shutil.copytree(trained.folder / "data", tmp_path / "data")
    plain = run(tmp_path, TRAIN, "--check-only")
    assert (plain.returncode, plain.stdout) == (0, "")
    assert "it can be trained on" in plain.stderr
    as_json = run(tmp_path, TRAIN, "--check-only", "--json")
    value = json.loads(as_json.stdout)
    assert (value["classes"], value["train"]) == (["blue", "green", "red"], 18)
    assert len(value["findings"]) == 6
    assert not (tmp_path / "modelFile").exists()


def _no_data(folder: Path) -> None:
    shutil.rmtree(folder / "data")


def _one_class(folder: Path) -> None:
    shutil.rmtree(folder / "data/train/red")
    shutil.rmtree(folder / "data/train/green")


def _empty_class(folder: Path) -> None:
    (folder / "data/train/yellow").mkdir()


def _one_image(folder: Path) -> None:
    for path in sorted((folder / "data/train/red").iterdir())[1:]:
        path.unlink()


def _other_validation(folder: Path) -> None:
    fill(folder / "data", 1, split="validation", classes=("blue", "green"))


def _broken_split(folder: Path) -> None:
    (folder / "data/.split.json").write_text("{")


def _nothing(folder: Path) -> None:
    pass


BAD_INPUTS = {
    "no data folder": (_no_data, TRAIN, (), 1, "no data folder data"),
    "one class": (_one_class, TRAIN, (), 1, "only the class 'blue'"),
    "empty class": (_empty_class, TRAIN, (), 1, "yellow is empty"),
    "one image": (_one_image, TRAIN, (), 1, "red holds 1 .*image"),
    "other validation": (_other_validation, TRAIN, (), 1, "missing in validation: red"),
    "broken split file": (_broken_split, TRAIN, (), 1, r"\.split\.json is unreadable"),
    "unknown backbone": (_nothing, TRAIN, ("--backbone", "inceptionv4"), 2, "mean InceptionV3"),
    "negative epochs": (
        _nothing,
        TRAIN,
        ("--epochs", "-1"),
        2,
        "--epochs: '-1' is not a whole number",
    ),
    "no number": (_nothing, TRAIN, ("--epochs", "ten"), 2, "'ten' is not a whole number from 1 up"),
    "no batch": (
        _nothing,
        TRAIN,
        ("--batch-size", "0"),
        2,
        "--batch-size: '0' is not a whole number",
    ),
    "negative seed": (_nothing, TRAIN, ("--seed", "-1"), 2, "--seed"),
    "huge seed": (
        _nothing,
        TRAIN,
        ("--seed", str(2**32)),
        2,
        "--seed: '4294967296' is not a whole number",
    ),
    "learning rate": (_nothing, TRAIN, ("--learning-rate", "nan"), 2, "--learning-rate"),
    "tiny images": (_nothing, TRAIN, ("--image-size", "8"), 2, "--image-size is 8"),
    "name": (_nothing, TRAIN, ("--name", "a/b"), 2, "'a/b' cannot name a folder"),
    "confidence": (
        _nothing,
        TRAIN,
        ("--decision", "confident", "--min-confidence", "2"),
        2,
        "--min-confidence: '2' is not a number from 0 to 1",
    ),
    "unknown option": (_nothing, TRAIN, ("--epoch", "3"), 2, "unrecognized arguments: --epoch"),
    "no model": (_nothing, RETRAIN, (), 1, "There is no model at modelFile"),
    "retrain, negative epochs": (
        _nothing,
        RETRAIN,
        ("--epochs", "-1"),
        2,
        "--epochs: '-1' is not a whole number",
    ),
}


@pytest.mark.parametrize(
    ("spoil", "script", "arguments", "code", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS
)
def test_bad_input_is_one_line_and_an_exit_code(
    tmp_path: Path,
    spoil: Callable[[Path], None],
    script: str,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    fill(tmp_path / "data", 3)
    spoil(tmp_path)
    result = run(tmp_path, script, *arguments)
    assert re.search(message, error_of(result)), result.stderr
    assert result.returncode == code
    assert not (tmp_path / "modelFile").exists()


def test_a_tampered_model_is_not_trained_further(trained: Place, tmp_path: Path) -> None:
    trained.copy(tmp_path)
    path = versions.load(tmp_path / "modelFile").path / versions.KERAS_MODEL
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    before = contents(tmp_path / "modelFile")
    result = run(tmp_path, RETRAIN)
    assert re.search(r"was altered: the checksum of model\.keras", error_of(result))
    assert result.returncode == 1
    assert contents(tmp_path / "modelFile") == before


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("foreign_weights", r"other\.h5 does not hold the weights of MobileNetV2"),
        ("missing_weights", r"none\.h5 does not exist: --weights takes"),
        ("file_in_the_way", r"blocked.* is a file, not a folder"),
    ],
)
def test_what_only_shows_later_is_one_line_too(
    trained: Place, later: Later, job: str, message: str
) -> None:
    place = later[job].result()
    assert re.search(message, error_of(place.result)), place.result.stderr
    assert place.result.returncode == 1
    assert contents(place.models) == contents(trained.models)


def test_a_fine_tuned_network_is_saved_and_printed_as_json(later: Later) -> None:
    place = later["fine_tuned"].result()
    assert place.result.returncode == 0, place.result.stderr
    value = json.loads(place.result.stdout)
    version = place.current()
    assert value["version"] == f"modelFile/{version.name}"
    assert value["promoted"] is True
    assert value["metrics"] == version.manifest.metrics
    assert (version.manifest.backbone, version.manifest.image_size) == ("MobileNetV2", (64, 64))
    assert version.manifest.engines["openvino-f32"]["passed"] is True
    assert "epoch" not in place.result.stderr


def test_retraining_that_brings_nothing_leaves_the_current_version(
    trained: Place, later: Later
) -> None:
    place = later["mistaught"].result()
    assert place.result.returncode == 0, place.result.stderr
    assert "No better: model-" in place.result.stderr
    assert place.result.stdout.endswith("; not in use\n")
    before, after = contents(trained.models), contents(place.models)
    assert before.items() <= after.items()  # current.json with them
    assert len([name for name in after if name.endswith("manifest.json")]) == 2


def test_force_promote_uses_it_all_the_same(trained: Place, later: Later) -> None:
    place = later["forced"].result()
    assert place.result.returncode == 0, place.result.stderr
    assert "is no better, and in use because of --force-promote" in place.result.stderr
    value = json.loads(place.result.stdout)
    assert value["promoted"] is True
    version = place.current()
    assert value["version"] == f"modelFile/{version.name}"
    assert version.manifest.parent == trained.current().name
    # Nothing better was found, so it is the old network.
    assert value["metrics"] == value["before"]


def test_a_new_class_folder_becomes_a_new_class(trained: Place, later: Later) -> None:
    place = later["grown"].result()
    assert place.result.returncode == 0, place.result.stderr
    assert place.current().manifest.classes == ("amber", "blue", "green", "red")
    assert place.current().manifest.parent == trained.current().name
    assert not place.result.stdout.endswith("not in use\n")


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


def test_killed_trainings_leave_the_model_and_the_next_one_tidies_up(later: Later) -> None:
    place = later["killed"].result()  # which looked after each kill
    assert place.result.returncode == 0, place.result.stderr
    assert not list(place.models.glob(".*"))
    assert len(list(place.models.glob("model-*"))) == 2


def test_the_same_seed_gives_the_same_metrics(trained: Place, later: Later) -> None:
    value = json.loads(later["killed"].result().result.stdout)
    assert value["metrics"] == json.loads(json.dumps(trained.current().manifest.metrics))
