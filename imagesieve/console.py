"""What every script shares on a terminal: one exit path, help that reads well, progress, tables."""

import argparse
import contextlib
import io
import json
import logging
import math
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from imagesieve.errors import ClassifierError, UsageError
from imagesieve.files import is_disk_error, output_error

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

_PLAIN_PROGRESS_SECONDS = 10.0  # without a terminal: a line this often is enough to see life
_DRAWN_PER_SECOND = 5
_MAX_NAME = 32  # cells
_BAR = 12  # cells

Status = Callable[[], tuple[int, str]]  # returns the number of items done, and a text to show

_log = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors leave through `run_script` like all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see: {self.prog} --help)")


def argument_parser(description: str, examples: str) -> argparse.ArgumentParser:
    """Return a parser with `--quiet`, a description, and `examples` printed below the options."""
    parser = _Parser(
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quiet", action="store_true", help="print only warnings and errors")
    return parser


def whole_number(
    least: int = 1, most: int = 10**9, *, what: str = "whole number"
) -> Callable[[str], int]:
    """Return the type of an option that takes a whole number; errors call it `what`."""

    def parse(text: str) -> int:
        # `int` alone would take blanks, signs, underscores and the digits of other scripts, too.
        if not re.fullmatch("[0-9]{1,10}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {what} from {least} to {most:,}")
        return int(text)

    return parse


def number(
    least: float = 0,
    most: float = 10**9,  # as seconds, Python can wait for that long
    *,
    above: float | None = None,
    below: float | None = None,
    what: str = "number",
) -> Callable[[str], float]:
    """Return the type of an option that takes a number; errors call it `what`.

    `above` and `below` are bounds that are not allowed themselves, instead of `least` and `most`.
    """
    bounds = f"from {least:,}" if above is None else f"above {above:,}"
    if below is not None:
        bounds += f" and below {below:,}"
    else:
        bounds += f" to {most:,}" if above is None else f" and at most {most:,}"
    above = -math.inf if above is None else above
    below = math.inf if below is None else below

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (least <= value <= most and above < value < below):
            raise argparse.ArgumentTypeError(f"{text!r} is not a {what} {bounds}")
        return value

    return parse


def run_script(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> NoReturn:
    """Run a script's `main` and leave the process with its exit code.

    A `ClassifierError` is one line on standard error. Anything else is a bug: one line too,
    and the traceback goes to the script's log file. Ctrl-C exits with 130, a closed pipe quietly;
    SIGTERM exits with 143 after every unfinished file was removed.
    """
    _accept_any_file_name()
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # the caller closed it: no other file may take the place of a standard stream
    os.close(descriptor)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - until the end
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        code = main(arguments)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        code = report_error(error)
    sys.exit(code)


def report_error(error: BaseException) -> int:
    """Print what ended a script, as `run_script` has it, and return the exit code."""
    text = " ".join(str(error).split())
    if isinstance(error, ClassifierError):
        _print_error(f"error: {text}")
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        _print_error("interrupted")
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # The reader (head, less) has gone; Python would complain again while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    if isinstance(error, MemoryError):
        _print_error("error: Not enough memory: use a smaller --batch-size or --image-size.")
    elif is_disk_error(error):
        _print_error(f"error: {output_error('the output', error)}")
    elif isinstance(error, OSError) and error.filename:
        logging.getLogger().debug("a path cannot be used", exc_info=error)
        _print_error(f"error: Cannot use {str(error.filename)[:300]}: {error.strerror}.")
    else:
        where = _log_file()
        if where:
            logging.getLogger().error("unexpected error", exc_info=error)
        _print_error(f"error: Unexpected {type(error).__name__}: {text[:300]}")
        trace = "".join(traceback.format_exception(error))
        _print_error(f"This is a bug; the details are in {where}." if where else trace)
    return EXIT_FAILED


def _log_file() -> str | None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            return os.path.relpath(handler.baseFilename)
    return None


def print_json(value: Any) -> None:
    """Print a value as one line of JSON; escaped where standard output could not show it."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # a file name that is not UTF-8, or an ASCII terminal
        line = json.dumps(value, allow_nan=False)
    print(line, flush=True)


def _accept_any_file_name() -> None:
    """Let standard input and output carry file names that are not text in the user's encoding."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _print_error(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(
    what: str, total: int, *, quiet: bool = False, status: Status | None = None
) -> Iterator[Callable[[int], None]]:
    """Show how far a long step is: a line with a bar on a terminal, else a log line now and then.

    Yields a function to call with the number of items just finished, from any thread. A step that
    counts by itself passes its `status` instead, which is called from another thread.
    """
    start = time.monotonic()
    lock = threading.Lock()
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count

    def own_status() -> tuple[int, str]:
        seconds = time.monotonic() - start
        text = f"{done:,} of {total:,}, {seconds:.0f} s"
        if 0 < done < total:
            text += f", about {seconds * (total - done) / done:.0f} s left"
        return done, text

    if quiet:
        yield advance
        return
    is_terminal = sys.stderr and sys.stderr.isatty()  # None when the caller closed it
    show = _live_line if is_terminal else _log_lines
    with show(what, total, status or own_status):
        yield advance


@contextlib.contextmanager
def _live_line(what: str, total: int, status: Status) -> Iterator[None]:
    from rich import console, live

    screen = console.Console(stderr=True, highlight=False)
    with live.Live(
        get_renderable=lambda: _line(what, total, status, screen.width),
        console=screen,
        refresh_per_second=_DRAWN_PER_SECOND,
    ):
        yield


def _line(what: str, total: int, status: Status, width: int) -> Any:
    """Return name, bar and text; a long name gives way to the numbers, which change."""
    from rich import progress_bar, table, text

    done, shown = status()
    name, counts = text.Text(what), text.Text(shown)
    space = width - counts.cell_len - 2
    name.truncate(max(1, min(_MAX_NAME, space - _BAR)), overflow="ellipsis")
    bar = progress_bar.ProgressBar(total=total, completed=min(done, total), width=_BAR)
    grid = table.Table.grid(padding=(0, 1))
    for _ in range(3):
        grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_row(name, bar, counts)
    return grid


@contextlib.contextmanager
def _log_lines(what: str, _total: int, status: Status) -> Iterator[None]:
    over = threading.Event()

    def report() -> None:
        while not over.wait(_PLAIN_PROGRESS_SECONDS):
            _log.info("%s: %s", what, status()[1])

    thread = threading.Thread(target=report, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows under a header: the first column aligned left, the others right."""
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
    """Return a number of bytes as people read it."""
    if num_bytes >= 1e8:
        return f"{num_bytes / 1e9:.1f} GB"
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:.1f} kB"
