"""What every script shares on a terminal: one exit path, help that reads well, progress, tables."""

import argparse
import contextlib
import io
import json
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from imagesieve.errors import ClassifierError, UsageError
from imagesieve.files import is_disk_error, output_error

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_PLAIN_PROGRESS_SECONDS = 10.0  # without a terminal: a line this often is enough to see life

_log = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors leave through `run_script` like all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see: {self.prog} --help)")


def argument_parser(description: str, examples: str) -> argparse.ArgumentParser:
    """Give a parser with `--quiet`, a description, and `examples` printed below the options."""
    parser = _Parser(
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quiet", action="store_true", help="print only warnings and errors")
    return parser


def whole_number(what: str, most: int) -> Callable[[str], int]:
    """Give the type of an option that takes a whole number from 1.

    Args:
        what: is counted, such as "requests"; for the message.
        most: the largest that is taken.
    """

    def parse(text: str) -> int:
        # `int` alone would take blanks, signs, underscores and the digits of other scripts, too.
        if not re.fullmatch("[0-9]{1,10}", text) or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number of {what} from 1 to {most:,}"
            )
        return int(text)

    return parse


def run_script(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> NoReturn:
    """Run a script's `main` and leave the process with its exit code.

    An error of our own family is one line on standard error. Anything else is a bug: one line too,
    and the traceback goes to the script's log file. Ctrl-C exits with 130, a closed pipe quietly;
    SIGTERM exits with 143 after every unfinished file was removed.
    """
    _accept_any_file_name()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = main(arguments)
        if sys.stdout:  # None when the caller closed it
            sys.stdout.flush()
    except ClassifierError as error:
        _say(f"error: {' '.join(str(error).split())}")
        code = error.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain again while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except MemoryError:
        _say("error: Not enough memory: use a smaller --batch-size or --image-size.")
        code = EXIT_FAILED
    except Exception as error:
        if is_disk_error(error):
            _say(f"error: {output_error('the output', error)}")
            sys.exit(EXIT_FAILED)
        where = log_file()
        if where:
            logging.getLogger().exception("unexpected error")
        _say(f"error: Unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        _say(f"This is a bug; the details are in {where}." if where else traceback.format_exc())
        code = EXIT_FAILED
    sys.exit(code)


def log_file() -> str | None:
    """Give the path of the log file in use, if logging has been started."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            return os.path.relpath(handler.baseFilename)
    return None


def print_json(value: Any) -> None:
    """Print a value as one line of JSON; escaped where standard output could not show it."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # a file name that is no UTF-8, or a terminal that knows only ASCII
        line = json.dumps(value, allow_nan=False)
    print(line, flush=True)


def _accept_any_file_name() -> None:
    """Let standard input and output carry file names that are no text in the user's encoding."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _terminate(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def _say(line: str) -> None:
    if sys.stderr is None:  # closed by the caller; `print` would take standard output instead
        return
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(
    what: str, total: int | None, *, quiet: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show how far a long step is: a bar on a terminal, a line every ten seconds elsewhere.

    Args:
        what: the step in a few words.
        total: the number of items, or None when nobody knows.
        quiet: show nothing.

    Yields:
        a function to call with the number of items just finished; any thread may call it.
    """
    if quiet:
        yield lambda count: None
    elif sys.stderr and sys.stderr.isatty():  # None when the caller closed it
        with _bar(what, total) as advance:
            yield advance
    else:
        with _lines(what, total) as advance:
            yield advance


@contextlib.contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich import console
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(bar_width=30),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=console.Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


@contextlib.contextmanager
def _lines(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    start = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= _PLAIN_PROGRESS_SECONDS:
            last = now
            of_total = f" of {total}" if total else ""
            _log.info("%s: %d%s, %.0f s", what, done, of_total, now - start)

    yield advance


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows under a header: the first column to the left, the others to the right."""
    from rich import box, console, table

    grid = table.Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, name in enumerate(header):
        grid.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    # A table in a log or a pipe must not be cut to 80 columns.
    width = None if sys.stdout and sys.stdout.isatty() else 200
    # A cell is text: a class named "[red]" or ":smile:" must come out as it stands.
    page = console.Console(width=width, color_system=None, markup=False, emoji=False)
    with page.capture() as capture:
        page.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def amount(num_bytes: float) -> str:
    """Give a number of bytes as people read it."""
    if num_bytes >= 1e8:
        return f"{num_bytes / 1e9:.1f} GB"
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:.1f} kB"
