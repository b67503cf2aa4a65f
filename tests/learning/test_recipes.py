import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifier import bundle
from classifier.errors import EngineError, ModelDamagedError, WeightsError
from classifier.learning import backbones, evaluation, recipes
from classifier.learning.dataset import Dataset
from classifier.learning.recipes import TrainSettings

# Keras hands its variables to h5py in a way that NumPy 2 frowns upon, whenever weights are saved.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def metrics(accuracy: float, log_loss: float) -> evaluation.Metrics:
    return evaluation.Metrics(10, accuracy, (0.0, 1.0), log_loss, accuracy, (), ())


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ((0.9, 0.5), (0.8, 0.4), True),  # more right labels decide
        ((0.8, 0.1), (0.9, 0.4), False),
        ((0.9, 0.3), (0.9, 0.4), True),  # with equally many, the log loss
        ((0.9, 0.5), (0.9, 0.4), False),
        ((0.9, 0.4), (0.9, 0.4), True),
        ((0.9, float("nan")), (0.9, 0.4), False),
    ],
)
def test_is_not_worse_goes_by_accuracy_then_log_loss(
    new: tuple[float, float], old: tuple[float, float], expected: bool
) -> None:
    assert recipes.is_not_worse(metrics(*new), metrics(*old)) is expected


def test_a_network_from_scratch_gets_better_and_its_metrics_are_its_own(tiny_run: Any) -> None:
    trained = tiny_run.trained
    assert trained.metrics.log_loss < trained.before.log_loss
    labels = np.array([sample.class_index for sample in tiny_run.dataset.validation])
    found = evaluation.evaluate(tiny_run.dataset.classes, labels, trained.probabilities)
    assert found == trained.metrics
    (fit,) = trained.fits
    assert fit.stage == "network"
    assert fit.validation_loss == pytest.approx(trained.metrics.log_loss, rel=1e-3)


@pytest.fixture(scope="module")
def fine_tuned(colours: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Train head and top blocks of MobileNetV2 with random weights, and keep the log folder."""
    settings = TrainSettings(epochs=4, fine_tune_epochs=1, batch_size=10)
    log_folder = tmp_path_factory.mktemp("log")
    built = recipes.build_network(
        colours, backbones.find("MobileNetV2"), "random", (32, 32), settings
    )
    return recipes.train(built, colours, settings, log_folder, quiet=True), log_folder


def test_random_weights_get_the_statistics_of_the_pictures(fine_tuned: Any) -> None:
    model = fine_tuned[0].network.model
    assert np.abs(model.get_layer("bn_Conv1").moving_mean.numpy()).max() > 0
    features = fine_tuned[0].network.base(np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)))
    assert np.abs(np.asarray(features)).max() > 1e-3


def test_head_and_top_blocks_are_trained_in_turn_and_nothing_is_left_in_the_log(
    fine_tuned: Any,
) -> None:
    trained, log_folder = fine_tuned
    assert [fit.stage for fit in trained.fits] == ["head", "fine-tuning"]
    assert trained.metrics.log_loss < trained.before.log_loss
    assert sorted(path.name for path in log_folder.iterdir()) == ["fine-tuning", "head"]
    head, top = trained.fits
    assert top.validation_loss <= head.validation_loss * 1.001


def test_the_metrics_are_those_of_the_whole_model(fine_tuned: Any, colours: Dataset) -> None:
    trained, _ = fine_tuned
    from classifier import images

    pixels = np.stack(
        [images.decode(sample.path, image_size=(32, 32)).pixels for sample in colours.validation]
    )
    found = np.asarray(trained.network.model(pixels.astype(np.float32), training=False))
    # The maps in between are kept in half precision.
    np.testing.assert_allclose(trained.probabilities, found, atol=0.02)


def test_missing_weights_are_told(tmp_path: Path, colours: Dataset) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.h5 does not exist"):
        recipes.build_network(
            colours,
            backbones.find("MobileNetV2"),
            str(tmp_path / "nothing.h5"),
            (32, 32),
            TrainSettings(),
        )


def test_a_saved_version_can_be_trained_further_and_knows_what_it_knew(
    tiny_run: Any, tmp_path: Path
) -> None:
    built = recipes.open_network(tiny_run.version)
    settings = TrainSettings(epochs=1, learning_rate=1e-6, batch_size=8, is_further=True)
    trained = recipes.train(built, tiny_run.dataset, settings, tmp_path, quiet=True)
    assert trained.before.accuracy == tiny_run.trained.metrics.accuracy
    assert trained.before.log_loss == pytest.approx(tiny_run.trained.metrics.log_loss, rel=1e-4)


def test_retraining_a_head_keeps_its_standardisation(
    make_network: Callable[..., Any], colours: Dataset, tmp_path: Path
) -> None:
    built = make_network()
    layer = built.model.get_layer("head_standardise")
    layer.set_weights([np.full(1280, 0.5), np.full(1280, 4.0)])
    settings = TrainSettings(epochs=1, views=1, batch_size=10, is_further=True)
    recipes.train(built, colours, settings, tmp_path, quiet=True)
    np.testing.assert_array_equal(layer.get_weights(), [[0.5] * 1280, [4.0] * 1280])


def test_a_version_without_a_readable_keras_model_cannot_be_trained_further(
    version_path: Path, tmp_path: Path
) -> None:
    version = bundle.load(version_path)
    with pytest.raises(ModelDamagedError, match=r"has no model\.keras"):
        recipes.open_network(version)
    (tmp_path / "model.keras").write_bytes(b"no archive")
    broken = dataclasses.replace(
        version,
        path=tmp_path,
        manifest=dataclasses.replace(version.manifest, files={"model.keras": {}}),
    )
    with pytest.raises(EngineError, match="Keras cannot load"):
        recipes.open_network(broken)
