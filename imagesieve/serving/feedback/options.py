"""The options of corrections."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from imagesieve import console
from imagesieve.errors import UsageError
from imagesieve.feedback import AUDIT, RECENT, UNCERTAIN

if TYPE_CHECKING:  # these load Flask, NumPy and Pillow
    from imagesieve.serving.limits import Admission
    from imagesieve.serving.routes.feedback import Corrections

DEFAULT_FOLDER = Path("data/feedback")
DEFAULT_MEGABYTES = 2048
MAX_MEGABYTES = 1_000_000

# What each choice of --keep stores on disk.
_KEEP = MappingProxyType(
    {
        "none": (),
        "uncertain": (UNCERTAIN, AUDIT),
        "all": (UNCERTAIN, AUDIT, RECENT),
    }
)
_GOING_WITH_FEEDBACK = ("feedback", "feedback_limit", "keep", "audit_share", "class_of_interest")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `from_options` reads."""
    add = parser.add_argument_group("corrections").add_argument
    add(
        "--feedback",
        type=Path,
        metavar="DIR",
        help="where corrected images are stored, in a folder for each class, for the next "
        f"training ({DEFAULT_FOLDER})",
    )
    add("--no-feedback", action="store_true", help="take no corrections, and hold no images")
    add(
        "--feedback-limit",
        type=console.whole_number(1, MAX_MEGABYTES, what="whole number of megabytes"),
        metavar="MB",
        help=f"how large all corrected images may grow ({DEFAULT_MEGABYTES})",
    )
    add(
        "--keep",
        choices=tuple(_KEEP),
        help="which images wait for review on disk too, so that a restart does not lose "
        "them (none; but audited ones with --audit-share)",
    )
    add(
        "--audit-share",
        type=console.number(0, 1),
        metavar="P",
        help="part of the dropped images, 0 to 1, that is drawn for review, which shows what the "
        "filter misses: 0.01 is one of a hundred (0)",
    )
    add(
        "--class-of-interest",
        metavar="NAME",
        help="what the filter is to keep; all else counts as dropped (the fallback class is "
        "what is dropped)",
    )


def from_options(
    options: argparse.Namespace,
    classes: Callable[[], Sequence[str]],
    admission: "Admission",
    count: Callable[[str], None] = lambda action: None,
) -> "Corrections | None":
    """Return the corrections that the command line asks for, or None with --no-feedback.

    Args:
        options: of `add_options`.
        classes: returns those of the model in use.
        admission: limits what is decoded at once, with predictions.
        count: called with the action of each event that was recorded.

    Raises:
        UsageError: another option does not go with --no-feedback.
    """
    if options.no_feedback:
        _refuse_beside_no_feedback(options)
        return None
    from imagesieve.serving.feedback.review import Selection
    from imagesieve.serving.feedback.store import FeedbackLimits
    from imagesieve.serving.routes.feedback import Corrections

    share = options.audit_share or 0.0
    megabytes = options.feedback_limit or DEFAULT_MEGABYTES
    return Corrections(
        options.feedback or DEFAULT_FOLDER,
        classes,
        admission,
        limits=FeedbackLimits(max_bytes=megabytes * 2**20),
        selection=Selection(audit_share=share, class_of_interest=options.class_of_interest),
        reasons_to_store=_KEEP[options.keep] if options.keep else ((AUDIT,) if share else ()),
        count=count,
    )


def _refuse_beside_no_feedback(options: argparse.Namespace) -> None:
    for name in _GOING_WITH_FEEDBACK:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} does not go with --no-feedback.")
