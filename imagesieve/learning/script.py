"""The steps of the two training scripts: options in, progress and results on the terminal.

Keras and TensorFlow take seconds to load, so they are loaded after everything cheap was checked.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagesieve import console
from imagesieve.errors import DataError, ModelError, UsageError
from imagesieve.learning import options as training_options
from imagesieve.learning.data import audit as audits
from imagesieve.learning.data import corrections
from imagesieve.learning.data.dataset import Dataset, read_dataset
from imagesieve.learning.export import other_formats
from imagesieve.learning.features import store as feature_store
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.networks import backbones, weights
from imagesieve.logs import LOG_FOLDER, native_messages_in_log, start_logging, timestamp
from imagesieve.model import decisions, versions
from imagesieve.model.decisions import DecisionPolicy

if TYPE_CHECKING:
    from imagesieve.learning.export.version_writer import ExportSettings
    from imagesieve.learning.train_run import Trained, TrainSettings
    from imagesieve.learning.training.checkpoints import Checkpoint

_CHECKPOINT_FOLDER = ".interrupted"  # hidden, so that it is not mistaken for a model version
_STAGES = ("top", "all", "network")  # fits long enough to be resumed

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will do, with all options checked.

    Attributes:
        backbone: the row of the table.
        image_size: (height, width) in pixels.
        policy: of the new version; None chooses one for its classes.
        path: of the new version.
    """

    backbone: backbones.Backbone
    image_size: tuple[int, int]
    policy: DecisionPolicy | None
    path: Path


def start(script: str, options: argparse.Namespace) -> None:
    """Check the numbers and start logging."""
    training_options.check(options)
    start_logging(script, quiet=options.quiet or options.json)
    other_formats.check(options.export)


def plan_training(options: argparse.Namespace) -> Plan:
    """Check all options that need no data.

    Raises:
        UsageError: one of them can never work.
        WeightsError: the weights file does not exist.
    """
    backbone = backbones.find(options.backbone)
    side = options.image_size
    if side is not None and not backbone.min_side <= side <= 2048:
        raise UsageError(
            f"--image-size is {side}: {backbone.name} takes {backbone.min_side} to 2048 pixels."
        )
    if backbone.pretrained and options.weights != "imagenet":  # a download can wait
        weights.find_weights(backbone, options.weights)
    return Plan(
        backbone,
        (side, side) if side else backbone.image_size,
        decisions.from_options(options),
        versions.new_version_path(options.model_dir, options.name),
    )


def plan_retraining(options: argparse.Namespace) -> tuple[versions.ModelVersion, Plan]:
    """Find the version to train further.

    Raises:
        ModelError: there is none that can be used.
    """
    old = versions.load(options.model)
    plan = Plan(
        backbones.find(old.manifest.backbone),
        old.manifest.image_size,
        old.manifest.policy,
        versions.new_version_path(old.path.parent, _name_of(old.path)),
    )
    return old, plan


def read_data(options: argparse.Namespace) -> Dataset:
    """Check every image, corrected ones too, and say what was found.

    Raises:
        DataError: there is nothing to train on.
        UsageError: there are no corrected images where they should be.
    """
    feedback = training_options.feedback_folder(options)
    if not options.data.is_dir():
        raise DataError(
            f"There is no data folder {options.data}: put images into {options.data}/train/"
            "<class>/, or name another folder with --data."
        )
    dataset = read_dataset(options.data, quiet=_is_quiet(options))
    if feedback:
        count = corrections.count_files(feedback)
        with console.progress("checking corrections", count, quiet=_is_quiet(options)) as advance:
            dataset = corrections.take_in(
                dataset,
                feedback,
                weight=options.feedback_weight,
                max_share=options.feedback_max_share,
                advance=advance,
            )
    rows = audits.summary_rows(dataset)
    _log.info("%s", console.table(["class", "train", "validation", "test"], rows))
    if dataset.split_by_content:
        _log.info("There is no validation folder: a fifth of train was set aside, by content.")
    if feedback:
        _log.info("%s", _describe_corrections(dataset, feedback))
    for finding in audits.audit(dataset):
        _log.warning("note: %s", "\n".join(audits.describe(finding)))
        for path in finding.paths:
            _log.debug("  %s", path)
    return dataset


@contextlib.contextmanager
def open_store(plan: Plan, options: argparse.Namespace) -> Iterator[FeatureStore]:
    """Yield the store of features; a temporary one if nothing in it is to be reused."""
    folder = plan.path.parent
    # What a network that is trained from scratch makes of images is of no use to the next training.
    if options.no_cache or not plan.backbone.pretrained:
        with feature_store.temporary_store(folder) as store:
            yield store
    else:
        yield feature_store.open_store(folder, options.cache_limit)


def train(
    plan: Plan, dataset: Dataset, options: argparse.Namespace, store: FeatureStore
) -> "Trained":
    """Build and train a new network."""
    with _interruptible(plan):
        train_run, settings = _prepare(options)
        network = train_run.build_network(
            dataset, plan.backbone, options.weights, plan.image_size, settings, store
        )
        origin = [plan.backbone.name, plan.image_size, str(options.weights)]
        return _run(network, dataset, settings, store, origin, plan, options)


def train_further(
    old: versions.ModelVersion,
    plan: Plan,
    dataset: Dataset,
    options: argparse.Namespace,
    store: FeatureStore,
) -> "Trained":
    """Train an old version's network further, with new classes if there are any."""
    with _interruptible(plan):
        train_run, settings = _prepare(options)
        settings = dataclasses.replace(settings, is_further=True)
        from imagesieve.learning.networks.network import with_classes

        network = with_classes(
            train_run.open_network(old), old.manifest.classes, dataset.classes, settings.seed
        )
        return _run(network, dataset, settings, store, [old.digest], plan, options)


def save(
    trained: "Trained",
    dataset: Dataset,
    plan: Plan,
    options: argparse.Namespace,
    store: FeatureStore,
    *,
    parent: versions.ModelVersion | None = None,
) -> versions.ModelVersion:
    """Write the version; only then the state of its training is no longer needed."""
    from imagesieve.learning import train_run

    settings = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in sorted(vars(options).items())
    }
    policy = plan.policy or DecisionPolicy.default_for(dataset.classes)
    with _interruptible(plan):
        # Anew: another training that began in the same second may have taken the planned name.
        path = versions.new_version_path(plan.path.parent, _name_of(plan.path))
        version = train_run.save(
            trained,
            dataset,
            policy,
            settings,
            path,
            store=store,
            parent=parent,
            export=_export(options),
        )
        _forget_interrupted(plan)
        with contextlib.suppress(OSError):  # not there, or another training's state lies in it
            (plan.path.parent / _CHECKPOINT_FOLDER).rmdir()
        return version


def _describe_corrections(dataset: Dataset, folder: Path) -> str:
    counts = zip(dataset.classes, dataset.counts(dataset.corrections), strict=True)
    by_class = ", ".join(f"{name} {count}" for name, count in counts if count)
    if not by_class:
        return f"There are no corrections to learn from in {folder}."
    return (
        f"In train are {len(dataset.corrections)} corrections from {folder} ({by_class}), which "
        f"count as {sum(sample.weight for sample in dataset.corrections):g} images."
    )


def _prepare(options: argparse.Namespace) -> tuple[Any, "TrainSettings"]:
    _log.info("Loading Keras and TensorFlow.")
    with native_messages_in_log():
        from imagesieve.learning import train_run
        from imagesieve.learning.training import fine_tuning

        fine_tuning.make_reproducible(options.seed)
    settings = train_run.TrainSettings(
        epochs=options.epochs,
        fine_tune_epochs=options.fine_tune_epochs,
        fine_tune_layers=options.fine_tune_layers,
        head=getattr(options, "head", training_options.LOGISTIC),
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        views=options.views,
        seed=options.seed,
    )
    return train_run, settings


def _run(
    network: Any,
    dataset: Dataset,
    settings: "TrainSettings",
    store: FeatureStore,
    origin: Sequence[Any],
    plan: Plan,
    options: argparse.Namespace,
) -> "Trained":
    from imagesieve.learning import train_run
    from imagesieve.learning.export.version_writer import check_space, library_versions

    check_space(plan.path.parent, network, _export(options))
    # What the fits depend on: a state that was left by another training is of no use.
    text = json.dumps(
        [origin, dataclasses.asdict(settings), dataset.fingerprint(), library_versions()]
    )
    checkpoints = _checkpoints(plan, hashlib.sha256(text.encode()).hexdigest(), options)
    return train_run.train(
        network,
        dataset,
        settings,
        LOG_FOLDER / "tensorboard" / timestamp(),
        store=store,
        checkpoints=checkpoints,
        quiet=_is_quiet(options),
    )


def _export(options: argparse.Namespace) -> "ExportSettings":
    from imagesieve.learning.export.version_writer import ExportSettings

    return ExportSettings(
        int8_max_drop=None if options.no_int8 else options.int8_max_drop / 100,
        formats=tuple(dict.fromkeys(options.export)),
    )


def _checkpoints(
    plan: Plan, key: str, options: argparse.Namespace
) -> Callable[[str], "Checkpoint"]:
    """Return a function from stage to checkpoint; old ones stay only for `--resume`."""
    from imagesieve.learning.training.checkpoints import Checkpoint

    found = [stage for stage in _STAGES if _checkpoint_path(plan, stage).exists()]
    usable = [stage for stage in found if Checkpoint(_checkpoint_path(plan, stage), key).progress()]
    if options.resume and not usable:
        reason = "was of other images, settings or libraries" if found else "is not there"
        _log.info("The interrupted training %s: starting from the beginning.", reason)
    elif options.resume:
        _log.info("Continuing the training that was interrupted.")
    elif usable:
        _log.info("An interrupted training is discarded; --resume would have continued it.")
    if not options.resume:
        _forget_interrupted(plan)
    return lambda stage: Checkpoint(_checkpoint_path(plan, stage), key)


def _forget_interrupted(plan: Plan) -> None:
    from imagesieve.learning.training.checkpoints import Checkpoint

    for stage in _STAGES:
        Checkpoint(_checkpoint_path(plan, stage), key="").remove()


def _checkpoint_path(plan: Plan, stage: str) -> Path:
    folder = plan.path.parent / _CHECKPOINT_FOLDER
    return folder / f"{_name_of(plan.path)}-{stage}.npz"


@contextlib.contextmanager
def _interruptible(plan: Plan) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(ModelError):  # a damaged pointer is no news for now
            current = versions.current_name(plan.path.parent)
            stays = f"{current} stays in use" if current else "there is no model yet"
            _log.warning("Stopped: no version was put in use, nothing was changed, %s.", stays)
        if any(_checkpoint_path(plan, stage).exists() for stage in _STAGES):
            _log.warning("What was learned so far is saved: --resume continues from there.")
        raise


def _name_of(version: Path) -> str:
    """Return what comes before the time in a version's name."""
    return version.name.rsplit("-", 2)[0]


def _is_quiet(options: argparse.Namespace) -> bool:
    return bool(options.quiet or options.json)
