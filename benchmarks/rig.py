"""What the benchmarks share: command lines, result files, and processes that are measured."""

import argparse
import concurrent.futures
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a script's folder alone is there

from imagesieve import console
from imagesieve.errors import ClassifierError
from imagesieve.files import write_json
from imagesieve.threads import cpu_count

PROJECT = Path(__file__).resolve().parent.parent

_LAST_LINES = 15


class TaskError(ClassifierError):
    """A process of a benchmark failed."""


def parser(description: str | None, scratch: Path | None = None) -> argparse.ArgumentParser:
    """Return a parser with `--json` and `--scratch`.

    Args:
        description: a benchmark's docstring: one sentence, a paragraph of examples, and notes.
        scratch: the default of `--scratch`; None for the system's temporary folder.
    """
    head, _, rest = (description or "").partition("\n\n")
    examples, _, notes = rest.partition("\n\n")
    made = console.argument_parser(f"{head}\n\n{notes}", examples)
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    made.add_argument(
        "--scratch",
        type=Path,
        default=scratch or Path(tempfile.gettempdir()),
        metavar="DIR",
        help="for temporary files (%(default)s)",
    )
    return made


def add_network(made: argparse.ArgumentParser, *, data: bool = True) -> None:
    """Add the options for what is learned, and with which network."""
    add = made.add_argument
    if data:
        add("--data", type=Path, required=True, help="data folder")
    add("--backbone", default="InceptionV3", help="(%(default)s)")
    weights = "imagenet, random, or a file (%(default)s)"
    add("--weights", type=_weights, default="imagenet", help=weights)
    size = "side of the input (the backbone's own)"
    add("--image-size", type=console.whole_number(1), metavar="PIXELS", help=size)


def _weights(text: str) -> str:
    if text in ("imagenet", "random"):
        return text
    path = Path(text).expanduser().resolve()  # the task runs in another folder
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file, nor imagenet or random")
    return str(path)


def some_of(choices: Collection[str]) -> Callable[[str], list[str]]:
    """Return the type of an option that takes some of the choices, with commas between them."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in choices:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(choices)}")
        return [name for name in choices if name in names]

    return parse


def numbers(least: int) -> Callable[[str], list[int]]:
    """Return the type of an option that takes whole numbers with commas between them."""
    parse = console.whole_number(least)
    return lambda text: sorted({parse(part) for part in text.split(",")})


def machine() -> dict[str, Any]:
    """Return what is measured on, and how busy it is already."""
    load = round(os.getloadavg()[0], 2)
    return {"python": platform.python_version(), "cpus": cpu_count(), "load_before": load}


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table of rows, each a mapping from names to values.

    A column is a heading and a format of a row's names, with ` | ` between them.
    """
    pairs = [column.rsplit(" | ", 1) for column in columns]
    formatted = [[form.format_map(row) for _, form in pairs] for row in rows]
    return console.table([heading for heading, _ in pairs], formatted)


def finish(options: argparse.Namespace, result: Mapping[str, Any], *texts: str) -> int:
    """Print the texts, write the JSON file if one was asked for, and return the exit code."""
    print("", *texts, sep="\n\n" if len(texts) > 1 else "\n")
    if options.json:
        write_json(options.json, dict(result))
    return console.EXIT_OK


def say(options: argparse.Namespace, text: str, end: str = "\n") -> None:
    """Print progress on standard error, unless `--quiet`."""
    if not options.quiet:
        print(text, end=end, file=sys.stderr, flush=True)


def proc_status(pid: int) -> dict[str, int]:
    """Return the numbers of /proc/PID/status: `VmHWM` and `VmRSS` in KiB, `Threads`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = (line.partition(":")[::2] for line in lines)
    numbered = {name: text.split()[:1] for name, text in fields}
    return {name: int(text[0]) for name, text in numbered.items() if text and text[0].isdigit()}


def run_alone(
    task: Callable[..., dict[str, Any]], options: argparse.Namespace, title: str, **arguments: Any
) -> dict[str, Any]:
    """Run a function in a new process and an empty folder: nothing that ran before it is warm.

    Returns:
        its result, with `process_seconds`, `process_cpu_seconds` and `peak_mib` (VmHWM) of the
        process, its start and the loading of its libraries included."""
    say(options, f"{title} … ", end="")
    start = time.perf_counter()
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.scratch) as folder,
        concurrent.futures.ProcessPoolExecutor(1, spawn) as pool,
    ):
        try:
            found = pool.submit(_run_in, folder, task, arguments).result()
        except (Exception, SystemExit) as error:
            output = Path(folder, "output.txt")
            lines = output.read_text(errors="replace").splitlines() if output.exists() else []
            print("", *lines[-_LAST_LINES:], sep="\n", file=sys.stderr)
            raise TaskError(f"The process for {title} failed: {error}") from error
    found["process_seconds"] = time.perf_counter() - start
    say(options, f"{found['process_seconds']:.0f} s, {found['peak_mib']:.0f} MiB")
    return found


def _run_in(
    folder: str, task: Callable[..., dict[str, Any]], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    os.chdir(folder)
    with Path("output.txt").open("wb") as output:
        for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(output.fileno(), descriptor)
    found = task(**arguments)
    sys.stdout.flush()
    peak_mib = proc_status(os.getpid())["VmHWM"] / 1024
    return {**found, "process_cpu_seconds": time.process_time(), "peak_mib": peak_mib}
