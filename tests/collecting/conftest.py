"""A fake Bing for each test, settings without pauses, and runs that fill a class folder."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_bing import FakeBing
from filling import Run, Start

import bing_downloader
from imagesieve import console
from imagesieve.collecting.bing.search import ImageSearch
from imagesieve.collecting.journal import open_journal
from imagesieve.collecting.targets import Target


@pytest.fixture
def bing() -> Iterator[FakeBing]:
    """Yield a running server."""
    with FakeBing() as server:
        yield server


@pytest.fixture
def image_search(bing: FakeBing) -> ImageSearch:
    """Return a search that asks the fake Bing, page after page without a pause."""
    return ImageSearch(bing.url, 0.0)


@pytest.fixture
def start(
    bing: FakeBing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _loggers_restored: None
) -> Callable[..., int]:
    """Return a function that runs the script against the fake Bing, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BING_BASE_URL", bing.url)

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as caught:
            console.run_script(bing_downloader.main, ["--allow-private-hosts", *arguments])
        return int(caught.value.code or 0)

    return run


@pytest.fixture
def start_run() -> Iterator[Start]:
    """Yield a function that starts a run, and ends the one before."""
    with contextlib.ExitStack() as stack:

        def begin(target: Target, **options: object) -> Run:
            stack.close()
            folders = [side.folder for side in target.sides]
            journals = {folder: stack.enter_context(open_journal(folder)) for folder in folders}
            return Run(target, journals, **options)

        yield begin
