"""The steps of the two training scripts: options in, progress and results on the terminal.

Keras and TensorFlow take seconds to load, so they are loaded after everything cheap was checked.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from imagesieve import console
from imagesieve.errors import ModelError, UsageError
from imagesieve.files import scratch_folder
from imagesieve.learning import options as training_options
from imagesieve.learning.data import audit, corrections
from imagesieve.learning.data.dataset import Dataset, read_dataset
from imagesieve.learning.export import other_formats
from imagesieve.learning.features.store import FOLDER_NAME, FeatureStore, describe
from imagesieve.learning.networks import backbones, weights
from imagesieve.learning.training.checkpoints import Checkpoint
from imagesieve.logs import LOG_FOLDER, native_messages_in_log, start_logging, timestamp
from imagesieve.model import decisions, versions
from imagesieve.model.decisions import DecisionPolicy

if TYPE_CHECKING:
    from imagesieve.learning.export.version_writer import ExportSettings
    from imagesieve.learning.networks.network import Network
    from imagesieve.learning.train_run import Trained, TrainSettings

_CHECKPOINT_FOLDER = ".interrupted"  # hidden, so that it is not mistaken for a model version

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will do, with all options checked."""

    options: argparse.Namespace
    backbone: backbones.Backbone
    image_size: tuple[int, int]  # (height, width) in pixels
    policy: DecisionPolicy | None  # of the new version; None chooses one for its classes
    model_dir: Path
    name: str  # what comes before the time in the version's name
    old: versions.ModelVersion | None = None  # to train further

    def checkpoint(self, key: str = "") -> Checkpoint:
        """Return where the state of the training's one long fit is saved."""
        return Checkpoint(self.model_dir / _CHECKPOINT_FOLDER / f"{self.name}.npz", key)

    @property
    def export(self) -> "ExportSettings":
        from imagesieve.learning.export.version_writer import ExportSettings

        max_drop = None if self.options.no_int8 else self.options.int8_max_drop / 100
        return ExportSettings(max_drop, tuple(dict.fromkeys(self.options.export)))


def start(script: str, options: argparse.Namespace) -> None:
    """Check what goes together and start logging; with `--json` a run is quiet."""
    options.quiet |= options.json
    if options.fine_tune_layers != training_options.TOP and not options.fine_tune_epochs:
        raise UsageError(
            f"--fine-tune-layers {options.fine_tune_layers} needs --fine-tune-epochs: say how many."
        )
    start_logging(script, quiet=options.quiet)
    other_formats.check(options.export)


def plan_training(options: argparse.Namespace) -> Plan:
    """Check all options that need no data; raise a UsageError or WeightsError."""
    backbone = backbones.find(options.backbone)
    side = options.image_size
    if side is not None and not backbone.min_side <= side <= 2048:
        raise UsageError(
            f"--image-size is {side}: {backbone.name} takes {backbone.min_side} to 2048 pixels."
        )
    if backbone.pretrained and options.weights != "imagenet":  # a download can wait
        weights.find_weights(backbone, options.weights)
    versions.new_version_path(options.model_dir, options.name)  # refuses an impossible name
    size = (side, side) if side else backbone.image_size
    policy = decisions.from_options(options)
    return Plan(options, backbone, size, policy, options.model_dir, options.name)


def plan_retraining(options: argparse.Namespace, old: versions.ModelVersion) -> Plan:
    """Return the plan to train a version further."""
    backbone, name = backbones.find(old.manifest.backbone), old.name.rsplit("-", 2)[0]
    size, policy = old.manifest.image_size, old.manifest.policy
    return Plan(options, backbone, size, policy, old.path.parent, name, old)


def read_data(options: argparse.Namespace) -> Dataset:
    """Check every image, corrected ones too, and say what was found, or raise a DataError."""
    feedback = training_options.feedback_folder(options)
    dataset = read_dataset(options.data, quiet=options.quiet)
    if feedback:
        how = {"weight": options.feedback_weight, "max_share": options.feedback_max_share}
        dataset = corrections.take_in(dataset, feedback, **how, quiet=options.quiet)
    counts = map(dataset.counts, (dataset.train, dataset.validation, dataset.test))
    rows = list(zip(dataset.classes, *counts, strict=True))
    _log.info("%s", console.table(["class", "train", "validation", "test"], rows))
    if dataset.split_by_content:
        _log.info("There is no validation folder: a fifth of train was set aside, by content.")
    if feedback:
        _log.info("%s", _describe_corrections(dataset, feedback))
    for finding in audit.audit(dataset):
        _log.warning("note: %s", "\n".join(audit.describe(finding)))
        for path in finding.paths:
            _log.debug("  %s", path)
    return dataset


@contextlib.contextmanager
def open_store(plan: Plan) -> Iterator[FeatureStore]:
    """Yield the store of features; a temporary one if nothing in it is to be reused.

    That of a killed process is removed by the next.
    """
    # What a network that is trained from scratch makes of images is of no use to the next training.
    if plan.options.no_cache or not plan.backbone.pretrained:
        with scratch_folder(plan.model_dir, "features") as scratch:
            yield FeatureStore(scratch / FOLDER_NAME, limit=2**62)
    else:
        yield FeatureStore(plan.model_dir / FOLDER_NAME, plan.options.cache_limit * 1e9)


def train(plan: Plan, dataset: Dataset, store: FeatureStore) -> "Trained":
    """Train a new network, or an old version's further, with new classes if there are any."""
    with _interruptible(plan):
        _log.info("Loading Keras and TensorFlow.")
        with native_messages_in_log():
            from imagesieve.learning import train_run
            from imagesieve.learning.export import version_writer
            from imagesieve.learning.training import fine_tuning

            fine_tuning.make_reproducible(plan.options.seed)
        chosen = {**vars(plan.options), "is_further": plan.old is not None}
        settings = msgspec.convert(chosen, train_run.TrainSettings)  # which takes its own of them
        network = _network(plan, dataset, settings)
        version_writer.check_space(plan.model_dir, network, plan.export)
        checkpoint = plan.checkpoint(_checkpoint_key(plan, dataset, settings))
        _check_interrupted(checkpoint, resume=plan.options.resume)
        return train_run.train(
            network,
            dataset,
            settings,
            LOG_FOLDER / "tensorboard" / timestamp(),
            store=store,
            checkpoint=checkpoint,
            quiet=plan.options.quiet,
        )


def save(
    plan: Plan, dataset: Dataset, trained: "Trained", store: FeatureStore
) -> versions.ModelVersion:
    """Write the version; only then the state of its training is no longer needed."""
    from imagesieve.learning.export import version_writer

    settings = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in sorted(vars(plan.options).items())
    }
    with _interruptible(plan):
        version = version_writer.save_version(
            trained,
            dataset,
            plan.policy or DecisionPolicy.default_for(dataset.classes),
            settings,
            versions.new_version_path(plan.model_dir, plan.name),
            store=store,
            parent=plan.old,
            export=plan.export,
        )
        plan.checkpoint().remove()
        return version


def promote_if_not_worse(
    version: versions.ModelVersion,
    old: versions.ModelVersion,
    trained: "Trained",
    *,
    force: bool = False,
) -> bool:
    """Make the version the current one if it learned and is not worse, or if that is forced."""
    from imagesieve.learning.train_run import is_not_worse

    before, after = trained.before, trained.metrics
    rows = [
        (name, _percent(metrics.accuracy), f"{metrics.log_loss:.4f}", _percent(metrics.macro_f1))
        for name, metrics in ((old.name, before), (version.name, after))
    ]
    _log.info("%s", console.table(["on the same images", "accuracy", "log loss", "mean F1"], rows))
    # Without a best epoch the new version equals the old one, and its metrics are equal.
    has_learned = any(fit.best_epoch for fit in trained.fits)
    num_corrections = sum(version.manifest.data["corrections"].values())
    is_welcome = has_learned and is_not_worse(after, before, with_corrections=num_corrections > 0)
    if is_welcome or force:
        versions.promote(version)
        if not is_welcome:
            _log.warning("%s is no better, and in use because of --force-promote.", version.name)
        return True
    kept = "the new version stays for a look (--force-promote uses it)"
    _log.warning("No better: %s stays in use; %s.", old.name, kept)
    if num_corrections:
        advice = "Whether corrections help shows only if validation holds images like them."
        _log.warning("note: %s", advice)
    return False


def report(
    version: versions.ModelVersion,
    trained: "Trained",
    options: argparse.Namespace,
    *,
    promoted: bool = True,
) -> None:
    """Print the metrics and say where everything lies."""
    metrics, data = trained.metrics, version.manifest.data
    if options.json:
        value = {
            "version": str(version.path),
            "promoted": promoted,
            "corrections": data["corrections"],
            "metrics": dataclasses.asdict(metrics),
            "before": dataclasses.asdict(trained.before),
        }
        console.print_json(value)
        return
    rows = [
        (c.name, _percent(c.precision, 1), _percent(c.recall, 1), _percent(c.f1, 1), c.support)
        for c in metrics.classes
    ]
    _log.info("%s", console.table(["class", "precision", "recall", "F1", "images"], rows))
    names = [c.name for c in metrics.classes]
    confusion = [(name, *row) for name, row in zip(names, metrics.confusion, strict=True)]
    _log.info("%s", console.table(["is ↓  called →", *names], confusion))
    _log.info("Report: %s", version.path / versions.REPORT)
    low, high = metrics.accuracy_interval
    closing = (
        f"{version.path}: validation accuracy {_percent(metrics.accuracy)} "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f}) on {metrics.num_images} images"
    )
    if num_corrections := sum(data["corrections"].values()):
        num_others = sum(data["train"].values()) - num_corrections
        learned = "1 correction" if num_corrections == 1 else f"{num_corrections} corrections"
        folder = options.feedback or options.data / training_options.FEEDBACK
        closing += f", trained on {num_others} images and {learned} from {folder}"
    print(closing if promoted else f"{closing}; not in use")


def report_check(dataset: Dataset, options: argparse.Namespace) -> None:
    """Close a `--check-only` run."""
    findings = audit.audit(dataset)
    if options.json:
        splits = ("train", "corrections", "validation", "test")
        counts = {split: len(getattr(dataset, split)) for split in splits}
        found = [{"message": x.message, "paths": list(map(str, x.paths))} for x in findings]
        console.print_json({"classes": dataset.classes, **counts, "findings": found})
        return
    outcome = f"{len(findings)} notes above" if findings else "nothing wrong was found"
    _log.info("Checked %s: %s; it can be trained on.", dataset.folder, outcome)


def report_cache(options: argparse.Namespace) -> None:
    """Print what is stored for later trainings, or clear it and print how much that was."""
    store = FeatureStore(options.model_dir / FOLDER_NAME, options.cache_limit * 1e9)
    removed = store.clear() if options.clear_cache else 0
    entries = store.entries()
    total = sum(entry.num_bytes for entry in entries)
    if options.json:
        holdings = [{**x.about, "rows": x.num_rows, "bytes": x.num_bytes} for x in entries]
        cleared = {"removed": removed, "left": total}
        found = cleared if options.clear_cache else {"holdings": holdings}
        console.print_json({"folder": str(store.folder), **found})
    elif options.clear_cache:
        in_use = f"; {console.amount(total)} are in use" if total else ""
        print(f"Removed {console.amount(removed)} from {store.folder}{in_use}.")
    elif not entries:
        print(f"Nothing is stored in {store.folder}.")
    else:
        rows = []
        for x in entries:
            used_at = time.strftime("%Y-%m-%d %H:%M", time.localtime(x.used_at))
            size = console.amount(x.num_bytes)
            rows.append((describe(x.about), x.num_rows or "", size, used_at))
        print(console.table(["stored", "rows", "size", "last used"], rows))
        print(f"{console.amount(total)} in {store.folder}; --clear-cache removes it.")


def _describe_corrections(dataset: Dataset, folder: Path) -> str:
    counts = zip(dataset.classes, dataset.counts(dataset.corrections), strict=True)
    by_class = ", ".join(f"{name} {count}" for name, count in counts if count)
    if not by_class:
        return f"There are no corrections to learn from in {folder}."
    return (
        f"In train are {len(dataset.corrections)} corrections from {folder} ({by_class}), which "
        f"count as {sum(sample.weight for sample in dataset.corrections):g} images."
    )


def _network(plan: Plan, dataset: Dataset, settings: "TrainSettings") -> "Network":
    from imagesieve.learning import train_run
    from imagesieve.learning.networks import network

    if plan.old is None:
        return train_run.build_network(
            dataset, plan.backbone, plan.options.weights, plan.image_size, settings.seed
        )
    old = train_run.open_network(plan.old)
    return network.with_classes(old, plan.old.manifest.classes, dataset.classes, settings.seed)


def _checkpoint_key(plan: Plan, dataset: Dataset, settings: "TrainSettings") -> str:
    """Return a digest of what the fits depend on: the state of another training is of no use."""
    from imagesieve.learning.export.version_writer import library_versions

    # The options name the weights of a new network, and of an old one the folder alone.
    old, options = plan.old, plan.options
    origin = old.digest if old else [plan.backbone.name, plan.image_size, options.weights]
    parts = [origin, dataclasses.asdict(settings), dataset.digest(), library_versions()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _check_interrupted(checkpoint: Checkpoint, *, resume: bool) -> None:
    """Say whether an interrupted training is continued; without `--resume` it is forgotten."""
    is_there, is_usable = checkpoint.path.exists(), checkpoint.progress() is not None
    if not resume:
        if is_usable:
            _log.info("An interrupted training is discarded; --resume would have continued it.")
        checkpoint.remove()
    elif is_usable:
        _log.info("Continuing the training that was interrupted.")
    else:
        reason = "was of other images, settings or libraries" if is_there else "is not there"
        _log.info("The interrupted training %s: starting from the beginning.", reason)


@contextlib.contextmanager
def _interruptible(plan: Plan) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(ModelError):  # a damaged pointer is no news for now
            current = versions.current_name(plan.model_dir)
            stays = f"{current} stays in use" if current else "there is no model yet"
            _log.warning("Stopped: no version was put in use, nothing was changed, %s.", stays)
        if plan.checkpoint().path.exists():
            _log.warning("What was learned so far is saved: --resume continues from there.")
        raise


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"
