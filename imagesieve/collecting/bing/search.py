"""Bing's image search: result pages one after another, at a polite distance, until no more come."""

import contextlib
import dataclasses
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import requests
import urllib3
from requests.adapters import HTTPAdapter

from imagesieve.collecting.bing.errors import (
    MarkupChangedError,
    check_empty_page,
    check_page_url,
    may_pass,
    search_error,
)
from imagesieve.collecting.bing.queries import Query, page_headers, page_url
from imagesieve.collecting.bing.result_page import ResultPage, SearchResult, decode_page, parse_page
from imagesieve.errors import UsageError
from imagesieve.files import read_bytes
from imagesieve.web import urls
from imagesieve.web.connections import CheckedConnection, Connection
from imagesieve.web.fetch import Fetched, Fetcher, FetchError, FetchSettings
from imagesieve.web.urls import ParsedUrl

BASE_URL = "https://www.bing.com"

# Bing gives an outdated browser fewer and less related images: renew this now and then.
BROWSER = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0"
)

_MAX_PAGES = 60
_MAX_TRIES = 3  # of one page, while it fails in a way that may pass
_MAX_FIRST = 1_050  # Bing has some 1,000 results for a query; beyond, it repeats itself
_MAX_IDLE_PAGES = 2  # pages in a row without a new image; Bing repeats its last page for ever
_MAX_PAGE_BYTES = 8 * 2**20
_MAX_RETRY_AFTER = 30.0  # seconds; a server may ask for hours
_PAGE_SECONDS = 1.0
_DICE = random.SystemRandom()  # for pauses only, which no result depends on

_log = logging.getLogger(__name__)


class ImageSearch:
    """Reads result pages for any number of queries. One thread reads; any thread may `cut`."""

    def __init__(
        self,
        base_url: str = BASE_URL,
        seconds_between_pages: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        """Prepare to ask the server at `base_url`; UsageError if it cannot be one.

        From the end of one page to the request of the next, `seconds_between_pages` go by (1 if it
        is None, or 0 on this machine), to which chance adds up to a half; before a retry 2, then 4
        times as many. `wait` waits for an event, at most so many seconds of `clock`.
        """
        host = _base_host(base_url)
        if not host:
            raise UsageError(f"{base_url!r} is not a base URL: use one such as {BASE_URL}")
        if seconds_between_pages is None:
            seconds_between_pages = 0.0 if urls.is_loopback(host) else _PAGE_SECONDS
        self.pause_seconds = seconds_between_pages
        self._base_url = base_url
        self._clock = clock
        self._wait_for = wait
        self._last_page_at = float("-inf")
        self._fetcher = self._new_fetcher()  # of all `results` until the next `cut`

    def results(self, query: Query) -> Iterator[SearchResult]:
        """Yield each image once; pages are requested only when the caller comes to them.

        Ends when Bing has no more, and at once when `cut` is called. Why there is no result page is
        a SearchError; see `bing.errors`.
        """
        return self._results(query, self._fetcher)

    def cut(self) -> None:
        """End every `results` that was called so far, without an error, amid a page if need be."""
        fetcher, self._fetcher = self._fetcher, self._new_fetcher()
        fetcher.stop()

    def _new_fetcher(self) -> Fetcher:
        # A user who names another server than Bing has chosen it, be it on this machine.
        is_chosen = self._base_url != BASE_URL
        settings = FetchSettings(
            max_bytes=_MAX_PAGE_BYTES, allow_private_hosts=is_chosen, user_agent=BROWSER
        )
        return Fetcher(settings, _open_response)

    def _results(self, query: Query, fetcher: Fetcher) -> Iterator[SearchResult]:
        seen: set[str] = set()
        first, num_idle = 1, 0
        for _ in range(_MAX_PAGES):
            page = self._read_page(query, first, fetcher)
            if page is None:
                return
            new = _new_results(page, query, seen)
            yield from itertools.takewhile(lambda _: not fetcher.stopped.is_set(), new)
            num_idle = 0 if new else num_idle + 1
            ahead = page.next_first or 0  # as the page says
            first = ahead if ahead > first else first + page.num_items
            if not page.num_items or num_idle == _MAX_IDLE_PAGES or first > _MAX_FIRST:
                return

    def _read_page(self, query: Query, first: int, fetcher: Fetcher) -> ResultPage | None:
        """Return a page, or None when the search was cut."""
        url = page_url(self._base_url, query, first)
        fetched = self._fetch(url, page_headers(query), fetcher)
        if fetched is None or fetcher.stopped.is_set():
            return None
        check_page_url(fetched.url)
        text = decode_page(fetched.body)
        page = parse_page(text)
        _log.debug("%s: %d items (%s)", url, page.num_items, page.rung or "none readable")
        if not page.results:
            check_empty_page(text, query.text, is_first=first == 1)
        return page

    def _fetch(self, url: str, headers: dict[str, str], fetcher: Fetcher) -> Fetched | None:
        num_tries, pause = 0, 0.0
        while self._wait(pause, fetcher):
            num_tries += 1
            try:
                return fetcher.fetch(url, headers)
            except FetchError as error:
                is_last = num_tries == _MAX_TRIES or not may_pass(error)
                if is_last and not fetcher.stopped.is_set():
                    raise search_error(self._base_url, error) from error
                pause = self.pause_seconds * 2.0**num_tries
                pause = max(pause, min(error.retry_after or 0.0, _MAX_RETRY_AFTER))
            finally:
                self._last_page_at = self._clock()
        return None

    def _wait(self, seconds: float, fetcher: Fetcher) -> bool:
        """Wait, at least for the distance between pages; False when the search was cut."""
        distance = self.pause_seconds * _DICE.uniform(1.0, 1.5)
        end = max(self._last_page_at + distance, self._clock() + seconds)
        while not fetcher.stopped.is_set() and (left := end - self._clock()) > 0.0:
            self._wait_for(fetcher.stopped, left)
        return not fetcher.stopped.is_set()


class SavedPages:
    """Result pages that were saved from a browser, for people whom Bing does not answer."""

    def __init__(self, path: Path) -> None:
        """Find the pages: one file, or all *.html and *.htm of a folder in the order of names."""
        self._path = path
        pages = [file for file in path.glob("*") if file.suffix.lower() in (".html", ".htm")]
        self._files = sorted(file for file in (*pages, path) if file.is_file())
        if not self._files:
            raise UsageError(
                f"{path} is neither a saved result page nor a folder of them (*.html or *.htm)"
            )

    def results(self, query: Query) -> Iterator[SearchResult]:
        """Yield each image of all pages once; MarkupChangedError if nothing can be read."""
        seen: set[str] = set()
        for file in self._files:
            yield from _new_results(parse_page(_read_page(file)), query, seen)
        if not seen:
            raise MarkupChangedError(
                f"Nothing can be read in {self._path}: save pages of Bing's image search there, "
                "from a browser and as HTML.",
                _read_page(self._files[0]),
            )

    def cut(self) -> None:
        """Do nothing, as `results` never waits; see `ImageSearch.cut`."""


def _read_page(path: Path) -> str:
    return decode_page(read_bytes(path, _MAX_PAGE_BYTES, "page"))


def _new_results(page: ResultPage, query: Query, seen: set[str]) -> list[SearchResult]:
    """Return what has a new URL, numbered; another URL of the same image may be of use too."""
    new = []
    for result in page.results:
        if result.url not in seen:
            seen.add(result.url)
            new.append(dataclasses.replace(result, query=query.text, rank=len(seen)))
    return new


class _Adapter(HTTPAdapter):
    """Has `requests` send over a connection that is checked, pinned and can be cut."""

    def __init__(self, pool: urllib3.HTTPConnectionPool) -> None:
        super().__init__()
        self._pool = pool

    def get_connection_with_tls_context(
        self, *_: object, **__: object
    ) -> urllib3.HTTPConnectionPool:
        return self._pool  # whose connections take care of TLS by themselves


@contextlib.contextmanager
def _open_response(
    url: ParsedUrl, headers: dict[str, str], connection: Connection
) -> Iterator[urllib3.BaseHTTPResponse]:
    """Send a GET request through `requests`; as `web.connections.open_response`."""
    with contextlib.ExitStack() as stack:
        stack.callback(connection.release)
        pool = stack.enter_context(urllib3.HTTPConnectionPool(url.host, url.port))
        # urllib3 makes its connections by this class alone; ours is opened and checked already.
        pool.ConnectionCls = lambda **_: CheckedConnection(  # type: ignore[assignment]  # no class
            url, connection
        )
        session = stack.enter_context(requests.Session())
        session.trust_env = False  # a proxy from the environment would look names up by itself
        session.mount(f"{url.scheme}://", _Adapter(pool))
        try:
            response = session.get(
                url.text,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=connection.read_seconds,
            )
        except requests.RequestException as error:
            raise _innermost(error) from error
        stack.callback(response.close)
        yield response.raw


def _innermost(error: Exception) -> Exception:
    """Return the error of the network that `requests` and `urllib3` have wrapped."""
    parts = (getattr(error, "reason", None), *error.args)
    inner = next((part for part in parts if isinstance(part, Exception)), None)
    return error if inner is None else _innermost(inner)


def _base_host(url: str) -> str:
    """Return the host of a base URL, "" if it cannot be one."""
    try:
        parsed = urls.parse(url)
    except FetchError:
        return ""
    return "" if "?" in parsed.target or not parsed.port else parsed.host
