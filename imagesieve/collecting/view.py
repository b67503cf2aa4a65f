"""What a person sees while a folder is filled: one line that is drawn anew."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from imagesieve.collecting.outcome import Outcome

_PLAIN_SECONDS = 10.0  # without a terminal: a line this often is enough to see life
_DRAWN_PER_SECOND = 5
_MAX_NAME = 16  # cells
_BAR = 12  # cells

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def watching(outcome: Outcome, *, quiet: bool = False) -> Iterator[None]:
    """Show the counts of `outcome` while the block changes them, on standard error."""
    if quiet:
        yield
    elif sys.stderr and sys.stderr.isatty():
        with _live(_Line(outcome)):
            yield
    else:
        with _ticking(_Line(outcome)):
            yield


class _Line:
    """The line; whoever draws it asks for the counts of that moment."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._start = time.monotonic()

    def text(self) -> str:
        outcome = self._outcome
        rate = outcome.kept / max(0.001, time.monotonic() - self._start)
        duplicates = outcome.duplicates + outcome.near_duplicates + outcome.leaks
        return (
            f"{outcome.num_images}/{outcome.target.limit} kept · {outcome.found} found · "
            f"{duplicates} dup · {outcome.failed.total()} failed · {rate:.1f}/s"
        )

    @property
    def name(self) -> str:
        return self._outcome.target.name

    def __rich_console__(self, screen: Any, options: Any) -> Iterator[Any]:
        from rich import progress_bar, table, text

        outcome = self._outcome
        counts = text.Text(self.text())
        # A long name gives way: the numbers are what changes.
        room = options.max_width - counts.cell_len - _BAR - 2
        name = text.Text(self.name)
        name.truncate(max(1, min(_MAX_NAME, room)), overflow="ellipsis")
        done = min(outcome.num_images, outcome.target.limit)
        bar = progress_bar.ProgressBar(total=outcome.target.limit, completed=done, width=_BAR)
        grid = table.Table.grid(padding=(0, 1))
        for _ in range(3):
            grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_row(name, bar, counts)
        yield grid


def _live(line: _Line) -> contextlib.AbstractContextManager[object]:
    from rich import console, live

    screen = console.Console(stderr=True, highlight=False)
    return live.Live(line, console=screen, refresh_per_second=_DRAWN_PER_SECOND)


@contextlib.contextmanager
def _ticking(line: _Line) -> Iterator[None]:
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(_PLAIN_SECONDS):
            _log.info("%s: %s", line.name, line.text())

    ticker = threading.Thread(target=tick, name="view", daemon=True)
    ticker.start()
    try:
        yield
    finally:
        stop.set()
        ticker.join()
