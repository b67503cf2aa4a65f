"""A fake Bing for each test, and settings that wait for nobody."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_bing import FakeBing

import bing_downloader
from classifier import console
from classifier.collecting.search import ImageSearch, SearchSettings


@pytest.fixture
def bing() -> Iterator[FakeBing]:
    """Give a running server."""
    with FakeBing() as server:
        yield server


@pytest.fixture
def image_search(bing: FakeBing) -> ImageSearch:
    """Give a search that asks the fake Bing, page after page without a pause."""
    return ImageSearch(SearchSettings(base_url=bing.url, seconds_between_pages=0.0))


@pytest.fixture
def _closed_logs() -> Iterator[None]:
    """Undo what `start_logging` does to the process."""
    root, ours = logging.getLogger(), logging.getLogger("classifier")
    before = (root.handlers[:], ours.handlers[:], root.level, ours.level)
    yield
    for handler in {*root.handlers, *ours.handlers} - {*before[0], *before[1]}:
        handler.close()
    root.handlers[:], ours.handlers[:] = before[0], before[1]
    root.setLevel(before[2])
    ours.setLevel(before[3])


@pytest.fixture
def start(
    bing: FakeBing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _closed_logs: None
) -> Callable[..., int]:
    """Give a function that runs the script against the fake Bing, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BING_BASE_URL", bing.url)

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as caught:
            console.run_script(bing_downloader.main, ["--allow-private-hosts", *arguments])
        return int(caught.value.code or 0)

    return run
