"""Why a search gave nothing.

An empty result has four causes that a user must be able to distinguish, each with its own error or
none: we are blocked, the markup has changed, the network is down, or there are no images.
"""

import html
import re
import urllib.parse

from imagesieve.errors import SearchError
from imagesieve.web import urls
from imagesieve.web.fetch import FetchError

# Other failures than those of `FetchError.is_passing` that a second try may heal. For images the
# next one is tried instead, but there is only one Bing.
_PASSING_REASONS = frozenset({"timeout", "too slow", "unknown host"})
_BLOCKED_STATUSES = frozenset({403, 429, 503})
_BAD_ANSWERS = frozenset({"too many bytes", "damaged compression", "not a valid URL"})
_WAIT = "Wait some hours, ask for less, or use another network."

_BLOCKED_WORDS = re.compile(r"captcha|challenge|one last step|unusual traffic", re.IGNORECASE)
_NO_RESULTS_WORDS = re.compile(r"no results|did not match", re.IGNORECASE)
# What an answer without results does not hold; a known container that is empty is no change.
_RESULT_WORDS = re.compile(r"murl|iusc|<img\s|\.(?:jpe?g|png|gif|webp)\b", re.IGNORECASE)
_LIST_WORDS = re.compile(r"<a\s|<li\b", re.IGNORECASE)
_LARGE_PAGE = 5_000  # characters; an answer without results is smaller


class BlockedError(SearchError):
    """Bing refuses to answer us, for now."""

    exit_code = 4


class MarkupChangedError(SearchError):
    """A result page came, but nothing in it can be read."""

    exit_code = 5

    def __init__(self, message: str, page: str) -> None:
        super().__init__(message)
        self.page = page  # its text, which shows how the parser must be adapted


class NetworkDownError(SearchError):
    """The server of the search cannot be reached."""

    exit_code = 6


def may_pass(error: FetchError) -> bool:
    """Return whether the same result page may well come when it is requested again."""
    return error.is_passing or error.reason in _PASSING_REASONS


def search_error(base_url: str, error: FetchError) -> SearchError:
    """Return the error of a search whose result page could not be fetched from `base_url`."""
    if error.status in _BLOCKED_STATUSES or error.reason == "too many redirects":
        return BlockedError(f"{base_url} refuses to answer ({error.reason}). {_WAIT}")
    if error.status is not None or error.reason in _BAD_ANSWERS:
        return SearchError(f"{base_url} gives no result page ({error.reason}). Try again later.")
    return NetworkDownError(
        f"{base_url} cannot be reached ({error.reason}): check the network and --base-url."
    )


def check_page_url(url: str) -> None:
    """Raise BlockedError if we were redirected to a URL that is not one of result pages."""
    if "images" not in urls.parse(url).target.partition("?")[0].split("/"):
        raise BlockedError(f"Bing sent us to {url} instead of answering. {_WAIT}")


def check_empty_page(page: str, words: str, *, is_first: bool) -> None:
    """Raise BlockedError or MarkupChangedError if a page should have results, but has none.

    The first page of a search for `words` should, and so should any that looks like one of them.
    """
    text = _without_words(page, words)
    if _NO_RESULTS_WORDS.search(text):
        return
    if _BLOCKED_WORDS.search(text):
        raise BlockedError(f"Bing wants proof that we are a person. {_WAIT}")
    # The page behind the last one may well hold a link or two.
    is_changed = len(text) > _LARGE_PAGE or _RESULT_WORDS.search(text)
    if is_changed or (is_first and _LIST_WORDS.search(text)):
        raise MarkupChangedError(
            "Bing answered, but its result page has changed and cannot be read. "
            "A newer release may help.",
            page,
        )


def _without_words(text: str, words: str) -> str:
    # A page repeats the words of the search, which may well be "captcha".
    if not (_NO_RESULTS_WORDS.search(words) or _BLOCKED_WORDS.search(words)):
        return text
    quotes = (str, html.escape, urllib.parse.quote, urllib.parse.quote_plus)
    forms = {re.escape(quote(words.strip())) for quote in quotes}
    return re.sub("|".join(forms), "", text, flags=re.IGNORECASE)
