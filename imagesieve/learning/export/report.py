"""A model version's report: one HTML file that opens anywhere and needs nothing from elsewhere."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagesieve import images
from imagesieve.errors import ImageError
from imagesieve.files import write_text
from imagesieve.learning.data.dataset import Dataset
from imagesieve.learning.train_run import Trained
from imagesieve.learning.training.checkpoints import FitProgress
from imagesieve.model.versions import Manifest

_MAX_MISTAKES = 60  # shown, most confident first; the rest is counted
_THUMBNAIL = 200  # pixels, the longer side

_GREY, _BLUE = "#8a8a8a", "#1f6fb2"

_TEMPLATES = Path(__file__).parent / "templates"


def write(path: Path, name: str, manifest: Manifest, trained: Trained, dataset: Dataset) -> None:
    """Write the report of version `name` as one HTML file, or raise an OutputError.

    The manifest is complete but for the files' checksums.
    """
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    mistakes, num_mistakes = _mistakes(dataset, trained.probabilities)
    page = environment.get_template("report.html").render(
        name=name,
        manifest=manifest,
        metrics=manifest.metrics,
        comparison={"before": trained.before, "after": trained.metrics},
        curves=markupsafe.Markup(_curves(trained.fits)),  # noqa: S704 (our own drawing)
        num_corrections=len(dataset.corrections),
        mistakes=mistakes,
        num_mistakes=num_mistakes,
        percent=lambda share: f"{100 * share:.1f} %",
    )
    write_text(path, page)


def _mistakes(dataset: Dataset, probabilities: np.ndarray) -> tuple[list[dict[str, Any]], int]:
    labels = np.array([sample.class_index for sample in dataset.validation])
    called = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(called != labels)
    wrong = wrong[np.argsort(-probabilities[wrong, called[wrong]], kind="stable")]
    shown = []
    for number in wrong[:_MAX_MISTAKES].tolist():
        path, label = dataset.validation[number].path, called[number]
        mistake = {
            "path": str(path),
            "truth": dataset.classes[labels[number]],
            "label": dataset.classes[label],
            "probability": float(probabilities[number, label]),
            "thumbnail": _thumbnail(path),
        }
        shown.append(mistake)
    return shown, len(wrong)


def _thumbnail(path: Path) -> str:
    from PIL import Image

    try:
        image = Image.fromarray(images.decode(path).pixels)
    except ImageError:  # it was readable a moment ago; a report is not worth losing the model for
        image = Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), "grey")
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _curves(fits: Sequence[FitProgress]) -> str:
    """Draw how each fit came to its result, as SVG."""
    from matplotlib.figure import Figure

    if not fits:
        return ""
    figure = Figure(figsize=(9, 3.2 * len(fits)), layout="constrained")
    parts = figure.subfigures(len(fits), squeeze=False)[:, 0]
    for part, fit in zip(parts, fits, strict=True):
        draw = _draw_sweep if "l2" in fit.history else _draw_epochs
        draw(part, fit)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def _draw_epochs(figure: Any, fit: FitProgress) -> None:
    from matplotlib.ticker import MaxNLocator

    history = fit.history
    epochs = range(1, len(history["loss"]) + 1)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, history[metric], ".-", color=_GREY, label="training")
        axes.plot(epochs, history[f"val_{metric}"], ".-", color=_BLUE, label="validation")
        if fit.best_epoch:
            axes.axvline(fit.best_epoch, color=_BLUE, linewidth=0.8, linestyle=":")
        axes.set_xlabel("epoch (dotted: best)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _finish(axes, f"{fit.stage}: {metric}")


def _draw_sweep(figure: Any, fit: FitProgress) -> None:
    axes, history = figure.subplots(1, 1), fit.history
    losses = history["out_of_fold_loss"]
    axes.semilogx(history["l2"], losses, ".-", color=_GREY, label="out of fold")
    axes.axhline(history["val_loss"][-1], color=_BLUE, label="validation, chosen strength")
    axes.axvline(history["chosen_l2"][0], color=_BLUE, linewidth=0.8, linestyle=":")
    axes.set_xlabel("strength of the L2 penalty (dotted: chosen)")
    _finish(axes, f"{fit.stage}: loss of the logistic regression")


def _finish(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
