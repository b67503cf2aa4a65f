"""Search words -> checked images in class folders.

    python bing_downloader.py -s "restaurant menu" -o data/train/menu --limit 500
    python bing_downloader.py -s "red panda" -o data --validation-fraction 0.2 --type photo
    python bing_downloader.py -f queries.txt -o data/train       # one class folder for each line
    python bing_downloader.py --plan examples/menu-or-not.toml   # a whole data set
    python bing_downloader.py --verify -o data                   # is everything still there?
    python bing_downloader.py --export csv -o data > sources.csv

Run it again with the same or a larger --limit to top a folder up: what is there is not fetched
again. Every image was decoded in full, is of the size asked for, and is there only once, be it
in another size. A journal beside the images keeps where each came from and why others failed.

Exit codes: 0 filled · 1 failed · 2 wrong usage · 3 too few were found, or the time is over ·
4 blocked by Bing · 5 Bing's pages have changed · 6 the network is down · 130 interrupted.
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagesieve.collecting.options import collect_settings, open_search, read_options, read_targets
from imagesieve.console import EXIT_FAILED, EXIT_OK, print_json, run_script
from imagesieve.logs import LOG_FOLDER, start_logging, timestamp

if TYPE_CHECKING:
    from imagesieve.collecting.outcome import Outcome


def main(arguments: Sequence[str]) -> int:
    """Run the script and return its exit code."""
    options = read_options(arguments, __doc__ or "")
    # NumPy would start a thread for each core, for algebra that nobody here does.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if options.export:
        return export(options)
    if options.verify:
        return verify(options)
    return list_results(options) if options.dry_run else fill(options)


def fill(options: argparse.Namespace) -> int:
    """Fill the folders with good images."""
    from imagesieve.collecting import outcome, run

    targets = read_targets(options)
    search = open_search(options)
    start_logging("bing_downloader", quiet=options.quiet)
    outcomes: list[Outcome] = []
    try:
        run.collect_all(targets, search, collect_settings(options), outcomes)
    except KeyboardInterrupt:
        print_summary(outcomes, options, is_interrupted=True)
        raise
    save_unread_pages(outcomes)
    print_summary(outcomes, options)
    return outcome.exit_code(outcomes)


def list_results(options: argparse.Namespace) -> int:
    """Print class and URL of what would be tried first, as many as the limits ask for.

    With --json, one object a line.
    """
    from dataclasses import asdict
    from itertools import islice

    search = open_search(options)
    for target in read_targets(options):
        share = -(-target.limit // len(target.queries))
        for query in target.queries:
            for result in islice(search.results(query), share):
                if options.json:
                    print_json({"class": target.name, **asdict(result)})
                else:
                    print(f"{target.name}\t{result.url}")
    return EXIT_OK


def export(options: argparse.Namespace) -> int:
    """Print what the journals say."""
    from imagesieve.collecting import export

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # a file to be read elsewhere, not a terminal
    export.export(options.output or Path("data"), options.export, sys.stdout)
    return EXIT_OK


def verify(options: argparse.Namespace) -> int:
    """Check the files against the journals; exit code 1 if anything is wrong.

    An image that is missing was deleted by hand, or the next run fetches another: no fault.
    """
    from imagesieve.collecting import export

    start_logging("bing_downloader", quiet=options.quiet)
    limits = collect_settings(options).limits
    checks = export.verify(options.output or Path("data"), limits)
    problems = [problem for check in checks for problem in check.problems]
    if options.json:
        fields = [{"kind": p.kind, "path": str(p.path), "detail": p.detail} for p in problems]
        print_json({"problems": fields})
    else:
        for problem in problems:
            print(problem)
        if not options.quiet:
            print(export.verify_table(checks))
    is_wrong = any(problem.kind != export.MISSING for problem in problems)
    return EXIT_FAILED if is_wrong else EXIT_OK


def save_unread_pages(outcomes: Sequence["Outcome"]) -> None:
    """Save each page that could not be read beside the logs, to adapt the parser to it."""
    from imagesieve.collecting.bing.errors import MarkupChangedError
    from imagesieve.files import write_text

    for number, outcome in enumerate(outcomes):
        if isinstance(outcome.error, MarkupChangedError):
            path = LOG_FOLDER / f"bing_downloader-{timestamp()}-page-{number}.html"
            write_text(path, outcome.error.page)
            print(f"The page that could not be read is in {path}.", file=sys.stderr)


def print_summary(
    outcomes: Sequence["Outcome"], options: argparse.Namespace, *, is_interrupted: bool = False
) -> None:
    """Print what came out and where it lies: as JSON, or as a table and a closing line."""
    from imagesieve.collecting.outcome import summary, summary_table

    if options.json:
        print_json(summary(outcomes, is_interrupted=is_interrupted))
    elif outcomes and not options.quiet:
        num_filled = sum(outcome.is_filled for outcome in outcomes)
        num_images = sum(outcome.num_images for outcome in outcomes)
        folders = sorted({side.folder for o in outcomes for side in o.target.sides})
        where = f"{folders[0]}" if len(folders) == 1 else f"{len(folders)} folders"
        with contextlib.suppress(BrokenPipeError):  # interrupted together with its reader
            print(summary_table(outcomes))
            images = "1 image" if num_images == 1 else f"{num_images} images"
            print(f"\n{images} in {where}; {num_filled} of {len(outcomes)} filled.")


if __name__ == "__main__":
    run_script(main, sys.argv[1:])
