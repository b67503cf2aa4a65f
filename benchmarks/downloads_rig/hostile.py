"""Part "hostile": what each makes of odd, broken, huge, forbidden and endless things."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from downloads_rig import verdict
from downloads_rig.runs import Rig, running_web
from downloads_rig.tools import Tool
from imagesieve import console

MAX_SECONDS = 120.0

_HEADER = (
    *("", "bad kept", "good lost", "ending", "repeated"),
    *("requests", "seconds", "exit", "MiB"),
)
_LEGEND = (
    "ending: good ones named as another format. repeated: files whose bytes another has already.\n"
    f"killed: not done after {MAX_SECONDS:.0f} s."
)
_LINE = 100  # characters


def measure(rig: Rig, tools: Sequence[Tool], without: Sequence[str]) -> dict[str, Any]:
    """Run one setting of every downloader, with a limit that no number of images can reach.

    Args:
        rig: where.
        tools: those among them that are for this part are run.
        without: names of links to leave out.
    """
    runs: dict[str, dict[str, Any]] = {}
    with running_web("hostile", "--without", *without) as web:
        for tool in tools:
            if tool.is_in_hostile:
                run = rig.run(tool, web, len(web.links), MAX_SECONDS)
                judged = verdict.judge(web.links, run.kept, run.asked_for)
                runs[tool.name] = {
                    **dataclasses.asdict(run.cost),
                    **dataclasses.asdict(judged),
                    "end": run.cost.end,
                    "num_requests": run.num_requests,
                }
        links = [{"name": link["name"], "is_good": link["is_good"]} for link in web.links]
    return {"links": links, "tools": runs}


def tables(result: Mapping[str, Any]) -> str:
    """Lay out the sums, the last words, and what became of each link."""
    parts = (_sums(result), _last_words(result["tools"]), _cells(result), verdict.WORDS)
    return "\n\n".join(parts)


def _sums(result: Mapping[str, Any]) -> str:
    num_good = sum(link["is_good"] for link in result["links"])
    num_bad = len(result["links"]) - num_good
    rows = [
        (
            name,
            f"{found['num_bad_kept']} of {num_bad}",
            f"{found['num_good_lost']} of {num_good}",
            found["num_wrong_endings"],
            found["num_repeated"],
            found["num_requests"],
            f"{found['seconds']:.1f}",
            found["end"],
            f"{found['peak_mib']:.0f}",
        )
        for name, found in result["tools"].items()
    ]
    return f"{console.table(_HEADER, rows)}\n\n{_LEGEND}"


def _last_words(tools: Mapping[str, Any]) -> str:
    lines = [
        f"  {name}: {found['last_words'] or '(nothing)'}"[:_LINE] for name, found in tools.items()
    ]
    return "\n".join(["The last that each printed:", *lines])


def _cells(result: Mapping[str, Any]) -> str:
    rows = [
        (
            f"{'good' if link['is_good'] else 'bad '}  {link['name']}",
            *(found["cells"][link["name"]] for found in result["tools"].values()),
        )
        for link in result["links"]
    ]
    return console.table(["", *result["tools"]], rows)
