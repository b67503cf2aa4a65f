"""Part "throughput": how many images a second, and what each costs."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from downloads_rig import verdict
from downloads_rig.runs import Rig, Run, Web, running_web
from downloads_rig.tools import Tool
from imagesieve import console

MAX_SECONDS = 300.0
SPARE_LINKS = 1.25  # as in the world, there is more to be found than is wanted

_YARDSTICK = "bbid-style"
_HEADER = (
    *("", "files", "distinct", "seconds", "files/s", "x bbid"),
    *("CPU ms", "threads", "MiB", "a host"),
)
_LEGEND = (
    "files: on disk / asked for. distinct: without repeated ones. x bbid: files/s as a multiple.\n"
    "CPU ms: of the tool for each file. a host: most connections to a host at the same time."
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a throughput run is like.

    Attributes:
        num_images: that the quick tools are asked for; the slow ones get their share of it.
        num_hosts: that serve them, up to 254.
        num_runs: of every tool.
        page_seconds: that a result page takes. A tool that reads pages one after another, each of
            35 results, can have no more than 35 / page_seconds images a second.
    """

    num_images: int = 1000  # about as many as Bing has for a query
    num_hosts: int = 100  # a thousand images of a search come from some hundred hosts
    num_runs: int = 3
    page_seconds: float = 0.0


def measure(rig: Rig, tools: Sequence[Tool], settings: Settings) -> dict[str, dict[str, Any]]:
    """Run every tool in turn, several times; gives the medians of each, and how it ended."""
    figures: dict[str, list[dict[str, float]]] = {tool.name: [] for tool in tools}
    ends: dict[str, list[str]] = {tool.name: [] for tool in tools}
    num_links = round(settings.num_images * SPARE_LINKS)
    words = {
        "--links": num_links,
        "--hosts": settings.num_hosts,
        "--page-seconds": settings.page_seconds,
    }
    with running_web("throughput", *(str(word) for pair in words.items() for word in pair)) as web:
        for _ in range(settings.num_runs):
            for tool in tools:
                limit = max(1, round(settings.num_images * tool.share))
                run = rig.run(tool, web, limit, MAX_SECONDS)
                figures[tool.name].append(_figures(run, web, limit))
                ends[tool.name].append(run.cost.end)
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in figures.items()
    }
    yardstick = medians.get(_YARDSTICK, {}).get("files_per_second")
    return {
        name: {
            **found,
            "to_bbid": found["files_per_second"] / yardstick if yardstick else None,
            "ends": ends[name],
        }
        for name, found in medians.items()
    }


def table(result: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay the figures out."""
    rows = [
        (
            name,
            f"{found['files']:.0f}/{found['asked']:.0f}",
            f"{found['distinct']:.0f}",
            f"{found['seconds']:.1f}",
            f"{found['files_per_second']:.1f}",
            "-" if found["to_bbid"] is None else f"{found['to_bbid']:.2f}",
            f"{found['cpu_ms_per_file']:.1f}",
            *(f"{found[key]:.0f}" for key in ("peak_threads", "peak_mib", "most_at_one_host")),
        )
        for name, found in result.items()
    ]
    failed = [
        f"{name} failed: its runs ended with {', '.join(found['ends'])}."
        for name, found in result.items()
        if set(found["ends"]) != {"0"}
    ]
    return "\n".join([console.table(_HEADER, rows), "", _LEGEND, *failed])


def _figures(run: Run, web: Web, limit: int) -> dict[str, float]:
    num_files = len(run.kept)
    return {
        "asked": limit,
        "files": num_files,
        "distinct": verdict.count_distinct(web.links, run.kept),
        "seconds": run.cost.seconds,
        "files_per_second": num_files / run.cost.seconds,
        "cpu_ms_per_file": run.cost.cpu_seconds * 1000 / max(1, num_files),
        "peak_threads": run.cost.peak_threads,
        "peak_mib": run.cost.peak_mib,
        "most_at_one_host": run.most_at_one_host,
        "num_requests": run.num_requests,
        "web_cpu_seconds": run.web_cpu_seconds,
    }
