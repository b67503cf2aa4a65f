"""Where runs take place: the fake Bing's process, and a new folder for every run."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from downloads_rig import measure, verdict
from downloads_rig.tools import TOOLS, InstallError, Job, Tool, command, python_of
from imagesieve.errors import ClassifierError

_BENCHMARKS = Path(__file__).resolve().parent.parent


class WebError(ClassifierError):
    """The fake Bing does not run."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of one tool: what it took, what it left, what the hosts saw of it.

    Attributes:
        kept: its files.
        num_requests: of every kind, pages and robots.txt among them.
        most_at_one_host: connections to one host at the same time.
        web_cpu_seconds: what serving it took of a core; near `cost.seconds` it would be in the way.
        asked_for: names of the links that were requested.
    """

    cost: measure.Cost
    kept: list[verdict.Kept]
    num_requests: int
    most_at_one_host: int
    web_cpu_seconds: float
    asked_for: list[str]


class Web:
    """The process of the fake Bing.

    Attributes:
        base_url: of the search.
        links: what it lists; see `verdict`.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        catalogue = self._read()
        self.base_url: str = catalogue["base_url"]
        self.links: list[dict[str, Any]] = catalogue["links"]

    def seen(self) -> dict[str, Any]:
        """Give what it has seen since the last call."""
        print(file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise WebError("The fake Bing has ended too early; what it printed above says why.")
        return dict(json.loads(line))


@contextlib.contextmanager
def running_web(*arguments: str) -> Iterator[Web]:
    """Have a fake Bing run; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "downloads_rig.web", *arguments],
        cwd=_BENCHMARKS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Web(process)
    finally:
        process.kill()
        process.communicate()


@dataclasses.dataclass(frozen=True)
class Rig:
    """What all runs share.

    Attributes:
        scratch: a folder that is removed in the end.
        cache: the rivals' environments.
        downloader: the script that runs as "ours".
        quiet: say nothing while it lasts.
    """

    scratch: Path
    cache: Path
    downloader: Path
    quiet: bool

    def install(self, names: Sequence[str]) -> tuple[list[Tool], dict[str, str]]:
        """Give the tools that can run, and why the others cannot."""
        tools, missing = [], {}
        for name in names:
            try:
                python_of(TOOLS[name], self.cache)
            except InstallError as error:
                missing[name] = str(error)
            else:
                tools.append(TOOLS[name])
        return tools, missing

    def run(self, tool: Tool, web: Web, limit: int, max_seconds: float) -> Run:
        """Let a tool fill a new folder."""
        if not self.quiet:
            print(f"{tool.name}: {limit} images", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            images = Path(folder) / "images"
            job = Job(web.base_url, images, limit)
            words = command(tool, python_of(tool, self.cache), job, self.downloader)
            web.seen()  # of a killed tool's last moments
            cost = measure.run(words, Path(folder), max_seconds)
            return Run(cost, verdict.files_in(images), **web.seen())
