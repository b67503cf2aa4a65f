"""Part "hostile": what each makes of odd, broken, huge, forbidden and endless things."""

import argparse
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import rig

from downloads_rig import found
from downloads_rig.links import hostile_set
from downloads_rig.runs import run, running_bing
from downloads_rig.tools import Tool
from imagesieve import console

MAX_SECONDS = 120.0

_COLUMNS = (
    " | {name}",
    "bad kept | {num_bad_kept} of {num_bad}",
    "good lost | {num_good_lost} of {num_good}",
    "ending | {num_wrong_endings}",
    "repeated | {num_repeated}",
    "requests | {num_requests}",
    "seconds | {seconds:.1f}",
    "exit | {end}",
    "MiB | {peak_mib:.0f}",
)
_LEGEND = (
    "ending: good ones named as another format. repeated: files whose bytes another has already.\n"
    f"killed: not done after {MAX_SECONDS:.0f} s."
)
_LINE = 100  # characters


def measure(tools: Sequence[Tool], options: argparse.Namespace) -> dict[str, Any]:
    """Run one setting of every downloader, with a limit that no number of images can reach."""
    runs: dict[str, dict[str, Any]] = {}
    with running_bing(functools.partial(hostile_set, options.without)) as bing:
        for tool in tools:
            if tool.is_in_hostile:
                made = run(tool, bing, len(bing.links), MAX_SECONDS, options)
                names = ("seconds", "cpu_seconds", "peak_threads", "peak_mib", "end", "last_line")
                runs[tool.name] = {
                    **{name: getattr(made, name) for name in names},
                    **found.compare(bing.links, made.files, made.seen["asked_for"]),
                    "num_requests": made.seen["num_requests"],
                }
        links = [{"name": link["name"], "is_good": link["is_good"]} for link in bing.links]
    return {"links": links, "tools": runs}


def tables(result: Mapping[str, Any]) -> str:
    """Return the sums, the last lines, and what became of each link."""
    tools = result["tools"]
    last = [f"  {name}: {row['last_line'] or '(nothing)'}"[:_LINE] for name, row in tools.items()]
    rows = []
    for link in result["links"]:
        name, cells = link["name"], [row["cells"][link["name"]] for row in tools.values()]
        rows.append((f"{'good' if link['is_good'] else 'bad '}  {name}", *cells))
    printed = "\n".join(["The last that each printed:", *last])
    return "\n\n".join([_sums(result), printed, console.table(["", *tools], rows), found.LEGEND])


def _sums(result: Mapping[str, Any]) -> str:
    num_good = sum(link["is_good"] for link in result["links"])
    counts = {"num_good": num_good, "num_bad": len(result["links"]) - num_good}
    rows = [{"name": name, **counts, **row} for name, row in result["tools"].items()]
    return f"{rig.table(_COLUMNS, rows)}\n\n{_LEGEND}"
