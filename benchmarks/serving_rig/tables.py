"""Medians, ratios and tables of `benchmarks/serving.py`."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import rig

from imagesieve import console
from serving_rig.load import RESET
from serving_rig.runs import total

OURS, OLD_ROUTE, FIRST, BARE = "ours", "old route", "first generation", "bare"

AIM_TO_FIRST = 8.0  # times its answers a second
AIM_TO_BARE = 0.85  # of its images a second
AIM_PROBE_MS = 100.0

_MEDIANS = ("good_per_second", "cpu_ms", "p50_ms", "p99_ms", "refused_p50_ms", "cpu_share")
_POINT_COLUMNS = (
    *(" | {service}", "clients | {num_clients}", "answers/s | {good_per_second}"),
    *("x first gen. | {to_first}", "of bare | {to_bare}", "CPU, ms | {cpu_ms}"),
    *("p50, ms | {p50_ms}", "p99, ms | {p99_ms}", "200 | {good:.1%}", "503 | {refused:.1%}"),
    *("other | {others}", "client's CPU | {cpu_share}"),
)
_OF_BARE = (
    *("predicted_per_second", "predicted_cpu_ms", "alone_per_second", "alone_p50_ms"),
    "inferred_per_second",
)


def summarise(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the medians of the rounds and their ratios, of what `serving.Bench` measured."""
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
            whole = bare["alone_per_second" if num_clients == 1 else "predicted_per_second"]
            point["to_bare"] = rate / whole
    best = {
        name: max(point["good_per_second"] for point in points if point["service"] == name)
        for name in {point["service"] for point in points}
    }
    if bare:
        best[BARE] = bare["predicted_per_second"]
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
    """Return what was found beside what was aimed at; what was not measured is left out."""
    rows = []
    if OURS in best and FIRST in best:
        ratio = _ratio(best[OURS], best[FIRST])
        value = "none there" if ratio is None else f"{ratio:.1f} x"
        what = "answers a second, best to best of the first generation"
        is_reached = ratio is None or ratio >= AIM_TO_FIRST
        rows.append((what, value, f">= {AIM_TO_FIRST:g} x", is_reached))
    if OURS in best and BARE in best:
        share, what = best[OURS] / best[BARE], "answers a second, best, of the bare engine's"
        rows.append((what, f"{share:.2f}", f">= {AIM_TO_BARE:g}", share >= AIM_TO_BARE))
    if crowd := found["crowd"]:
        outcomes, p99 = crowd["outcomes"], crowd["probe_p99_ms"]
        is_reached = {*outcomes} <= {"200", "503"} and "200" in outcomes
        what = f"answers to {crowd['num_clients']} clients"
        rows.append((what, shares(outcomes), "200 and 503 only", is_reached))
        is_reached = {*crowd["probe_outcomes"]} == {"200"} and p99 < AIM_PROBE_MS
        value = "no answer" if p99 is None else f"{p99:.0f} ms"
        rows.append(("/healthz meanwhile, p99", value, f"< {AIM_PROBE_MS:g} ms", is_reached))
    if slow := found["slow"].get(OURS):
        outcomes = slow["asked"]["outcomes"]
        what = f"answers beside {slow['num_connected']} slow connections"
        rows.append((what, shares(outcomes), "200 only", {*outcomes} == {"200"}))
    return [dict(zip(("what", "found", "aim", "reached"), row, strict=True)) for row in rows]


def texts(result: Mapping[str, Any]) -> list[str]:
    """Return the tables."""
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
        found = [list(row.values()) for row in result["aims"]]
        rows = [(*row, "yes" if is_reached else "NO") for *row, is_reached in found]
        parts.append(console.table(["", "found", "aim", "reached"], rows))
    return parts


def _points_table(points: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for point in sorted(points, key=lambda point: point["num_clients"]):
        outcomes, everything = point["outcomes"], sum(point["outcomes"].values()) or 1
        rows.append(
            {
                **point,
                **{name: _number(point.get(name), 1) for name in ("to_first", *_MEDIANS)},
                **{name: _number(point.get(name), 2) for name in ("to_bare", "cpu_share")},
                "good": outcomes.get("200", 0) / everything,
                "refused": outcomes.get("503", 0) / everything,
                "others": _others(outcomes, point["num_cached"]),
            }
        )
    return rig.table(_POINT_COLUMNS, rows)


def _others(outcomes: Mapping[str, int], num_cached: int) -> str:
    others = {name: count for name, count in outcomes.items() if name not in ("200", "503")}
    if num_cached:
        others["cached"] = num_cached
    return ", ".join(f"{count} {name}" for name, count in others.items()) or "-"


def _bare_table(bare: Mapping[str, float], run: Mapping[str, Any]) -> str:
    many = f"{run['num_streams'] + 1} threads"
    through = (f"{bare['predicted_per_second']:.1f}", f"{bare['predicted_cpu_ms']:.1f}")
    rows = [
        ("decoding and inference, one thread", f"{bare['alone_per_second']:.1f}", "-"),
        (f"decoding and inference, {many}", *through),
        (f"inference alone, {many}", f"{bare['inferred_per_second']:.1f}", "-"),
    ]
    return console.table([f"bare engine ({run['engine']})", "images/s", "CPU, ms"], rows)


def _slow_table(slow: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> str:
    alone = {point["service"]: point["p50_ms"] for point in points if point["num_clients"] == 1}
    rows = []
    for name, found in slow.items():
        asked, probed = found["asked"], found["probed"] or {}
        figures = (
            _number(asked["p50_ms"], 1),
            _number(asked["p99_ms"], 1),
            _number(_ratio(asked["p50_ms"], alone.get(name)), 2),
            _number(probed.get("p99_ms"), 1),
        )
        counts = (found["num_connected"], found["num_thrown_out"])
        rows.append((name, *counts, asked["outcomes"].get("200", 0), *figures))
    header = ["one caller beside slow ones", "slow", "thrown out", "answers", "p50, ms", "p99, ms"]
    return console.table([*header, "p50 to that without", "/healthz p99, ms"], rows)


def shares(outcomes: Mapping[str, int]) -> str:
    """Return `200: 63.1 %, 503: 36.9 %`; broken connections are counted instead."""
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
