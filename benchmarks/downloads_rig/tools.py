"""The downloaders that are compared: how each is installed and called."""

import dataclasses
import subprocess
import sys
import venv
from argparse import Namespace
from pathlib import Path

from imagesieve.errors import ClassifierError

QUERY = "red panda"

_HERE = Path(__file__).resolve().parent
_INSTALL_SECONDS = 300


class InstallError(ClassifierError):
    """A rival cannot be installed."""


@dataclasses.dataclass(frozen=True)
class Tool:
    """One downloader with one setting."""

    name: str  # for `--only` and the tables
    package: str  # from PyPI, in the version that was looked at; "" for what needs none
    threads: int  # downloads at the same time
    # of the images of a throughput run, so that slow ones end too; their rate is the same with
    # fewer
    share: float
    is_in_hostile: bool  # whether this setting meets the hostile set; one of each downloader does


_BETTER, _ICRAWLER = "better-bing-image-downloader==5.0.0", "icrawler==0.6.10"

TOOLS = {
    tool.name: tool
    for tool in (
        Tool("ours", "", 80, 1.0, True),  # by default it has 32
        Tool("bbid-style", "", 20, 1.0, True),
        Tool("better-bing-16", _BETTER, 16, 0.75, True),  # the most that it allows
        Tool("better-bing-4", _BETTER, 4, 0.25, False),  # its default
        Tool("icrawler-32", _ICRAWLER, 32, 1.0, True),
        Tool("icrawler-1", _ICRAWLER, 1, 0.25, False),  # its default
        Tool("bing-image-dl", "bing-image-downloader==1.1.3", 1, 0.25, True),  # its only setting
    )
}


def command(tool: Tool, base_url: str, folder: Path, limit: int, options: Namespace) -> list[str]:
    """Return the command line with which a tool fills a folder from a Bing."""
    python, threads = str(python_of(tool, options.cache)), str(tool.threads)
    if tool.name == "ours":
        where = ["--base-url", base_url, "--allow-private-hosts", "--threads", threads]
        what = ["-s", QUERY, "-o", str(folder), "--limit", str(limit)]
        return [python, str(options.downloader), *where, *what]
    asked = [base_url, QUERY, str(folder), str(limit)]
    if not tool.package:
        return [python, str(_HERE / "bbid.py"), *asked]
    return [python, str(_HERE / "rival.py"), tool.package.partition("==")[0], *asked, threads]


def python_of(tool: Tool, cache: Path) -> Path:
    """Return the Python that runs the tool, making its environment in `cache` at the first call."""
    if not tool.package:
        return Path(sys.executable)
    folder = cache / tool.package.replace("==", "-")
    python, mark = folder / "bin" / "python", folder / "installed"
    if not mark.exists():
        print(f"Installing {tool.package} into {folder}.", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        _install(tool.package, python)
        mark.touch()
    return python


def _install(package: str, python: Path) -> None:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
    try:
        subprocess.run(pip, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"pip was not done after {_INSTALL_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        last = [line for line in error.stderr.splitlines() if line.strip()][-1:]
        raise InstallError(f"pip failed: {' '.join(last) or 'no reason given'}") from error
