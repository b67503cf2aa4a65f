import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import fill
from tiny_backbone import TINY

from imagesieve.errors import EngineError, ModelDamagedError
from imagesieve.learning import train_run
from imagesieve.learning.data.dataset import Dataset, read_dataset
from imagesieve.learning.export import report, version_writer
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.networks import backbones, network
from imagesieve.learning.train_run import TrainSettings
from imagesieve.learning.training import evaluation
from imagesieve.model import versions
from imagesieve.model.decisions import DecisionPolicy

WITHOUT_INT8 = version_writer.ExportSettings(int8_max_drop=None)


def save(trained: train_run.Trained, dataset: Dataset, path: Path, store: FeatureStore) -> Any:
    """Save a version without int8 and a report, which take longest and say nothing here."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(report, "write", lambda *_: None)
        what = (trained, dataset, DecisionPolicy(), {}, path)
        return version_writer.save_version(*what, store=store, export=WITHOUT_INT8)


def metrics(accuracy: float, log_loss: float) -> evaluation.Metrics:
    return evaluation.Metrics(10, accuracy, (0.0, 1.0), log_loss, accuracy, (), ())


@pytest.mark.parametrize(
    ("new", "expected", "expected_with_corrections"),  # against an accuracy of 0.9, a loss of 0.4
    [
        ((1.0, 0.5), True, True),  # more right labels decide
        ((0.8, 0.1), False, False),
        ((0.9, 0.3), True, True),  # with equally many, the log loss
        ((0.9, 0.4), True, True),
        ((0.9, 0.43), False, True),  # hardly higher
        ((0.9, 0.5), False, False),
        ((0.9, float("nan")), False, False),
    ],
)
def test_is_not_worse_goes_by_accuracy_then_log_loss(
    new: tuple[float, float], expected: bool, expected_with_corrections: bool
) -> None:
    old = metrics(0.9, 0.4)
    assert train_run.is_not_worse(metrics(*new), old) is expected
    found = train_run.is_not_worse(metrics(*new), old, with_corrections=True)
    assert found is expected_with_corrections


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
    """Train head and top blocks of a network with random weights, and keep the log folder."""
    settings = TrainSettings(head="dense", epochs=4, fine_tune_epochs=2, batch_size=10)
    log_folder = tmp_path_factory.mktemp("log")
    store = FeatureStore(tmp_path_factory.mktemp("store"), limit=1e9)
    built = train_run.build_network(colours, TINY, "random", (32, 32), 0)
    return train_run.train(
        built, colours, settings, log_folder, store=store, quiet=True
    ), log_folder


def test_random_weights_get_the_statistics_of_the_images(fine_tuned: Any) -> None:
    model = fine_tuned[0].network.model
    assert np.abs(model.get_layer("stem_norm").moving_mean.numpy()).max() > 0
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
    from imagesieve import images

    pixels = np.stack(
        [images.decode(sample.path, image_size=(32, 32)).pixels for sample in colours.validation]
    )
    found = np.asarray(trained.network.model(pixels.astype(np.float32), training=False))
    # The maps in between are kept in half precision.
    np.testing.assert_allclose(trained.probabilities, found, atol=0.02)


@dataclasses.dataclass(frozen=True)
class Heads:
    """A training of a logistic head, and what is needed to go on with it."""

    trained: train_run.Trained
    version: versions.ModelVersion
    store: Path

    def further(self, dataset: Dataset, folder: Path, **changes: Any) -> train_run.Trained:
        """Train the saved version further on other images."""
        store = FeatureStore(Path(shutil.copytree(self.store, folder / "store")), limit=1e9)
        settings = TrainSettings(batch_size=10, views=1, is_further=True)
        settings = dataclasses.replace(settings, **changes)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setitem(backbones.BACKBONES, TINY.name, TINY)
            opened = train_run.open_network(self.version)
        built = network.with_classes(opened, self.version.manifest.classes, dataset.classes, 0)
        return train_run.train(built, dataset, settings, folder / "log", store=store, quiet=True)


@pytest.fixture(scope="module")
def heads(colours: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Heads:
    folder = tmp_path_factory.mktemp("heads")
    settings = TrainSettings(batch_size=10, views=1)
    store = FeatureStore(folder / "store", limit=1e9)
    built = train_run.build_network(colours, TINY, "random", (32, 32), 0)
    trained = train_run.train(built, colours, settings, folder / "log", store=store, quiet=True)
    version = save(trained, colours, folder / "tiny-1", store)
    return Heads(trained, version, store.folder)


def test_a_saved_version_can_be_trained_further_and_knows_what_it_knew(
    tiny_run: Any, tmp_path: Path
) -> None:
    built = train_run.open_network(tiny_run.version)
    settings = TrainSettings(epochs=1, learning_rate=1e-6, batch_size=8, is_further=True)
    store = FeatureStore(tmp_path / "store", limit=1e9)
    trained = train_run.train(built, tiny_run.dataset, settings, tmp_path, store=store, quiet=True)
    assert trained.before.accuracy == tiny_run.trained.metrics.accuracy
    assert trained.before.log_loss == pytest.approx(tiny_run.trained.metrics.log_loss, rel=1e-4)


def test_retraining_a_head_keeps_its_standardisation(colours: Dataset, tmp_path: Path) -> None:
    built = network.build(TINY, 3, (32, 32), weights_path=None, seed=0)
    layer = built.model.get_layer("head_standardise")
    layer.set_weights([np.full(24, 0.5), np.full(24, 4.0)])
    settings = TrainSettings(epochs=1, views=1, batch_size=10, is_further=True)
    store = FeatureStore(tmp_path / "store", limit=1e9)
    train_run.train(built, colours, settings, tmp_path, store=store, quiet=True)
    np.testing.assert_array_equal(layer.get_weights(), [[0.5] * 24, [4.0] * 24])


def test_a_version_without_a_readable_keras_model_cannot_be_trained_further(
    version_path: Path, tmp_path: Path
) -> None:
    version = versions.load(version_path)
    with pytest.raises(ModelDamagedError, match=r"has no model\.keras"):
        train_run.open_network(version)
    (tmp_path / "model.keras").write_bytes(b"no archive")
    broken = dataclasses.replace(
        version,
        path=tmp_path,
        manifest=dataclasses.replace(version.manifest, files={"model.keras": {}}),
    )
    with pytest.raises(EngineError, match="Keras cannot load"):
        train_run.open_network(broken)


def head_weights(trained: train_run.Trained) -> Any:
    return trained.network.model.get_layer("head_probabilities").get_weights()


def test_the_head_is_a_logistic_regression_unless_a_dense_one_is_wanted(
    heads: Heads, fine_tuned: Any
) -> None:
    assert heads.trained.network.is_logistic
    (fit,) = heads.trained.fits
    assert (fit.stage, fit.best_epoch) == ("head", 1)
    assert fit.validation_loss == heads.trained.metrics.log_loss < heads.trained.before.log_loss
    assert not fine_tuned[0].network.is_logistic
    assert fine_tuned[0].network.model.get_layer("head_hidden").units == 512


def test_retraining_a_logistic_head_on_nothing_new_is_no_better(
    heads: Heads, colours: Dataset, tmp_path: Path
) -> None:
    again = heads.further(colours, tmp_path)
    assert [fit.best_epoch for fit in again.fits] == [0]
    assert again.metrics == again.before
    np.testing.assert_array_equal(head_weights(again)[0], head_weights(heads.trained)[0])


def test_a_regression_that_judges_worse_does_not_replace_the_old_one(
    heads: Heads, colours: Dataset, tmp_path: Path
) -> None:
    mistaught = dataclasses.replace(
        colours,
        train=tuple(
            dataclasses.replace(sample, class_index=(sample.class_index + 1) % 3)
            for sample in colours.train
        ),
    )
    worse = heads.further(mistaught, tmp_path)
    (fit,) = worse.fits
    assert fit.best_epoch == 0
    assert fit.history["val_loss"][0] > fit.validation_loss == worse.before.log_loss
    assert worse.metrics == worse.before
    for found, kept in zip(head_weights(worse), head_weights(heads.trained), strict=True):
        np.testing.assert_array_equal(found, kept)


def test_a_logistic_head_learns_new_images_and_a_new_class(heads: Heads, tmp_path: Path) -> None:
    folder = fill(fill(tmp_path / "data", 12), 4, split="validation")
    for split, count in (("train", 12), ("validation", 4)):
        (folder / split / "amber").mkdir()
        for number, path in enumerate(sorted((folder / split / "red").iterdir())):
            if number >= count // 2:  # dark and light are told apart
                path.rename(folder / split / "amber" / path.name)
                darken(folder / split / "amber" / path.name)
    dataset = read_dataset(folder)
    grown = heads.further(dataset, tmp_path)
    assert dataset.classes == ("amber", "blue", "green", "red")
    assert grown.network.is_logistic
    assert grown.network.model.output_shape == (None, 4)
    assert [fit.best_epoch for fit in grown.fits] == [1]
    assert grown.metrics.log_loss < grown.before.log_loss
    assert grown.metrics.accuracy == 1.0 > grown.before.accuracy


def darken(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        darker = image.point(lambda value: value // 4)
    darker.save(path)


def test_a_logistic_head_can_be_fine_tuned_in_a_retraining(
    heads: Heads, colours: Dataset, tmp_path: Path
) -> None:
    tuned = heads.further(colours, tmp_path, fine_tune_epochs=2, learning_rate=0.01)
    head, top = tuned.fits
    assert (head.best_epoch, head.validation_loss) == (0, tuned.before.log_loss)
    assert top.best_epoch > 0
    assert tuned.metrics.log_loss < tuned.before.log_loss
    assert tuned.network.is_logistic


def test_a_fine_tuned_version_s_dense_head_is_trained_further_as_it_is(
    fine_tuned: Any, colours: Dataset, tmp_path: Path
) -> None:
    store = FeatureStore(tmp_path / "store", limit=1e9)
    version = save(fine_tuned[0], colours, tmp_path / "tiny-1", store)
    dense = Heads(fine_tuned[0], version, store.folder)
    again = dense.further(colours, tmp_path / "again", epochs=1, learning_rate=1e-6)
    assert not again.network.is_logistic
    # The features of the saved version are those of this one, but for half precision.
    assert again.before.log_loss == pytest.approx(fine_tuned[0].metrics.log_loss, abs=0.02)


@pytest.mark.parametrize(
    ("new", "is_better"),
    [
        ((0.9, 0.5), True),  # more right labels, though less sure of them
        ((0.7, 0.3), False),
        ((0.8, 0.4), False),  # nothing was learned
    ],
)
def test_a_head_that_learned_from_corrections_is_judged_by_right_labels(
    colours: Dataset, new: tuple[float, float], is_better: bool
) -> None:
    corrected = dataclasses.replace(colours, corrections=colours.train[:2])
    assert train_run._is_better(metrics(*new), metrics(0.8, 0.4), corrected) is is_better
