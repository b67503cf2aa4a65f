"""The downloader's command line: its options, and what they ask for."""

import argparse
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagesieve.class_folders import to_class_name
from imagesieve.collecting.bing.queries import FILTERS, SAFE_SEARCH, Query, SearchOptions
from imagesieve.console import argument_parser, number, whole_number
from imagesieve.errors import UsageError
from imagesieve.files import read_text

if TYPE_CHECKING:  # these load NumPy, Pillow and urllib3, which --help can do without
    from imagesieve.collecting.bing.search import ImageSearch, SavedPages
    from imagesieve.collecting.targets import CollectSettings, Target

MAX_THREADS = 128
DEFAULT_LIMIT = 100

_MAX_FILE_BYTES = 2**24
_IN_PLAN = ("limit", "validation_fraction", "market", "filters", *FILTERS)


def read_options(arguments: Sequence[str], documentation: str) -> argparse.Namespace:
    """Read the command line; the documentation is a line, the examples, and other paragraphs."""
    head, examples, notes = documentation.strip().split("\n\n", 2)
    parser = argument_parser(f"{head}\n\n{notes}", examples)
    _add_tasks(parser)
    _add_output(parser.add_argument_group("the images"))
    _add_search(parser.add_argument_group("the search"))
    _add_network(parser.add_argument_group("the network"))
    options = parser.parse_args(arguments)
    _check_together(options)
    return options


def read_targets(options: argparse.Namespace) -> list["Target"]:
    if options.plan is not None:
        from imagesieve.collecting.plan import read_plan

        return read_plan(options.plan, options.output)
    search = SearchOptions(**_fields(SearchOptions, options))
    output = options.output or Path("data")
    if options.search_file is None:
        query = Query(options.search_string.strip(), search)
        return [_target(query, output, options, is_folder=True)]
    queries = _read_queries(options.search_file)
    return [_target(Query(text, search), output, options) for text in queries]


def open_search(options: argparse.Namespace) -> "ImageSearch | SavedPages":
    from imagesieve.collecting.bing.search import BASE_URL, ImageSearch, SavedPages

    if options.page_file is not None:
        return SavedPages(options.page_file)
    base_url = options.base_url or os.environ.get("BING_BASE_URL") or BASE_URL
    return ImageSearch(base_url, options.page_interval)


def collect_settings(options: argparse.Namespace) -> "CollectSettings":
    from imagesieve.collecting.targets import CollectSettings
    from imagesieve.web.fetch import FetchSettings

    max_bytes = round(options.max_megabytes * 2**20)
    return CollectSettings(
        **_fields(CollectSettings, options),
        fetch=FetchSettings(**_fields(FetchSettings, options), max_bytes=max_bytes),
    )


def _fields(kind: type, options: argparse.Namespace) -> dict[str, Any]:
    """Return the options whose `dest` is a field of a settings class."""
    names = (field.name for field in dataclasses.fields(kind))
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def _target(
    query: Query, output: Path, options: argparse.Namespace, *, is_folder: bool = False
) -> "Target":
    from imagesieve.collecting.targets import Side, Target, split_target

    name = to_class_name(query.text)
    if options.validation_fraction is not None:
        return split_target(name, (query,), output, options.limit, options.validation_fraction)
    folder = output if is_folder else output / name
    # What would command a terminal rather than be shown by it is replaced.
    shown = "".join(letter if letter.isprintable() else "?" for letter in query.text)
    return Target(shown, (query,), Side(folder, options.limit))


def _read_queries(path: Path) -> list[str]:
    lines = read_text(path, _MAX_FILE_BYTES, "search file").splitlines()
    queries = [line.strip() for line in lines if line.strip()]
    if not queries:
        raise UsageError(f"--search-file {path} has no query: write one on each line")
    return _distinct(queries)


def _distinct(queries: Sequence[str]) -> list[str]:
    """Return the queries without repetitions, in order; refuse two that would share a folder."""
    seen: dict[str, str] = {}
    for query in queries:
        name = to_class_name(query)
        other = seen.setdefault(name.casefold(), query)
        if other != query:
            raise UsageError(f"{other!r} and {query!r} would share the folder {name}")
    return list(seen.values())


def _check_together(options: argparse.Namespace) -> None:
    if options.plan is not None:
        for name in _IN_PLAN:
            if getattr(options, name) not in ("", None):
                raise UsageError(
                    f"--{name.replace('_', '-')} has its place in the plan: write it there"
                )
    if options.limit is None:
        options.limit = DEFAULT_LIMIT
    if options.export and options.json:
        raise UsageError("--json does not go with --export, which has forms of its own")
    if options.base_url == "":
        raise UsageError("--base-url is empty: use a URL, or leave it out to ask Bing")
    if options.max_side is not None and options.max_side < options.min_side:
        raise UsageError(
            f"--max-side {options.max_side} is less than --min-side {options.min_side}"
        )
    if options.page_file is not None and options.search_string is None:
        raise UsageError("--page-file gives the results of one search: name it with -s")
    if options.validation_fraction is not None and options.limit < 2:
        raise UsageError("--validation-fraction needs a --limit of 2 or more: one for each side")


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_argument_group("what to do (one of them)")
    add = tasks.add_mutually_exclusive_group(required=True).add_argument
    text = "search, and fill one folder"
    add("-s", "--search-string", metavar="WORDS", help=text)
    text = "a text file, one search a line: fill a folder for each"
    add("-f", "--search-file", type=Path, metavar="FILE", help=text)
    text = "fill a whole data set: a TOML file, see examples/menu-or-not.toml"
    add("--plan", type=Path, metavar="FILE", help=text)
    text = "check the images that are there, change nothing"
    add("--verify", action="store_true", help=text)
    text = "print what the journals say: every attempt, or the URLs of the images"
    add("--export", choices=("csv", "urls"), help=text)


def _add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    text = "the folder for the images; with -f and --plan, for their folders (default: data)"
    add("-o", "--output", type=_folder, metavar="DIR", help=text)
    text = "good images of each search, those of earlier runs included (default: 100)"
    add("--limit", type=whole_number(), metavar="N", help=text)
    text = "put so many of them into DIR/validation/, the others into DIR/train/"
    add("--validation-fraction", type=number(above=0, below=1), metavar="F", help=text)
    text = "both sides must have as many (default: 64)"
    add("--min-side", type=whole_number(), default=64, metavar="PIXELS", help=text)
    text = "scale larger images down to it"
    add("--max-side", type=whole_number(), metavar="PIXELS", help=text)
    text = "keep each file as it came, or write all as RGB JPEG (default: keep)"
    add("--format", dest="file_format", choices=("keep", "jpg"), default="keep", help=text)
    text = "keep images that differ in size or encoding only, on one side of the split"
    add("--keep-near-duplicates", dest="keeps_near_duplicates", action="store_true", help=text)
    add("--json", action="store_true", help="print one summary object")


def _add_search(group: argparse._ArgumentGroup) -> None:
    add_level = group.add_mutually_exclusive_group().add_argument
    text = "what Bing may show (default: moderate)"
    add_level("--safe-search", choices=tuple(SAFE_SEARCH), default="moderate", help=text)
    for name, level in (("--adult-filter-on", "strict"), ("--adult-filter-off", "off")):
        text = f"the same as --safe-search {level}"
        add_level(name, dest="safe_search", action="store_const", const=level, help=text)
    add = group.add_argument
    add("--market", default="", metavar="en-US", help="language and country")
    for name, values in FILTERS.items():
        text = ", ".join([*values, *(["larger-than:640x480"] if name == "size" else [])])
        add(f"--{name}", default="", metavar=name.upper(), help=text)
    text = "Bing's own filter text, such as +filterui:imagesize-large"
    add("--filters", default="", metavar="QFT", help=text)
    add("--dry-run", action="store_true", help="print the URLs, download no image")
    text = "read result pages saved from a browser, a file or a folder, instead of asking Bing"
    add("--page-file", type=Path, metavar="PATH", help=text)


def _add_network(group: argparse._ArgumentGroup) -> None:
    # Where `dest` is given, it is a field of the settings; see `collect_settings`.
    def add(name: str, dest: str, kind: Callable[[str], float], default: Any, text: str) -> None:
        shown = "" if default is None else f" (default: {default:g})"
        names = ("-t", name) if name == "--threads" else (name,)
        group.add_argument(
            *names, dest=dest, type=kind, default=default, metavar="N", help=text + shown
        )

    some, none_or_some = number(above=0), number()
    text = f"downloads at the same time, up to {MAX_THREADS}"
    add("--threads", "threads", whole_number(1, MAX_THREADS), 32, text)
    text = "downloads at the same time from one host"
    add("--per-host", "max_connections", whole_number(), 2, text)
    text = "seconds between two requests to one host"
    add("--host-interval", "seconds_between_requests", none_or_some, 0.1, text)
    text = "seconds between two result pages (default: 1; 0 if --base-url is on this machine)"
    add("--page-interval", "page_interval", none_or_some, None, text)
    add("--timeout", "total_seconds", some, 20, "seconds for one image, all in all")
    add("--time-limit", "seconds", some, None, "seconds for the whole run")
    add("--max-megabytes", "max_megabytes", some, 20, "the largest file to download")
    add_switch = functools.partial(group.add_argument, action="store_true")
    text = "first try those again that failed for good in earlier runs"
    add_switch("--retry-failed", dest="retries_failed", help=text)
    text = "fetch what a host's robots.txt forbids too; the journal says so"
    add_switch("--ignore-robots", dest="follows_robots", action="store_false", help=text)
    text = "fetch from this machine and the local network too"
    add_switch("--allow-private-hosts", help=text)
    text = "search there instead of Bing (or set BING_BASE_URL)"
    group.add_argument("--base-url", metavar="URL", help=text)


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("it is empty: name a folder, or . for the current one")
    return Path(text)
