"""What tests of serving share: a browser and a server for the pages, folders, and files of keys."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from running import serving

CHROMIUM = Path("/usr/bin/chromium")  # Debian's; without it, the browser Playwright downloaded
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

POLICY = ("--decision", "confident", "--min-confidence", "0.6", "--fallback-class", "neutral")

expect.set_options(timeout=15_000)  # milliseconds: the machine may be busy


@pytest.fixture(scope="session")
def site(version_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a running service."""
    with serving(tmp_path_factory.mktemp("server"), version_path, *POLICY) as server:
        yield server.url


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return a running Chromium."""
    with sync_playwright() as playwright:
        path = str(CHROMIUM) if CHROMIUM.exists() else None
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shared_tab(browser: Browser) -> Page:
    """Return a tab for all tests: opening one takes a second, loading a page a third of it."""
    return browser.new_context(viewport=DESKTOP).new_page()


@pytest.fixture(scope="session")
def shared_phone(browser: Browser) -> Page:
    """Return a tab of a telephone for all tests."""
    return browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True).new_page()


@pytest.fixture
def tab(shared_tab: Page) -> Iterator[Page]:
    """Return the tab, in which a test opens what it wants.

    A test that has answers changed says so before it opens the page: of a page that is open
    already, a request soon after could slip through.
    """
    yield shared_tab
    _tidy(shared_tab)
    shared_tab.set_viewport_size(DESKTOP)


@pytest.fixture
def phone(shared_phone: Page) -> Iterator[Page]:
    """Return the tab of a telephone, in which a test opens what it wants."""
    yield shared_phone
    _tidy(shared_phone)
    shared_phone.set_viewport_size(PHONE)


@pytest.fixture
def page(tab: Page, site: str) -> Page:
    """Return the page for trying the model, freshly loaded."""
    tab.goto(site)
    return tab


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a path for a feedback folder, in memory if possible: its tests wait for the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path) / "feedback"


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a file of keys."""

    def write(text: str | bytes, mode: int = 0o600) -> Path:
        path = tmp_path / "keys.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    return write


def _tidy(tab: Page) -> None:
    """Leave nothing of one test to the next one, which loads a page of its own."""
    tab.unroute_all(behavior="ignoreErrors")
    tab.evaluate("sessionStorage.clear()")
    tab.emulate_media(color_scheme="light", reduced_motion="no-preference")
    tab.context.set_offline(False)
    tab.context.clear_permissions()
