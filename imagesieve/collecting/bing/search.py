"""Bing's image search: result pages one after another, at a polite distance, until no more come."""

import dataclasses
import ipaddress
import itertools
import logging
import random
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from imagesieve.collecting.bing.errors import (
    BlockedError,
    MarkupChangedError,
    NetworkDownError,
    check_address,
    check_empty_page,
    may_pass,
    search_error,
)
from imagesieve.collecting.bing.queries import Query, page_headers, page_url
from imagesieve.collecting.bing.result_page import ResultPage, SearchResult, decode_page, parse_page
from imagesieve.errors import UsageError
from imagesieve.web.fetch import Fetched, Fetcher, FetchError, FetchSettings

__all__ = [
    "BASE_URL",
    "BROWSER",
    "BlockedError",
    "ImageSearch",
    "MarkupChangedError",
    "NetworkDownError",
    "SavedPages",
    "SearchSettings",
]

BASE_URL = "https://www.bing.com"

# Bing gives an outdated browser fewer and less related images: renew this now and then.
BROWSER = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0"
)

_MAX_PAGES = 60
_MAX_FIRST = 1_050  # Bing holds some 1,000 results for a query; beyond, it repeats itself
_MAX_IDLE_PAGES = 2  # pages in a row without a new image; Bing repeats its last page for ever
_MAX_PAGE_BYTES = 8 * 2**20
_MAX_RETRY_AFTER = 30.0  # seconds; a server may ask for hours
_GLANCE_SECONDS = 0.1  # how often a wait looks whether it is still wanted
_PAGE_SECONDS = 1.0
_PAGE_SUFFIXES = (".html", ".htm")
_DICE = random.SystemRandom()  # for pauses only, which no result depends on

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Whom to ask, and how patiently.

    Attributes:
        base_url: the address before `/images/async`.
        seconds_between_pages: the least time from the end of one page to the request of the next,
            to which chance adds up to a half; a retry waits 2, then 4 times as long. None stands
            for 1, or for 0 when `base_url` is on this machine.
        attempts: how often a page is asked for, from 1, while it fails in a way that may pass.
        user_agent: what we say we are.

    Raises:
        UsageError: `base_url` or a number is of no use.
    """

    base_url: str = BASE_URL
    seconds_between_pages: float | None = None
    attempts: int = 3
    user_agent: str = BROWSER

    def __post_init__(self) -> None:
        if not _host_of(self.base_url):
            raise UsageError(f"{self.base_url!r} is no base URL: give one such as {BASE_URL}")
        if self.attempts < 1 or (self.seconds_between_pages or 0.0) < 0.0:
            raise UsageError("attempts must be at least 1, seconds_between_pages at least 0")

    @property
    def pause_seconds(self) -> float:
        """The least time between pages, chosen or by default."""
        if self.seconds_between_pages is not None:
            return self.seconds_between_pages
        return 0.0 if _is_loopback(_host_of(self.base_url)) else _PAGE_SECONDS


class ImageSearch:
    """Reads result pages for any number of queries. One thread reads; any thread may `cut`."""

    def __init__(
        self,
        settings: SearchSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        """Build a search; nothing is asked yet.

        Args:
            settings: whom to ask.
            clock: gives seconds.
            wait: waits for an event, for at most so many seconds of that clock.
        """
        self.settings = settings or SearchSettings()
        self._clock = clock
        self._wait_for = wait
        self._last_page_at = float("-inf")
        self._lock = threading.Lock()  # guards `_link`
        self._link = self._new_link()

    def results(self, query: Query, stop: threading.Event | None = None) -> Iterator[SearchResult]:
        """Yield each image once; pages are asked for only when the caller comes to them.

        Ends when Bing has no more; at once when `cut` is called; and before the next image, page
        or retry when `stop` is set.

        Raises:
            BlockedError, MarkupChangedError, NetworkDownError: see there.
            SearchError: any other answer that is none.
        """
        with self._lock:
            return self._results(query, _Call(self._link, stop or threading.Event()))

    def cut(self) -> None:
        """End every `results` that was called so far, quietly, amid a page if need be."""
        with self._lock:
            link, self._link = self._link, self._new_link()
        link.is_cut.set()  # first, so that the download's failure is known to be wanted
        link.fetcher.stop()

    def _new_link(self) -> "_Link":
        # Whoever names another address than Bing's has chosen it, be it on this machine.
        is_chosen = self.settings.base_url != BASE_URL
        settings = FetchSettings(
            max_bytes=_MAX_PAGE_BYTES,
            allow_private_hosts=is_chosen,
            user_agent=self.settings.user_agent,
        )
        return _Link(Fetcher(settings))

    def _results(self, query: Query, call: "_Call") -> Iterator[SearchResult]:
        sieve = _Sieve(query)
        first, num_idle = 1, 0
        for _ in range(_MAX_PAGES):
            page = self._read_page(query, first, call)
            if page is None:
                return
            news = sieve.news(page.results)
            yield from itertools.takewhile(lambda _: not call.is_over, news)
            num_idle = 0 if news else num_idle + 1
            first = _next_first(page, first)
            if not page.num_items or num_idle == _MAX_IDLE_PAGES or first > _MAX_FIRST:
                return

    def _read_page(self, query: Query, first: int, call: "_Call") -> ResultPage | None:
        """Give a page, or None when the call is over."""
        url = page_url(self.settings.base_url, query, first)
        fetched = self._fetch(url, page_headers(query), call)
        if fetched is None or call.is_over:
            return None
        check_address(fetched.url)
        text = decode_page(fetched.body)
        page = parse_page(text)
        _log.debug("%s: %d items (%s)", url, page.num_items, page.rung or "none readable")
        if not page.results:
            check_empty_page(text, query.text, is_first=first == 1)
        return page

    def _fetch(self, url: str, headers: dict[str, str], call: "_Call") -> Fetched | None:
        num_tries, pause = 0, 0.0
        while self._wait(pause, call):
            num_tries += 1
            try:
                return call.link.fetcher.fetch(url, headers)
            except FetchError as error:
                is_last = num_tries == self.settings.attempts or not may_pass(error)
                if is_last and not call.is_over:
                    raise search_error(self.settings.base_url, error) from error
                pause = self._retry_pause(error, num_tries)
            finally:
                self._last_page_at = self._clock()
        return None

    def _retry_pause(self, error: FetchError, num_tries: int) -> float:
        pause = self.settings.pause_seconds * 2.0**num_tries
        return max(pause, min(error.retry_after or 0.0, _MAX_RETRY_AFTER))

    def _wait(self, seconds: float, call: "_Call") -> bool:
        """Wait, at least for the distance between pages; False when the call is over."""
        distance = self.settings.pause_seconds * _DICE.uniform(1.0, 1.5)
        end = max(self._last_page_at + distance, self._clock() + seconds)
        while not call.is_over:
            left = end - self._clock()
            if left <= 0.0:
                return True
            self._wait_for(call.link.is_cut, min(left, _GLANCE_SECONDS))
        return False


class SavedPages:
    """Result pages that were saved from a browser, for people whom Bing does not answer."""

    def __init__(self, path: Path) -> None:
        """Find the pages: one file, or all *.html and *.htm of a folder in the order of names.

        Raises:
            UsageError: there are none.
        """
        self._path = path
        self._files = _page_files(path)

    def results(self, query: Query, stop: threading.Event | None = None) -> Iterator[SearchResult]:
        """Yield each image of all pages once, whatever the query, until `stop` is set.

        Raises:
            MarkupChangedError: nothing can be read in any page.
            UsageError: a file cannot be opened.
        """
        stop = stop or threading.Event()
        sieve = _Sieve(query)
        for file in self._files:
            for result in sieve.news(parse_page(_read_file(file)).results):
                if stop.is_set():
                    return
                yield result
        if not sieve.num_passed:
            raise MarkupChangedError(
                f"Nothing can be read in {self._path}: save pages of Bing's image search there, "
                "from a browser and as HTML.",
                _read_file(self._files[0]),
            )

    def cut(self) -> None:
        """Do as `ImageSearch.cut`, which here means nothing: no page is waited for."""


class _Sieve:
    """Lets each image of a query through once, and numbers them."""

    def __init__(self, query: Query) -> None:
        self.num_passed = 0
        self._words = query.text
        self._seen: set[str] = set()

    def news(self, results: Iterable[SearchResult]) -> list[SearchResult]:
        """Give those whose address is new; another one of the same image may be of use too."""
        news = []
        for result in results:
            if result.url not in self._seen:
                self.num_passed += 1
                news.append(dataclasses.replace(result, query=self._words, rank=self.num_passed))
            self._seen.add(result.url)
        return news


@dataclasses.dataclass(frozen=True)
class _Link:
    """What one `cut` ends."""

    fetcher: Fetcher
    is_cut: threading.Event = dataclasses.field(default_factory=threading.Event)


@dataclasses.dataclass(frozen=True)
class _Call:
    """One call of `results`, and what may end it."""

    link: _Link
    stop: threading.Event

    @property
    def is_over(self) -> bool:
        return self.link.is_cut.is_set() or self.stop.is_set()


def _next_first(page: ResultPage, first: int) -> int:
    if page.next_first is not None and page.next_first > first:
        return page.next_first
    return first + page.num_items


def _host_of(url: str) -> str:
    """Give the host of an http or https address, "" if it is none."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_base = parts.scheme in ("http", "https") and not parts.query and parts.port != 0
    except ValueError:  # no address, or no port
        return ""
    return parts.hostname or "" if is_base else ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _page_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path} does not exist: give a saved result page or a folder of them")
    try:
        files = sorted(file for file in path.iterdir() if _is_page(file))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error
    if not files:
        raise UsageError(f"{path} holds no saved result page: *.html or *.htm are looked for")
    return files


def _is_page(path: Path) -> bool:
    return path.suffix.lower() in _PAGE_SUFFIXES and path.is_file()


def _read_file(path: Path) -> str:
    try:
        return decode_page(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error
