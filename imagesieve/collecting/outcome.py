"""What a run did: counts, exit code, and how both are shown."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from imagesieve import console
from imagesieve.collecting.targets import Target
from imagesieve.errors import SearchError

EXIT_SHORT = 3  # all went well, but there are no more images, or no more time

_MAX_COLUMNS = 4  # side by side on a terminal of 80 columns

_ALWAYS_SHOWN = ("limit", "there before", "found", "kept", "duplicates")


def _count(line: str) -> int:
    """Return a field that counts, with its line in the table; its name is that in JSON, too."""
    return dataclasses.field(default=0, metadata={"line": line})


@dataclasses.dataclass
class Outcome:
    """What a run did for one target."""

    target: Target
    before: int = _count("there before")  # good images, up to each side's limit
    surplus: int = 0  # those over it
    found: int = _count("found")  # results that the search gave
    kept: int = _count("kept")  # images added
    enlarged: int = _count("enlarged")  # images replaced by a larger copy
    known: int = _count("seen before")  # results that an earlier run has dealt with
    duplicates: int = _count("duplicates")  # there byte for byte, or by Bing's own digest
    near_duplicates: int = _count("near duplicates")  # there in another size or encoding
    in_another_split: int = _count("in another split")  # left out because another split has them
    # Reason -> number of results that were of no use.
    failed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    # Path of a kept image -> the same or nearly the same image in other classes.
    also_in: dict[Path, tuple[Path, ...]] = dataclasses.field(default_factory=dict)
    # Files in the folders that are not counted; they stay where they are.
    unusable: list[Path] = dataclasses.field(default_factory=list)
    is_out_of_time: bool = False  # whether the run ended because its time was over
    seconds: float = 0.0  # how long it took
    error: SearchError | None = None  # why the search ended early

    @property
    def num_images(self) -> int:
        return self.before + self.surplus + self.kept

    @property
    def num_duplicates(self) -> int:
        return self.duplicates + self.near_duplicates + self.in_another_split

    @property
    def is_filled(self) -> bool:
        return self.before + self.kept >= self.target.limit

    @property
    def exit_code(self) -> int:
        if self.is_filled:
            return console.EXIT_OK
        return self.error.exit_code if self.error else EXIT_SHORT

    @property
    def explanation(self) -> str:
        """One sentence on why the folders are not full; "" if they are."""
        if self.is_filled:
            return ""
        missing = f"{self.target.name}: {self.num_images} of {self.target.limit} images"
        if self.error is not None:
            return f"{missing}: {self.error}"
        if self.is_out_of_time:
            return f"{missing}: the time is over. Run it again to go on."
        return f"{missing}: no more were found. Add queries, or loosen the filters."

    def progress(self, seconds: float) -> str:
        return (
            f"{self.num_images}/{self.target.limit} kept · {self.found} found · "
            f"{self.num_duplicates} dup · {self.failed.total()} failed · "
            f"{self.kept / max(0.001, seconds):.1f}/s"
        )


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Return the exit code of a run: the first error's, else 3 if any is short, else 0."""
    codes = [outcome.exit_code for outcome in outcomes]
    errors = [code for code in codes if code not in (console.EXIT_OK, EXIT_SHORT)]
    return errors[0] if errors else max(codes, default=console.EXIT_OK)


_COUNTS = {
    field.name: field.metadata["line"]
    for field in dataclasses.fields(Outcome)
    if "line" in field.metadata
}


def summary(outcomes: Sequence[Outcome], *, is_interrupted: bool = False) -> dict[str, object]:
    failed = sum((outcome.failed for outcome in outcomes), collections.Counter[str]())
    return {
        "images": sum(outcome.num_images for outcome in outcomes),
        "kept": sum(outcome.kept for outcome in outcomes),
        "duplicates": sum(outcome.duplicates for outcome in outcomes),
        "near_duplicates": sum(outcome.near_duplicates for outcome in outcomes),
        "failed": dict(failed.most_common()),
        "exit_code": console.EXIT_INTERRUPTED if is_interrupted else exit_code(outcomes),
        "classes": [_summary_of(outcome) for outcome in outcomes],
    }


def _summary_of(outcome: Outcome) -> dict[str, object]:
    target = outcome.target
    return {
        "class": target.name,
        "queries": [query.text for query in target.queries],
        "folders": [{"path": str(side.folder), "limit": side.limit} for side in target.sides],
        "limit": target.limit,
        **{name: getattr(outcome, name) for name in _COUNTS},
        "failed": dict(outcome.failed.most_common()),
        "also_in": {str(path): [str(p) for p in paths] for path, paths in outcome.also_in.items()},
        "unusable": [str(path) for path in outcome.unusable],
        "seconds": round(outcome.seconds, 3),
        "error": str(outcome.error) if outcome.error else None,
        "exit_code": outcome.exit_code,
    }


def summary_table(outcomes: Sequence[Outcome]) -> str:
    rows = _rows(outcomes)
    if len(outcomes) <= _MAX_COLUMNS:
        names = [outcome.target.name for outcome in outcomes]
        return console.table(["", *names], [[name, *counts] for name, counts in rows])
    # A file may have hundreds of queries: those go downwards, and the details are for all together.
    in_all = console.table(["", "in all"], [[name, sum(counts)] for name, counts in rows])
    header = ["", "limit", "before", "found", "kept", "duplicates", "failed"]
    lines = [
        (o.target.name, o.target.limit, o.before, o.found, o.kept, o.num_duplicates, failed)
        for o, failed in ((outcome, outcome.failed.total()) for outcome in outcomes)
    ]
    return f"{console.table(header, lines)}\n\n{in_all}"


def _rows(outcomes: Sequence[Outcome]) -> list[tuple[str, list[int]]]:
    reasons = sorted({reason for outcome in outcomes for reason in outcome.failed})
    rows = [
        ("limit", [outcome.target.limit for outcome in outcomes]),
        *((line, [getattr(o, name) for o in outcomes]) for name, line in _COUNTS.items()),
        *((f"failed: {reason}", [o.failed[reason] for o in outcomes]) for reason in reasons),
    ]
    return [(name, counts) for name, counts in rows if name in _ALWAYS_SHOWN or any(counts)]
