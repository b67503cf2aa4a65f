"""Bing's image search: addresses of result pages, what stands in them, and why one may be useless.

An empty result has four causes that a user must be able to tell apart, each with its own error or
none: we are blocked, the markup has changed, the network is down, or there are no pictures.
"""

import contextlib
import dataclasses
import html
import json
import logging
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser

from classifier.collecting.fetch import Fetched, Fetcher, FetchError, FetchSettings
from classifier.errors import SearchError, UsageError

BASE_URL = "https://www.bing.com"
PAGE_SIZE = 35  # what the site itself asks for; it may answer with fewer

# Bing gives an outdated browser fewer and less related pictures: renew this now and then.
BROWSER = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0"
)

# Level of the adult filter -> its value in the cookie. The parameter alone has been ignored before.
ADULT_FILTERS = {"strict": "STRICT", "moderate": "DEMOTE", "off": "OFF"}

_PATH = "/images/async"
_MAX_PAGES = 60  # Bing holds some 1,000 results for a query; beyond, it repeats itself
_MAX_IDLE_PAGES = 2  # pages in a row without a new picture; Bing repeats its last page for ever
_MAX_PAGE_BYTES = 8 * 2**20
_BLOCKED_STATUSES = frozenset({403, 429, 503})
_BLOCKED_WORDS = re.compile(r"captcha|challenge|one last step|unusual traffic", re.IGNORECASE)
# What an answer without results does not hold; a known container that is empty is no change.
_RESULT_WORDS = re.compile(r"murl|iusc|<a\s|<img\s|<li\b|\.(?:jpe?g|png|gif|webp)\b", re.IGNORECASE)
_NO_RESULTS_WORDS = re.compile(r"no results|did not match", re.IGNORECASE)
_WAIT = "Wait some hours, ask for less, or come from another address."
_LARGE_PAGE = 5_000  # characters; an answer without results is smaller
_QUOTE = r'(?:"|&quot;|&#34;)'
_PICTURE_URL = re.compile(rf"{_QUOTE}murl{_QUOTE}\s*:\s*{_QUOTE}(.{{1,4000}}?){_QUOTE}")


class BlockedError(SearchError):
    """Bing refuses to answer us, for now."""

    exit_code = 4


class MarkupChangedError(SearchError):
    """A result page came, but nothing in it can be read.

    Attributes:
        page: the text of the page, for whoever adapts the parser.
    """

    exit_code = 5

    def __init__(self, message: str, page: str) -> None:
        super().__init__(message)
        self.page = page


class NetworkDownError(SearchError):
    """Nobody answers at the search's address."""

    exit_code = 6


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """How to search.

    Attributes:
        base_url: the address before `/images/async`.
        adult_filter: a key of `ADULT_FILTERS`.
        filters: Bing's own filter text, such as `+filterui:imagesize-large`.
        seconds_between_pages: the least time from one page to the next.
        attempts: how often a page is asked for while the network fails.
    """

    base_url: str = BASE_URL
    adult_filter: str = "moderate"
    filters: str = ""
    seconds_between_pages: float = 1.0
    attempts: int = 2

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{self.base_url!r} is no base URL: give one such as {BASE_URL}")


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """One picture that Bing knows.

    Attributes:
        url: the picture, http or https, without fragment.
        page_url: the page that shows it, or "".
        title: its title there, or "".
        md5: Bing's digest of the picture it saw, 32 hexadecimal digits, or "".
    """

    url: str
    page_url: str = ""
    title: str = ""
    md5: str = ""


@dataclasses.dataclass(frozen=True)
class ResultPage:
    """What stands in one result page.

    Attributes:
        results: the readable items in order.
        num_items: all items, readable or not; the next page starts behind them.
        next_first: offset of the next page according to the page itself, or None.
    """

    results: list[SearchResult]
    num_items: int
    next_first: int | None


class ImageSearch:
    """Reads result pages one after another, at a polite distance, for any number of queries."""

    def __init__(self, settings: SearchSettings | None = None) -> None:
        self.settings = settings or SearchSettings()
        # Whoever names another address than Bing's has chosen it, be it on this machine.
        is_chosen = self.settings.base_url != BASE_URL
        self._fetcher = Fetcher(
            FetchSettings(
                max_bytes=_MAX_PAGE_BYTES, allow_private_hosts=is_chosen, user_agent=BROWSER
            )
        )
        self._last_page_at = -self.settings.seconds_between_pages

    def results(self, query: str, stop: threading.Event | None = None) -> Iterator[SearchResult]:
        """Yield each picture once; pages are asked for only when the caller comes to them.

        Ends when Bing has no more, or soon after `stop` is set.

        Raises:
            BlockedError, MarkupChangedError, NetworkDownError: see there.
            SearchError: any other answer that is none.
        """
        stop = stop or threading.Event()
        seen: set[str] = set()
        first, num_idle = 1, 0
        for _ in range(_MAX_PAGES):
            if not self._wait(stop):
                return
            page = self._read_page(query, first, stop)
            news = _news(page.results, seen)
            yield from news
            num_idle = 0 if news else num_idle + 1
            if not page.num_items or num_idle == _MAX_IDLE_PAGES:
                return
            first = _next_first(page, first)

    def _wait(self, stop: threading.Event) -> bool:
        """Keep the distance between pages; False when stopped meanwhile."""
        pause = self._last_page_at + self.settings.seconds_between_pages - time.monotonic()
        if stop.wait(max(0.0, pause)):
            return False
        self._last_page_at = time.monotonic()
        return True

    def _read_page(self, query: str, first: int, stop: threading.Event) -> ResultPage:
        url = page_url(self.settings, query, first)
        fetched = self._fetch(url, stop)
        text = fetched.body.decode("utf-8", errors="replace")
        if "images" not in urllib.parse.urlsplit(fetched.url).path.split("/"):
            raise BlockedError(f"Bing sent us to {fetched.url} instead of answering. {_WAIT}")
        page = parse_page(text)
        logging.getLogger(__name__).debug("%s: %d items", url, page.num_items)
        if not page.results:
            _check_empty_page(text, is_first=first == 1)
        return page

    def _fetch(self, url: str, stop: threading.Event) -> Fetched:
        for attempt in range(1, self.settings.attempts + 1):
            try:
                return self._fetcher.fetch(url, page_headers(self.settings))
            except FetchError as error:
                is_worth_another = error.status is None and attempt < self.settings.attempts
                if not is_worth_another or stop.wait(self.settings.seconds_between_pages):
                    raise _search_error(self.settings.base_url, error) from error
        raise UsageError("attempts must be at least 1")


def page_url(settings: SearchSettings, query: str, first: int) -> str:
    """Give the address of the result page that starts at item `first`, counted from 1."""
    parameters = {
        "q": query,
        "first": str(first),
        "count": str(PAGE_SIZE),
        "mmasync": "1",
        "adlt": settings.adult_filter,
    }
    if settings.filters:
        # Copied from a browser's address bar, the text may be quoted already.
        parameters["qft"] = urllib.parse.unquote(settings.filters)
    return f"{settings.base_url.rstrip('/')}{_PATH}?{urllib.parse.urlencode(parameters)}"


def page_headers(settings: SearchSettings) -> dict[str, str]:
    """Give the headers that Bing wants to see."""
    return {
        "Accept": "text/html",
        "Accept-Language": "en-US,en;q=0.9",
        "Cookie": f"SRCHHPGUSR=ADLT={ADULT_FILTERS[settings.adult_filter]}",
    }


def parse_page(text: str) -> ResultPage:
    """Read one result page. Never raises: an item that cannot be read is left out."""
    parser = _PageParser()
    with contextlib.suppress(AssertionError):  # how html.parser says that it is lost
        parser.feed(text)
        parser.close()
    results = [_result_of(item) for item in parser.items]
    readable = [result for result in results if result is not None]
    if len(readable) < len(results) or not results:
        # Markup that is broken or new may still show the addresses themselves.
        known = {result.url for result in readable}
        readable += [result for result in _search_text(text) if result.url not in known]
    return ResultPage(readable, max(len(results), len(readable)), parser.next_first)


class _PageParser(HTMLParser):
    """Collects the `m` attribute of every item, and the offset of the next page."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[str] = []
        self.next_first: int | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one start tag; attribute values come unescaped."""
        attributes = {name: value or "" for name, value in attrs}
        if "iusc" in attributes.get("class", "").split():
            item = attributes.get("m") or attributes.get("data-m")
            if item is not None:
                self.items.append(item)
        if "data-nexturl" in attributes:
            self.next_first = _first_in(attributes["data-nexturl"])


def _first_in(url: str) -> int | None:
    # Only the number is used: the rest of the page's own link is none of our request.
    try:
        values = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query).get("first", [])
    except ValueError:
        return None
    is_offset = bool(values) and values[0].isdecimal() and len(values[0]) < 7
    return int(values[0]) if is_offset else None


def _result_of(item: str) -> SearchResult | None:
    try:
        fields = json.loads(item, strict=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    url = _picture_url(fields.get("murl"))
    if url is None:
        return None
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    return SearchResult(url, texts.get("purl", ""), texts.get("t", ""), texts.get("md5", ""))


def _picture_url(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        parts = urllib.parse.urlsplit(value.strip())
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            return None
    except ValueError:
        return None
    return urllib.parse.urlunsplit(parts._replace(fragment=""))


def _search_text(text: str) -> Iterator[SearchResult]:
    for match in _PICTURE_URL.finditer(text):
        try:
            url = _picture_url(json.loads(f'"{html.unescape(match[1])}"'))
        except ValueError:
            continue
        if url is not None:
            yield SearchResult(url)


def _news(results: list[SearchResult], seen: set[str]) -> list[SearchResult]:
    news = []
    for result in results:
        if result.url not in seen:
            seen.add(result.url)
            news.append(result)
    return news


def _next_first(page: ResultPage, first: int) -> int:
    if page.next_first is not None and page.next_first > first:
        return page.next_first
    return first + page.num_items


def _check_empty_page(text: str, *, is_first: bool) -> None:
    """Say why there is nothing to read in a page, unless there is simply nothing."""
    if _NO_RESULTS_WORDS.search(text):  # first, since such a page repeats the query's words
        return
    if _BLOCKED_WORDS.search(text):
        raise BlockedError(f"Bing wants proof that we are a person. {_WAIT}")
    if not is_first:  # the end; markup does not change in the middle of a run
        return
    if len(text) > _LARGE_PAGE or _RESULT_WORDS.search(text):
        raise MarkupChangedError(
            "Bing answered, but its result page has changed and cannot be read. "
            "A newer release may help.",
            text,
        )


def _search_error(base_url: str, error: FetchError) -> SearchError:
    if error.status in _BLOCKED_STATUSES or error.reason == "too many redirects":
        return BlockedError(f"{base_url} refuses to answer ({error.reason}). {_WAIT}")
    if error.status is not None or error.reason == "too many bytes":
        return SearchError(f"{base_url} gives no result page ({error.reason}). Try again later.")
    return NetworkDownError(
        f"{base_url} cannot be reached ({error.reason}): check the network and --base-url."
    )
