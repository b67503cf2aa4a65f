"""What a run did: counts, exit code, and how both are shown."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from classifier import console
from classifier.errors import SearchError

EXIT_SHORT = 3  # all went well, but Bing has no more pictures


@dataclasses.dataclass
class Outcome:
    """What a run did for one query.

    Attributes:
        limit: the good pictures wanted.
        found: good pictures that were there before.
        kept: pictures added.
        duplicates: results that were there already, byte for byte.
        failed: reason -> number of results that were no use.
        unusable: files in the folder that are not counted; they are left where they are.
        error: why the search ended early, or None.
    """

    query: str
    folder: Path
    limit: int
    found: int = 0
    kept: int = 0
    duplicates: int = 0
    failed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unusable: list[Path] = dataclasses.field(default_factory=list)
    error: SearchError | None = None

    @property
    def is_filled(self) -> bool:
        """Whether the folder holds what was wanted."""
        return self.found + self.kept >= self.limit

    @property
    def exit_code(self) -> int:
        """0 filled, 3 when Bing has no more, else the code of the error."""
        if self.is_filled:
            return console.EXIT_OK
        return self.error.exit_code if self.error else EXIT_SHORT


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Give the exit code for several queries: the first error's, else 3 if any is short, else 0."""
    codes = [outcome.exit_code for outcome in outcomes]
    errors = [code for code in codes if code not in (console.EXIT_OK, EXIT_SHORT)]
    return errors[0] if errors else max(codes, default=console.EXIT_OK)


def summary(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Give everything that was counted, ready for JSON."""
    failed: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        failed += outcome.failed
    return {
        "kept": sum(outcome.kept for outcome in outcomes),
        "duplicates": sum(outcome.duplicates for outcome in outcomes),
        "failed": dict(failed.most_common()),
        "exit_code": exit_code(outcomes),
        "queries": [_summary_of(outcome) for outcome in outcomes],
    }


def summary_table(outcomes: Sequence[Outcome]) -> str:
    """Lay out what was kept, what was there already, and what failed for which reason."""
    reasons = sorted({reason for outcome in outcomes for reason in outcome.failed})
    queries = [outcome.query for outcome in outcomes]
    columns = [[outcome.failed[reason] for outcome in outcomes] for reason in reasons]
    rows: list[list[object]] = [
        ["there before", *(outcome.found for outcome in outcomes)],
        ["kept", *(outcome.kept for outcome in outcomes)],
        ["duplicates", *(outcome.duplicates for outcome in outcomes)],
        *([f"failed: {reason}", *counts] for reason, counts in zip(reasons, columns, strict=True)),
    ]
    if len(outcomes) > 1:  # queries downwards: a file may have hundreds
        header, *body = zip(["query", *queries], *rows, strict=False)
        return console.table([str(cell) for cell in header], body)
    return console.table(["", *queries], rows)


def _summary_of(outcome: Outcome) -> dict[str, object]:
    return {
        "query": outcome.query,
        "folder": str(outcome.folder),
        "limit": outcome.limit,
        "found": outcome.found,
        "kept": outcome.kept,
        "duplicates": outcome.duplicates,
        "failed": dict(outcome.failed.most_common()),
        "unusable": [str(path) for path in outcome.unusable],
        "error": str(outcome.error) if outcome.error else None,
        "exit_code": outcome.exit_code,
    }
