"""What a training or a check has come to: for the terminal, and for the version in use."""

import argparse
import logging
import time
from typing import TYPE_CHECKING

from imagesieve import console
from imagesieve.learning import options as training_options
from imagesieve.learning.data import audit as audits
from imagesieve.learning.data.dataset import Dataset
from imagesieve.learning.features import store as feature_store
from imagesieve.model import versions

if TYPE_CHECKING:
    from imagesieve.learning.train_run import Trained

_log = logging.getLogger(__name__)


def report_cache(options: argparse.Namespace) -> int:
    """Print what is stored for later trainings, or clear it and print how much that was."""
    store = feature_store.open_store(options.model_dir, options.cache_limit)
    if options.clear_cache:
        removed = store.clear()
        left = sum(entry.num_bytes for entry in store.entries())
        if options.json:
            console.print_json({"folder": str(store.folder), "removed": removed, "left": left})
            return 0
        in_use = f"; {console.amount(left)} are in use" if left else ""
        print(f"Removed {console.amount(removed)} from {store.folder}{in_use}.")
        return 0
    entries = store.entries()
    if options.json:
        holdings = [{**x.about, "rows": x.num_rows, "bytes": x.num_bytes} for x in entries]
        console.print_json({"folder": str(store.folder), "holdings": holdings})
        return 0
    if not entries:
        print(f"Nothing is stored in {store.folder}.")
        return 0
    rows = [
        (
            feature_store.describe(entry.about),
            entry.num_rows or "",
            console.amount(entry.num_bytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used_at)),
        )
        for entry in entries
    ]
    print(console.table(["stored", "rows", "size", "last used"], rows))
    total = sum(entry.num_bytes for entry in entries)
    print(f"{console.amount(total)} in {store.folder}; --clear-cache removes it.")
    return 0


def report_check(dataset: Dataset, options: argparse.Namespace) -> int:
    """Close a `--check-only` run."""
    findings = audits.audit(dataset)
    if options.json:
        value = {
            "classes": list(dataset.classes),
            "train": len(dataset.train),
            "corrections": len(dataset.corrections),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
            "findings": [
                {"message": finding.message, "paths": [str(path) for path in finding.paths]}
                for finding in findings
            ],
        }
        console.print_json(value)
        return 0
    outcome = f"{len(findings)} notes above" if findings else "nothing wrong was found"
    _log.info("Checked %s: %s; it can be trained on.", dataset.folder, outcome)
    return 0


def promote_if_not_worse(
    version: versions.ModelVersion,
    old: versions.ModelVersion,
    trained: "Trained",
    options: argparse.Namespace,
) -> bool:
    """Make the version the current one if it learned and is not worse, or if that is forced."""
    from imagesieve.learning.train_run import is_not_worse

    before, after = trained.before, trained.metrics
    rows = [
        (
            name,
            f"{100 * metrics.accuracy:.2f} %",
            f"{metrics.log_loss:.4f}",
            f"{100 * metrics.macro_f1:.2f} %",
        )
        for name, metrics in ((old.name, before), (version.name, after))
    ]
    _log.info("%s", console.table(["on the same images", "accuracy", "log loss", "mean F1"], rows))
    # Without a best epoch the new version equals the old one, and its metrics are equal.
    has_learned = any(fit.best_epoch for fit in trained.fits)
    num_corrections = sum(version.manifest.data["corrections"].values())
    is_welcome = has_learned and is_not_worse(after, before, with_corrections=num_corrections > 0)
    if is_welcome or options.force_promote:
        versions.promote(version)
        if not is_welcome:
            _log.warning("%s is no better, and in use because of --force-promote.", version.name)
        return True
    _log.warning(
        "No better: %s stays in use; the new version stays for a look (--force-promote uses it).",
        old.name,
    )
    if num_corrections:
        _log.warning(
            "note: Whether corrections help shows only if validation holds images like them."
        )
    return False


def report(
    version: versions.ModelVersion,
    trained: "Trained",
    options: argparse.Namespace,
    *,
    promoted: bool = True,
) -> None:
    """Print the metrics and say where everything lies."""
    metrics = trained.metrics
    if options.json:
        value = {
            "version": str(version.path),
            "promoted": promoted,
            "corrections": version.manifest.data["corrections"],
            "metrics": metrics.to_json(),
            "before": trained.before.to_json(),
        }
        console.print_json(value)
        return
    rows = [
        (c.name, *(f"{100 * share:.1f} %" for share in (c.precision, c.recall, c.f1)), c.support)
        for c in metrics.classes
    ]
    _log.info("%s", console.table(["class", "precision", "recall", "F1", "images"], rows))
    names = [c.name for c in metrics.classes]
    confusion = [(name, *row) for name, row in zip(names, metrics.confusion, strict=True)]
    _log.info("%s", console.table(["is ↓  called →", *names], confusion))
    low, high = metrics.accuracy_interval
    _log.info("Report: %s", version.path / versions.REPORT)
    print(
        f"{version.path}: validation accuracy {100 * metrics.accuracy:.2f} % "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f}) on {metrics.num_images} images"
        + _learned_from(version, options)
        + ("" if promoted else "; not in use")
    )


def _learned_from(version: versions.ModelVersion, options: argparse.Namespace) -> str:
    """Return the end of the closing line: the corrections learned from, if any."""
    data = version.manifest.data
    num_corrections = sum(data["corrections"].values())
    if not num_corrections:
        return ""
    num_others = sum(data["train"].values()) - num_corrections
    corrections = "1 correction" if num_corrections == 1 else f"{num_corrections} corrections"
    folder = options.feedback or options.data / training_options.FEEDBACK
    return f", trained on {num_others} images and {corrections} from {folder}"
