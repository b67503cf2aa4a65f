"""Medians, ratios and tables of `benchmarks/serving.py`."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from imagesieve import console
from serving_rig.load import RESET
from serving_rig.names import AIM_PROBE_MS, AIM_TO_BARE, AIM_TO_FIRST, BARE, FIRST, OURS
from serving_rig.runs import total

_MEDIANS = ("good_per_second", "cpu_ms", "p50_ms", "p99_ms", "refused_p50_ms", "cpu_share")
_OF_BARE = (
    *("judged_per_second", "judged_cpu_ms", "alone_per_second", "alone_p50_ms"),
    "inferred_per_second",
)


def summarise(found: Mapping[str, Any]) -> dict[str, Any]:
    """Give the medians of the rounds and their ratios.

    Args:
        found: what `serving.measure` gave.
    """
    bare = {
        name: statistics.median(run[name] for run in found["bare"])
        for name in _OF_BARE
        if found["bare"]
    }
    points = _points(found["points"])
    first = {point["num_clients"]: point for point in points if point["service"] == FIRST}
    for point in points:
        num_clients, rate = point["num_clients"], point["good_per_second"]
        if num_clients in first:
            point["to_first"] = _ratio(rate, first[num_clients]["good_per_second"])
        if bare:
            whole = bare["alone_per_second" if num_clients == 1 else "judged_per_second"]
            point["to_bare"] = rate / whole
    best = {
        name: max(point["good_per_second"] for point in points if point["service"] == name)
        for name in {point["service"] for point in points}
    }
    if bare:
        best[BARE] = bare["judged_per_second"]
    return {"bare": bare, "points": points, "best": best, "aims": aims(best, found)}


def _points(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    points = []
    for key in dict.fromkeys((run["service"], run["num_clients"]) for run in runs):
        same = [run for run in runs if (run["service"], run["num_clients"]) == key]
        points.append(
            {
                "service": key[0],
                "num_clients": key[1],
                **{name: _median([run[name] for run in same]) for name in _MEDIANS},
                "outcomes": total([run["outcomes"] for run in same]),
                "num_cached": sum(run["num_cached"] for run in same),
            }
        )
    return points


def aims(best: Mapping[str, float], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Hold what was found against what was aimed at; what was not measured is left out."""
    rows = []

    def add(what: str, value: str, aim: str, reached: bool) -> None:
        rows.append({"what": what, "found": value, "aim": aim, "reached": reached})

    if OURS in best and FIRST in best:
        ratio = _ratio(best[OURS], best[FIRST])
        add(
            "answers a second, best to best of the first generation",
            "none there" if ratio is None else f"{ratio:.1f} x",
            f">= {AIM_TO_FIRST:g} x",
            ratio is None or ratio >= AIM_TO_FIRST,
        )
    if OURS in best and BARE in best:
        share = best[OURS] / best[BARE]
        add(
            "answers a second, best, of the bare engine's",
            f"{share:.2f}",
            f">= {AIM_TO_BARE:g}",
            share >= AIM_TO_BARE,
        )
    if crowd := found["crowd"]:
        outcomes = crowd["outcomes"]
        add(
            f"answers to {crowd['num_clients']} clients",
            shares(outcomes),
            "200 and 503 only",
            {*outcomes} <= {"200", "503"} and "200" in outcomes,
        )
        p99 = crowd["probe_p99_ms"]
        is_well = {*crowd["probe_outcomes"]} == {"200"} and p99 < AIM_PROBE_MS
        add("/healthz meanwhile, p99", f"{p99:.0f} ms", f"< {AIM_PROBE_MS:g} ms", is_well)
    if OURS in found["slow"]:
        slow = found["slow"][OURS]
        outcomes = slow["asked"]["outcomes"]
        add(
            f"answers beside {slow['num_connected']} slow connections",
            shares(outcomes),
            "200 only",
            {*outcomes} == {"200"},
        )
    return rows


def text(result: Mapping[str, Any]) -> str:
    """Lay everything out."""
    run = result["run"]
    parts = [f"{result['num_images']} images of {result['data']}."]
    parts += [f"Without the {name}: {reason}." for name, reason in run["missing"].items()]
    if result["points"]:
        parts.append(_points_table(result["points"]))
    if result["bare"]:
        parts.append(_bare_table(result["bare"], run["bare"][0]))
    if run["slow"]:
        parts.append(_slow_table(run["slow"], result["points"]))
    if run["memory_mib"]:
        rows = [(name, f"{mib:.0f}") for name, mib in run["memory_mib"].items()]
        parts.append(console.table(["under load", "highest memory, MiB"], rows))
    if result["aims"]:
        rows = [
            (row["what"], row["found"], row["aim"], "yes" if row["reached"] else "NO")
            for row in result["aims"]
        ]
        parts.append(console.table(["", "found", "aim", "reached"], rows))
    return "\n\n".join(["", *parts])


def _points_table(points: Sequence[Mapping[str, Any]]) -> str:
    header = ["", "clients", "answers/s", "x first gen.", "of bare", "CPU, ms", "p50, ms"]
    header += ["p99, ms", "200, %", "503, %", "other", "client's CPU"]
    rows = []
    for point in sorted(points, key=lambda point: point["num_clients"]):
        outcomes = point["outcomes"]
        everything = sum(outcomes.values()) or 1
        rows.append(
            (
                point["service"],
                point["num_clients"],
                _number(point["good_per_second"], 1),
                _number(point.get("to_first"), 1),
                _number(point.get("to_bare"), 2),
                _number(point["cpu_ms"], 1),
                _number(point["p50_ms"], 1),
                _number(point["p99_ms"], 1),
                f"{100 * outcomes.get('200', 0) / everything:.1f}",
                f"{100 * outcomes.get('503', 0) / everything:.1f}",
                _others(outcomes, point["num_cached"]),
                _number(point["cpu_share"], 2),
            )
        )
    return console.table(header, rows)


def _others(outcomes: Mapping[str, int], num_cached: int) -> str:
    others = {name: count for name, count in outcomes.items() if name not in ("200", "503")}
    if num_cached:
        others["cached"] = num_cached
    return ", ".join(f"{count} {name}" for name, count in others.items()) or "-"


def _bare_table(bare: Mapping[str, float], run: Mapping[str, Any]) -> str:
    num_threads = run["num_streams"] + 1
    many = f"{num_threads} threads"
    rows = [
        ("decoding and inference, one thread", f"{bare['alone_per_second']:.1f}", "-"),
        (
            f"decoding and inference, {many}",
            f"{bare['judged_per_second']:.1f}",
            f"{bare['judged_cpu_ms']:.1f}",
        ),
        (f"inference alone, {many}", f"{bare['inferred_per_second']:.1f}", "-"),
    ]
    return console.table([f"bare engine ({run['engine']})", "images/s", "CPU, ms"], rows)


def _slow_table(slow: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for name, found in slow.items():
        asked, probed = found["asked"], found["probed"]
        alone = [
            point["p50_ms"]
            for point in points
            if point["service"] == name and point["num_clients"] == 1
        ]
        rows.append(
            (
                name,
                found["num_connected"],
                found["num_thrown_out"],
                asked["outcomes"].get("200", 0),
                _number(asked["p50_ms"], 1),
                _number(asked["p99_ms"], 1),
                _number(_ratio(asked["p50_ms"], alone[0] if alone else None), 2),
                _number(probed["p99_ms"] if probed else None, 1),
            )
        )
    header = ["one caller beside slow ones", "slow", "thrown out", "answers", "p50, ms", "p99, ms"]
    return console.table([*header, "p50 to that without", "/healthz p99, ms"], rows)


def shares(outcomes: Mapping[str, int]) -> str:
    """Give `200: 63.1 %, 503: 36.9 %`; what nobody wants to see is counted instead."""
    everything = sum(outcomes.values())
    if not everything:
        return "no answer"
    return ", ".join(
        f"{name}: {100 * count / everything:.1f} %" if name != RESET else f"{count} {RESET}"
        for name, count in outcomes.items()
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
