import logging
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imagesieve.errors import DataError, OutputError
from imagesieve.files import locked
from imagesieve.learning.training.checkpoints import Checkpoint, FitProgress


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "new folder" / "fit.checkpoint", "images 1, network 2")


def fit_of(*losses: float, start_loss: float = 1.0) -> FitProgress:
    fit = FitProgress("network", {}, 0, start_loss, [])
    for number, loss in enumerate(losses, start=1):
        fit.add({"val_loss": loss}, 0.1 * number)
    return fit


ARRAYS = {
    "model-0": np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32),
    "model-1": np.array([7, 2**32 - 1], dtype=np.uint32),
    "optimizer-0": np.array(12, dtype=np.int64),
}


def test_what_was_saved_is_loaded_bit_for_bit(checkpoint: Checkpoint) -> None:
    saved = fit_of(0.1 + 0.2, math.nan, math.inf)
    checkpoint.save(saved, ARRAYS.items())
    found = checkpoint.load()
    assert found is not None
    assert repr(found[0]) == repr(saved)  # NaN is not equal to itself
    assert found[1].keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[1][name].dtype == array.dtype
        np.testing.assert_array_equal(found[1][name], array)
    assert repr(checkpoint.progress()) == repr(saved)


def test_there_may_be_none(checkpoint: Checkpoint) -> None:
    assert checkpoint.load() is None
    checkpoint.remove()


def test_another_key_is_not_gone_on_with(checkpoint: Checkpoint) -> None:
    checkpoint.save(fit_of(0.5), ARRAYS.items())
    assert Checkpoint(checkpoint.path, "images 2").load() is None
    assert checkpoint.load() is not None


@pytest.mark.parametrize("place", range(0, 1000, 71))
def test_a_damaged_file_is_named_and_not_used(
    checkpoint: Checkpoint, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint.save(fit_of(0.5), ARRAYS.items())
    data = bytearray(checkpoint.path.read_bytes())
    start = data.index(ARRAYS["model-0"].tobytes()[:16]) - 400
    data[start + place] ^= 1
    checkpoint.path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        found = checkpoint.load()
    if found is None:
        assert f"{checkpoint.path} is damaged" in caplog.text
    else:  # a byte that says nothing, such as the time of day
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[1][name], array)
    assert place < 420 or found is None


def test_half_a_file_is_damaged(checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint.save(fit_of(0.5), ARRAYS.items())
    whole = checkpoint.path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        caplog.clear()
        checkpoint.path.write_bytes(whole[:length])
        assert checkpoint.load() is None
        assert f"{checkpoint.path} is damaged" in caplog.text


def test_nothing_is_unpickled(checkpoint: Checkpoint, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "sprung",)

    trapped = np.array([Trap()], dtype=object)
    with pytest.raises(ValueError, match="pickle"):
        checkpoint.save(fit_of(0.5), [("model-0", trapped)])
    assert not checkpoint.path.exists()

    import zipfile

    checkpoint.save(fit_of(0.5), [])
    with zipfile.ZipFile(checkpoint.path, "a") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array(member, trapped, allow_pickle=True)
    assert checkpoint.load() is None
    assert not (tmp_path / "sprung").exists()


def test_a_writing_that_fails_leaves_the_old_state(checkpoint: Checkpoint) -> None:
    checkpoint.save(fit_of(0.5), ARRAYS.items())

    def interrupted() -> Iterator[tuple[str, np.ndarray]]:
        yield "model-0", ARRAYS["model-0"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(fit_of(0.5, 0.4), interrupted())
    found = checkpoint.progress()
    assert found is not None
    assert found.epochs == 1
    assert list(checkpoint.path.parent.iterdir()) == [checkpoint.path]


def test_what_a_killed_writer_left_is_removed_and_a_living_one_s_is_not(
    checkpoint: Checkpoint,
) -> None:
    checkpoint.save(fit_of(0.5), ARRAYS.items())
    dead, living = (checkpoint.path.with_name(f".partial-fit-{name}") for name in ("a", "b"))
    for folder in (dead, living):
        folder.mkdir()
        (folder / ".writing").touch()
    with locked(living / ".writing"):
        checkpoint.save(fit_of(0.5, 0.4), ARRAYS.items())
        assert not dead.exists()
        assert living.exists()
    checkpoint.remove()
    assert not checkpoint.path.parent.exists()


def test_a_place_that_cannot_be_written_or_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Cannot write .*fit: "):
        Checkpoint(tmp_path / "file" / "fit", "").save(fit_of(), [])
    (tmp_path / "fit").mkdir()
    with pytest.raises(DataError, match=r"Cannot read the checkpoint .*fit"):
        Checkpoint(tmp_path / "fit", "").load()


@pytest.mark.parametrize(
    ("losses", "best", "loss", "is_finished"),
    [
        ([], 0, 1.0, False),
        ([0.9], 1, 0.9, False),
        ([0.9, 0.8, 0.8], 2, 0.8, False),  # of equal ones the first
        ([0.9, 0.8, 0.8, 0.9], 2, 0.8, True),
        ([1.3, 1.2, 1.1], 0, 1.0, False),  # it comes down, if only from where it went up
        ([1.0, 1.0, 1.0], 0, 1.0, True),
        ([math.nan, math.nan], 0, 1.0, True),
        ([math.nan, 0.7], 2, 0.7, False),
        ([0.9, 0.8, 0.7, 0.6, 0.5], 5, 0.5, True),  # all epochs
    ],
)
def test_the_best_epoch_and_the_end_follow_from_the_losses(
    losses: list[float], best: int, loss: float, is_finished: bool
) -> None:
    found = fit_of(*losses)
    assert (found.best_epoch, found.validation_loss) == (best, loss)
    assert found.is_finished(5, patience=2) is is_finished


def test_any_number_beats_a_start_that_is_none() -> None:
    assert fit_of(9.0, start_loss=math.nan).best_epoch == 1
