"""A soak: minutes of mixed requests, and what the server then uses that it did not use before.

    python benchmarks/soak.py --model modelFile
    python benchmarks/soak.py --model modelFile --data data/validation --minutes 60 --json soak.json

Some callers send every form of good request, and as many bad ones: broken and hostile images and
bodies, wrong addresses, callers who leave in the middle. Each image is another content, so the
server's caches of predictions and of recent images fill in the first half, which has to be long
enough for some 10,000 predicted images: a slow model needs more minutes. Memory is looked at
every second; its slope is that of the second half, by least squares. Files and threads are counted
before the callers come and after they have left.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import http.client
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rig
from downloads_rig.images import jpeg
from serving_rig import runs, services
from serving_rig.mixture import KINDS, LEFT, OK, Mixture, Request
from serving_rig.services import Service

from imagesieve import console

MAX_SLOPE = 20.0  # MiB an hour; less than that goes under in the noise of some minutes
MAX_MORE = 2  # files or threads; thousands of requests leak more
EVERY_SECONDS = 1.0
QUIET_SECONDS = 2.0  # until what callers have left behind is put away
ANSWER_SECONDS = 30.0

AS_EXPECTED, BUSY = "as expected", "busy"  # outcomes; any other one names kind and fault


def main(arguments: Sequence[str]) -> int:
    """Soak, print what is well and what is not, write the JSON; exit code 1 if something is not."""
    parser = rig.parser(__doc__)
    add, number = parser.add_argument, console.whole_number(1)
    add("--data", type=Path, metavar="DIR", help="a folder of images (painted ones)")
    add("--images", type=number, default=50, help="of the folder, at most (50)")
    add("--minutes", type=float, default=10.0, help="(10)")
    add("--callers", type=number, default=6, help="at once (6)")
    services.add_options(parser)
    options = parser.parse_args(arguments)
    machine = rig.machine()
    if options.data:
        paths = runs.usable_images(options.data, options.images)
        images = [Path(path).read_bytes() for path in paths]
    else:
        images = [jpeg(number) for number in range(options.images)]
    with tempfile.TemporaryDirectory(prefix="soak-", dir=options.scratch) as scratch:
        found = soak(options, images, Path(scratch))
    rows = check(found)
    result = {"machine": machine, "minutes": options.minutes, "checks": rows, **found}
    rig.finish(options, result, text(result))
    return console.EXIT_OK if all(row["well"] for row in rows) else console.EXIT_FAILED


class Caller:
    """Sends one request after another, on the same connection while there is one."""

    def __init__(self, port: int, mixture: Mixture) -> None:
        self._port, self._mixture = port, mixture
        self._connection: socket.socket | None = None
        self.outcomes: collections.Counter[str] = collections.Counter()  # see `outcome_of`

    def ask(self) -> None:
        """Send the next request and see what comes."""
        request = next(self._mixture)
        if self._connection is None:
            address = ("127.0.0.1", self._port)
            self._connection = socket.create_connection(address, ANSWER_SECONDS)
        answer = None
        try:
            with contextlib.suppress(ConnectionError):  # refused while it is sent: the answer waits
                self._connection.sendall(request.data)
            if request.expected != LEFT:
                answer = http.client.HTTPResponse(self._connection)
                answer.begin()
                answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.outcomes[f"{request.name}: {type(error).__name__}"] += 1
            self.hang_up()
            return
        self.outcomes[outcome_of(request, answer and answer.status)] += 1
        if answer is None or answer.will_close:
            self.hang_up()

    def hang_up(self) -> None:
        """Leave."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def outcome_of(request: Request, status: int | None) -> str:
    """Return `AS_EXPECTED`, `BUSY`, or the kind of request and what came instead."""
    if status == 503:
        return BUSY
    is_right = status is None or status // 100 == (2 if request.expected == OK else 4)
    return AS_EXPECTED if is_right else f"{request.name}: {status}"


def soak(options: argparse.Namespace, images: Sequence[bytes], scratch: Path) -> dict[str, Any]:
    """Return what was seen of the server before, meanwhile and after."""
    how = (scratch, options.server_options, options.python)
    with services.ours(options.model, images[0], *how) as service:
        first, *callers = [
            Caller(service.port, Mixture(images, seed)) for seed in range(options.callers + 1)
        ]
        for _ in range(2 * len(KINDS)):  # what is made at first use is made now
            first.ask()
        first.hang_up()
        label, before = services.label(service, images[0]), sample(service, QUIET_SECONDS)
        samples = watch(service, callers, 60 * options.minutes)
        after = sample(service, QUIET_SECONDS)
        is_right = services.label(service, images[0]) == label
        exit_code = service.stop()
    outcomes = sum((caller.outcomes for caller in callers), first.outcomes)
    return {
        "before": before,
        "after": after,
        "outcomes": dict(sorted(outcomes.items())),
        "predicts_as_before": is_right,
        "exit_code": exit_code,
        "samples": samples,
    }


def sample(service: Service, quiet_seconds: float = 0.0) -> dict[str, float]:
    """Return what the server uses now, or in some seconds, once all callers have left."""
    time.sleep(quiet_seconds)
    return {
        "memory_mib": service.memory_mib("VmRSS"),
        "num_descriptors": service.num_descriptors(),
        "num_threads": service.num_threads(),
    }


def watch(service: Service, callers: Sequence[Caller], seconds: float) -> list[dict[str, float]]:
    """Let the callers ask for so long; return what the server used, second for second."""
    is_over = threading.Event()

    def work(caller: Caller) -> None:
        try:
            while not is_over.is_set():
                caller.ask()
        finally:
            caller.hang_up()

    samples = []
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(len(callers)) as pool:
        working = [pool.submit(work, caller) for caller in callers]
        try:
            while (now := time.monotonic() - start) < seconds and service.process.poll() is None:
                samples.append({"seconds": now, **sample(service)})
                if any(future.done() for future in working):  # it failed
                    break
                time.sleep(EVERY_SECONDS)
        finally:
            is_over.set()
        for future in working:
            future.result()
    return samples


def slope_per_hour(samples: Sequence[Mapping[str, float]]) -> float:
    """Return the slope of the memory over the second half, in MiB an hour."""
    half = samples[-1]["seconds"] / 2
    later = [one for one in samples if one["seconds"] >= half]
    times = [one["seconds"] / 3600 for one in later]
    return statistics.linear_regression(times, [one["memory_mib"] for one in later]).slope


def check(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was seen beside what should be."""
    before, after = found["before"], found["after"]
    strange = strange_of(found["outcomes"])
    slope = slope_per_hour(found["samples"])
    is_same, exit_code = found["predicts_as_before"], found["exit_code"]
    rows = [("memory, MiB an hour", f"{slope:+.1f}", f"<= {MAX_SLOPE:g}", slope <= MAX_SLOPE)]
    for name, what in (("num_descriptors", "open files"), ("num_threads", "threads")):
        seen = f"{before[name]} before, {after[name]} after"
        is_well = after[name] <= before[name] + MAX_MORE
        rows.append((what, seen, f"<= {MAX_MORE} more", is_well))
    rows += [
        ("answers that should not be", str(sum(strange.values())), "0", not strange),
        ("predicts as before", "yes" if is_same else "no", "yes", is_same),
        ("leaves on SIGTERM", f"exit code {exit_code}", "0", exit_code == 0),
    ]
    return [dict(zip(("what", "found", "aim", "well"), row, strict=True)) for row in rows]


def strange_of(outcomes: Mapping[str, int]) -> dict[str, int]:
    """Return the outcomes that should not be."""
    return {name: count for name, count in outcomes.items() if name not in (AS_EXPECTED, BUSY)}


def text(result: Mapping[str, Any]) -> str:
    """Return the checks as a table."""
    rows = [
        (row["what"], row["found"], row["aim"], "yes" if row["well"] else "NO")
        for row in result["checks"]
    ]
    outcomes = result["outcomes"]
    memory = [one["memory_mib"] for one in result["samples"]]
    lines = [
        f"{sum(outcomes.values()):,} requests of {len(KINDS)} kinds in {result['minutes']:g} "
        f"minutes; {outcomes.get(BUSY, 0):,} answered with 503.",
        f"Memory: {result['before']['memory_mib']:.0f} MiB before, {max(memory):.0f} at most, "
        f"{result['after']['memory_mib']:.0f} after.",
    ]
    lines += ["", console.table(["", "found", "aim", "well"], rows)]
    lines += [f"NOT EXPECTED  {count} x {name}" for name, count in strange_of(outcomes).items()]
    return "\n".join(lines)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
