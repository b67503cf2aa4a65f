import argparse
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from imagesieve.learning import cli
from imagesieve.model import versions


@pytest.mark.parametrize(
    ("accuracy", "best_epoch", "force", "moves"),
    [
        (0.9, 3, False, True),
        (0.8, 3, False, True),  # equal, after learning: it has seen the new images
        (0.8, 0, False, False),  # equal, because nothing was learned
        (0.7, 3, False, False),
        (0.7, 3, True, True),
        (0.8, 0, True, True),
    ],
)
def test_the_current_version_changes_only_for_something_learned_and_not_worse(
    tiny_run: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    accuracy: float,
    best_epoch: int,
    force: bool,
    moves: bool,
) -> None:
    old, new = (
        versions.load(Path(shutil.copytree(tiny_run.version.path, tmp_path / name)))
        for name in ("tiny-old", "tiny-new")
    )
    versions.promote(old)
    (fit,) = tiny_run.trained.fits
    trained = dataclasses.replace(
        tiny_run.trained,
        before=dataclasses.replace(tiny_run.trained.metrics, accuracy=0.8),
        metrics=dataclasses.replace(tiny_run.trained.metrics, accuracy=accuracy),
        fits=[dataclasses.replace(fit, best_epoch=best_epoch)],
    )
    assert cli.promote_if_not_worse(new, old, trained, force=force) is moves
    assert versions.load(tmp_path).name == ("tiny-new" if moves else "tiny-old")
    assert ("No better: tiny-old stays in use" in caplog.text) is not moves
    assert ("--force-promote." in caplog.text) is force


def test_a_saved_training_leaves_nothing_of_its_interruptions(
    tiny_run: Any, tmp_path: Path
) -> None:
    options = argparse.Namespace(no_int8=True, export=[])
    backbone = tiny_run.trained.network.backbone
    plan = cli.Plan(options, backbone, (48, 48), None, tmp_path, "tiny")
    folder = tmp_path / ".interrupted"
    (folder / ".partial-tiny.npz-0123456789abcdef").mkdir(parents=True)
    for name in ("tiny.npz", ".partial-tiny.npz-0123456789abcdef/.writing"):
        (folder / name).write_bytes(b"of a training that was killed")
    cli.save(plan, tiny_run.dataset, tiny_run.trained, tiny_run.store)
    assert not folder.exists()
