"""Part "throughput": how many images a second, and what each costs."""

import argparse
import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import rig

from downloads_rig import found
from downloads_rig.links import throughput_set
from downloads_rig.runs import Bing, Run, run, running_bing
from downloads_rig.tools import Tool

MAX_SECONDS = 300.0
SPARE_LINKS = 1.25  # as on the web, there is more to be found than is asked for

_BASELINE = "bbid-style"
_COLUMNS = (
    " | {name}",
    "files | {files:.0f}/{asked:.0f}",
    "distinct | {distinct:.0f}",
    "seconds | {seconds:.1f}",
    "files/s | {files_per_second:.1f}",
    "x bbid | {times}",
    "CPU ms | {cpu_ms_per_file:.1f}",
    "threads | {peak_threads:.0f}",
    "MiB | {peak_mib:.0f}",
    "a host | {most_at_one_host:.0f}",
)
_LEGEND = (
    "files: on disk / asked for. distinct: without repeated ones. x bbid: files/s as a multiple.\n"
    "CPU ms: of the tool for each file. a host: most connections to a host at the same time."
)


def measure(tools: Sequence[Tool], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Run every tool in turn, several times; return the medians of each, and how it ended."""
    figures: dict[str, list[dict[str, float]]] = {tool.name: [] for tool in tools}
    ends: dict[str, list[str]] = {tool.name: [] for tool in tools}
    make_links = functools.partial(throughput_set, round(options.images * SPARE_LINKS))
    with running_bing(make_links, options.hosts, options.page_seconds) as bing:
        for _ in range(options.runs):
            for tool in tools:
                limit = max(1, round(options.images * tool.share))
                made = run(tool, bing, limit, MAX_SECONDS, options)
                figures[tool.name].append(_figures(made, bing, limit))
                ends[tool.name].append(made.end)
    medians: dict[str, dict[str, Any]] = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in figures.items()
    }
    baseline = medians.get(_BASELINE, {}).get("files_per_second")
    for name, row in medians.items():
        row["to_bbid"] = row["files_per_second"] / baseline if baseline else None
        row["ends"] = ends[name]
    return medians


def table(result: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures as a table."""
    failed = [
        f"{name} failed: its runs ended with {', '.join(row['ends'])}."
        for name, row in result.items()
        if set(row["ends"]) != {"0"}
    ]
    times = {name: row["to_bbid"] for name, row in result.items()}
    shown = {name: "-" if value is None else f"{value:.2f}" for name, value in times.items()}
    rows = [{"name": name, "times": shown[name], **row} for name, row in result.items()]
    return "\n".join([rig.table(_COLUMNS, rows), "", _LEGEND, *failed])


def _figures(made: Run, bing: Bing, limit: int) -> dict[str, float]:
    num_files = len(made.files)
    return {
        "asked": limit,
        "files": num_files,
        "distinct": found.count_distinct(bing.links, made.files),
        "seconds": made.seconds,
        "files_per_second": num_files / made.seconds,
        "cpu_ms_per_file": made.cpu_seconds * 1000 / max(1, num_files),
        "peak_threads": made.peak_threads,
        "peak_mib": made.peak_mib,
        **{name: value for name, value in made.seen.items() if name != "asked_for"},
    }
