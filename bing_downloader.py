"""Search words -> checked pictures.

    python bing_downloader.py -s "restaurant menu" -o data/train/menu --limit 500
    python bing_downloader.py -f queries.txt -o data/train       # one class folder for each line
    python bing_downloader.py -s "red panda" --filters +filterui:photo-photo --adult-filter-on

Run it again with the same or a larger --limit to top a folder up: what is there is not fetched
again. Every picture was decoded in full, is of the size asked for, and is there only once.

Exit codes: 0 filled · 1 failed · 2 wrong usage · 3 Bing has no more pictures · 4 blocked by Bing ·
5 Bing's pages have changed · 6 the network is down · 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.console import argument_parser, run_script
from classifier.errors import UsageError
from classifier.logs import LOG_FOLDER, start_logging, timestamp

if TYPE_CHECKING:  # these load NumPy, Pillow and requests, which --help can do without
    from classifier.collecting.collect import CollectSettings
    from classifier.collecting.outcome import Outcome
    from classifier.collecting.search import SearchSettings

MAX_THREADS = 128


def main(arguments: Sequence[str]) -> int:
    """Run the script and give its exit code."""
    options = read_options(arguments)
    from classifier.collecting import collect, outcome, search

    targets = read_targets(options)
    image_search = search.ImageSearch(search_settings(options))
    start_logging("bing_downloader", quiet=options.quiet)
    outcomes = collect.collect_all(targets, image_search, collect_settings(options))
    save_unread_pages(outcomes)
    print_summary(outcomes, options)
    return outcome.exit_code(outcomes)


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    head, _, rest = (__doc__ or "").partition("\n\n")
    examples, _, notes = rest.partition("\n\n")
    parser = argument_parser(f"{head}\n\n{notes}", examples)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-s", "--search-string", metavar="WORDS", help="what to search for")
    what.add_argument(
        "-f", "--search-file", type=Path, metavar="FILE", help="a text file, one query a line"
    )
    _add_output_options(parser)
    _add_search_options(parser)
    return parser.parse_args(arguments)


def read_targets(options: argparse.Namespace) -> list[tuple[str, Path]]:
    """Give (query, folder) pairs."""
    from classifier.collecting.folders import folders_of

    if options.search_file is None:
        if not options.search_string.strip():
            raise UsageError("--search-string is empty: give some words to search for")
        return [(options.search_string.strip(), options.output)]
    return folders_of(_read_queries(options.search_file), options.output)


def search_settings(options: argparse.Namespace) -> "SearchSettings":
    """Take from the options how to search."""
    from classifier.collecting.search import BASE_URL, SearchSettings

    return SearchSettings(
        base_url=options.base_url or os.environ.get("BING_BASE_URL") or BASE_URL,
        adult_filter=options.adult_filter,
        filters=options.filters,
    )


def collect_settings(options: argparse.Namespace) -> "CollectSettings":
    """Take from the options what to reach."""
    from classifier.collecting.collect import CollectSettings
    from classifier.collecting.fetch import FetchSettings

    return CollectSettings(
        limit=options.limit,
        threads=options.threads,
        min_side=options.min_side,
        fetch=FetchSettings(allow_private_hosts=options.allow_private_hosts),
        quiet=options.quiet,
    )


def save_unread_pages(outcomes: Sequence["Outcome"]) -> None:
    """Keep each page that could not be read beside the logs, for whoever adapts the parser."""
    from classifier.collecting.search import MarkupChangedError
    from classifier.files import write_text

    for number, outcome in enumerate(outcomes):
        if isinstance(outcome.error, MarkupChangedError):
            path = LOG_FOLDER / f"bing_downloader-{timestamp()}-page-{number}.html"
            write_text(path, outcome.error.page)
            print(f"The page that could not be read is in {path}.", file=sys.stderr)


def print_summary(outcomes: Sequence["Outcome"], options: argparse.Namespace) -> None:
    """Say what came out and where it lies: as JSON, or as a table and a closing line."""
    import json

    from classifier.collecting.outcome import summary, summary_table

    if options.json:
        print(json.dumps(summary(outcomes), ensure_ascii=False))
    elif not options.quiet:
        num_filled = sum(outcome.is_filled for outcome in outcomes)
        num_pictures = sum(outcome.found + outcome.kept for outcome in outcomes)
        print(summary_table(outcomes))
        print(
            f"\n{num_pictures} pictures in {options.output}; "
            f"{num_filled} of {len(outcomes)} searches filled to {options.limit}."
        )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="the folder for the pictures; with -f, for one folder per query (default: data)",
    )
    parser.add_argument(
        "--limit",
        type=_positive,
        default=100,
        metavar="N",
        help="good pictures in each folder, those of earlier runs included (default: 100)",
    )
    parser.add_argument(
        "--min-side",
        type=_positive,
        default=64,
        metavar="PIXELS",
        help="both sides must have as many (default: 64)",
    )
    parser.add_argument("--json", action="store_true", help="print one summary object")


def _add_search_options(parser: argparse.ArgumentParser) -> None:
    adult = parser.add_mutually_exclusive_group()
    adult.add_argument(
        "--adult-filter-on",
        dest="adult_filter",
        action="store_const",
        const="strict",
        default="moderate",
        help="show nothing for adults (default: moderate)",
    )
    adult.add_argument(
        "--adult-filter-off",
        dest="adult_filter",
        action="store_const",
        const="off",
        help="show everything",
    )
    parser.add_argument(
        "--filters",
        default="",
        metavar="QFT",
        help="Bing's own filters, such as +filterui:imagesize-large",
    )
    parser.add_argument(
        "--threads",
        type=_threads,
        default=32,
        metavar="N",
        help=f"downloads at the same time, up to {MAX_THREADS} (default: 32)",
    )
    parser.add_argument(
        "--base-url", metavar="URL", help="search there instead of Bing (or set BING_BASE_URL)"
    )
    parser.add_argument(
        "--allow-private-hosts",
        action="store_true",
        help="also fetch pictures from this machine and the local network",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _threads(text: str) -> int:
    number = _positive(text)
    if number > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text} is more than {MAX_THREADS}")
    return number


def _read_queries(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--search-file {path} cannot be read as UTF-8 text: {error}") from error
    queries = [line.strip() for line in lines if line.strip()]
    if not queries:
        raise UsageError(f"--search-file {path} holds no query: write one on each line")
    return queries


if __name__ == "__main__":
    run_script(main, sys.argv[1:])
