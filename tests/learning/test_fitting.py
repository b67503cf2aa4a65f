import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import resumed_fit

from imagesieve.learning.data.dataset import Dataset
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training import fine_tuning, fitting
from imagesieve.learning.training.checkpoints import Checkpoint, Progress
from imagesieve.learning.training.steps import loss_step, run_epoch

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 120


def start(kind: str, data: Path, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, resumed_fit.__file__, kind, str(data), str(folder)],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        stderr=subprocess.DEVNULL,
    )


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS
    while not is_so():
        assert process.poll() is None, "the process ended too soon"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)


def weights(built: Network) -> list[np.ndarray]:
    return list(built.model.get_weights())


def are_the_same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", ["fine-tuning", "network"])
def test_a_killed_fit_goes_on_to_the_very_same_end(
    kind: str, colours: Dataset, tmp_path: Path
) -> None:
    data = colours.train[0].path.parents[2]
    whole, built = resumed_fit.run(kind, data, tmp_path / "whole")
    expected = weights(built)
    if kind == "network":
        enough = whole.best_epoch + 1  # the best weights are not the last ones then
    else:
        enough = 2
        assert whole.best_epoch > 4  # else what comes after the killing would not count
    assert enough + 2 < len(whole.epoch_seconds)

    checkpoint = Checkpoint(tmp_path / "killed" / "checkpoint", kind)
    process = start(kind, data, tmp_path / "killed")
    try:
        wait_until(lambda: (checkpoint.progress() or Progress(0.0)).epochs >= enough, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait(SECONDS) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
    left = checkpoint.progress()
    assert left is not None
    assert enough <= left.epochs < len(whole.epoch_seconds)

    resumed, built = resumed_fit.run(kind, data, tmp_path / "killed")
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    assert resumed.validation_loss == whole.validation_loss
    assert are_the_same(weights(built), expected)
    assert resumed.epoch_seconds[: left.epochs] == left.epoch_seconds
    assert resumed.epoch_seconds == sorted(resumed.epoch_seconds)

    if kind == "network":
        # A fit that is finished gives its end at once: it trains no more.
        again, built = resumed_fit.run(kind, data, tmp_path / "killed")
        assert again == resumed
        assert are_the_same(weights(built), expected)


class Points:
    """Batches of points in two classes, which stop being numbers after some epochs."""

    def __init__(self, sound_epochs: int) -> None:
        self._sound_epochs = sound_epochs
        self._epoch = 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(5) % 2
        points = np.random.default_rng(index).normal(labels[:, None], 1, (5, 4))
        return points.astype(np.float32) * (
            1 if self._epoch < self._sound_epochs else np.nan
        ), labels

    def weights_of(self, index: int) -> np.ndarray:
        return np.ones(5, np.float32)

    def on_epoch_end(self) -> None:
        self._epoch += 1


def line() -> keras.Model:
    keras.utils.set_random_seed(0)
    points = keras.Input((4,))
    return keras.Model(points, keras.layers.Dense(2, activation="softmax")(points))


def test_a_fit_that_runs_off_to_infinity_keeps_its_best_epoch(tmp_path: Path) -> None:
    model = line()
    settings = fine_tuning.FitSettings(9, 1e-2, 5, 0, tmp_path, patience=3)
    fit = fitting.fit("head", model, Points(2), Points(9), np.array([0, 1]), settings)
    assert np.isfinite(fit.history["val_loss"][:2]).all()
    assert np.isnan(fit.history["val_loss"][2:]).all()
    assert len(fit.epoch_seconds) == 2 + 3  # patience
    assert fit.best_epoch == 2
    loss, _ = run_epoch(loss_step(model), Points(9))
    assert loss == fit.validation_loss == fit.history["val_loss"][1]


def test_a_state_of_another_network_is_not_gone_on_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", "key")
    other = {"model-0": np.zeros((4, 3), np.float32)}
    checkpoint.save(Progress(0.1, "float32", {"val_loss": [0.1]}, [1.0]), other.items())
    settings = fine_tuning.FitSettings(2, 1e-2, 5, 0, tmp_path, checkpoint=checkpoint)
    fit = fitting.fit("head", line(), Points(2), Points(9), np.array([0, 1]), settings)
    assert f"{checkpoint.path} is of another network" in caplog.text
    assert len(fit.epoch_seconds) == 2
    assert fit.epoch_seconds[0] != 1.0


def test_the_rate_is_there_for_tensorboard(tmp_path: Path) -> None:
    from tensorflow.compat.v1.train import summary_iterator

    settings = fine_tuning.FitSettings(2, 1e-2, 5, 0, tmp_path)
    fitting.fit("full fine-tuning", line(), Points(2), Points(9), np.array([0, 1]), settings)
    noted = {
        f"{file.parent.name}/{value.tag}"
        for file in (tmp_path / "full-fine-tuning").rglob("events.out.tfevents*")
        for event in summary_iterator(str(file))
        for value in event.summary.value
    }
    assert noted >= {
        f"{split}/epoch_{name}"
        for split in ("train", "validation")
        for name in ("loss", "accuracy")
    }
    assert "train/epoch_learning_rate" in noted
