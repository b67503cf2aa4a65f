"""What stands in a result page of Bing's image search, whatever has become of its markup.

Items are looked for on four rungs. The first is how Bing writes them today, the others are for the
day when it does not any more:

    item       an element of the class `iusc` whose attribute `m` or `data-m` holds JSON
    attribute  any other attribute that holds a JSON object with `murl`
    link       a link with `mediaurl=` among its parameters
    text       `"murl":"…"` anywhere in the text, for markup that no parser understands
"""

import contextlib
import dataclasses
import html
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser

from imagesieve.web import urls

RUNGS = ("item", "attribute", "link", "text")

_IMAGE_URL = re.compile(
    r"(?P<quote>\"|&quot;|&#34;)murl(?P=quote)\s*:\s*(?P=quote)(?P<url>.{1,4000}?)(?P=quote)"
)
_LIST_ITEM = re.compile(r"(?=<li\b)", re.IGNORECASE)
_SIZE = re.compile(r"\s*([0-9]{1,6})\s*[x×]\s*([0-9]{1,6})\s*·")  # "3442 x 2972 · png"
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
# Encodings of the web only: Python has others, such as escapes, that no page uses.
_CHARSET = re.compile(
    rb"charset\s*=\s*[\"']?((?:iso|windows|gb|big5|shift|euc|koi8)[\w-]{0,20})", re.IGNORECASE
)
_CHARSET_BYTES = 2048  # where browsers look for it, and some more
_REFERENCE = re.compile(r"&(?:#?\w{1,32});")
_JOINERS = "\u200c\u200d"  # not printable by themselves, but part of words and emoji


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """One image that Bing has found."""

    url: str  # of the image, as `urls.normalize` returns it
    page_url: str = ""  # of the page that shows it, in the same form
    title: str = ""  # there
    md5: str = ""  # Bing's digest of the image it saw, 32 lower-case hexadecimal digits
    width: int = 0  # of the image that Bing saw, in pixels; 0 if Bing does not say
    height: int = 0
    query: str = ""  # the words that found it
    rank: int = 0  # its place among the results of the query, from 1; 0 in a page by itself


@dataclasses.dataclass(frozen=True)
class ResultPage:
    """The content of one result page."""

    results: list[SearchResult]  # the readable items in order
    num_items: int  # all items, readable or not; the next page starts behind them
    next_first: int | None  # offset of the next page according to the page itself
    rung: str  # the last of `RUNGS` that gave something; "" if none did


def parse_page(text: str) -> ResultPage:
    """Read one result page. Never raises: an item that cannot be read is left out."""
    parser = _PageParser()
    for part in _LIST_ITEM.split(text):  # so that no broken one reaches further than to the next
        parser.reset()
        # This is how html.parser says that it is lost; the last rung finds what is behind.
        with contextlib.suppress(AssertionError, ValueError):
            # Without `close`, which takes hours over 100 kB of "<a <a <a".
            parser.feed(part.replace("<![", "<!"))  # both begin a comment, one of them unharmed
    found = parser.found
    in_elements = {result.url for _, result in found}
    found_urls = dict.fromkeys(_urls_in_text(text))  # each once, in order
    found += [("text", SearchResult(url)) for url in found_urls if url not in in_elements]
    return ResultPage(
        [result for _, result in found],
        # Too few only make pages overlap, while too many would leave a gap between them.
        parser.num_items or len({result.url for _, result in found}),
        parser.next_first,
        max((rung for rung, _ in found), key=RUNGS.index, default=""),
    )


def decode_page(body: bytes) -> str:
    """Return the text of a page: UTF-8, else the encoding it names, else what UTF-8 makes of it."""
    encoding = "utf-16" if body.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    with contextlib.suppress(UnicodeError):
        return body.decode(encoding)
    named = _CHARSET.search(body[:_CHARSET_BYTES])
    with contextlib.suppress(UnicodeError, LookupError):
        if named:
            return body.decode(named[1].decode())
    return body.decode(errors="replace")


class _PageParser(HTMLParser):
    """Collects what can be read in elements, and the offset of the next page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, SearchResult]] = []  # with the rung, in order
        self.num_items = 0  # elements of Bing's own class, readable or not
        self.next_first: int | None = None  # offset of the next page, or None
        self._urls: set[str] = set()
        self._awaits_size = False  # the last result's size may follow as text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if "data-nexturl" in attributes:
            offset = _link_parameters(attributes["data-nexturl"]).get("first", "")
            self.next_first = _number(offset) or None
        is_item = "iusc" in attributes.get("class", "").split()
        is_item = is_item and not attributes.keys().isdisjoint(("m", "data-m", "href"))
        self.num_items += is_item
        if is_item or tag == "li":
            self._awaits_size = False
        rung, result = _read_element(attributes, is_item=is_item)
        if result is not None and (is_item or result.url not in self._urls):
            self.found.append((rung, result))
            self._urls.add(result.url)
            self._awaits_size = not (result.width and result.height)

    def handle_data(self, data: str) -> None:
        match = _SIZE.match(data) if self._awaits_size else None
        if match:
            rung, result = self.found[-1]
            width, height = int(match[1]), int(match[2])
            self.found[-1] = rung, dataclasses.replace(result, width=width, height=height)
            self._awaits_size = False


def _read_element(
    attributes: Mapping[str, str], *, is_item: bool
) -> tuple[str, SearchResult | None]:
    link = _link_parameters(attributes.get("href", ""))
    width, height = (_number(link.get(name, "")) for name in ("expw", "exph"))
    size = (width, height) if width and height else (0, 0)
    for rung, fields in _objects(attributes, is_item=is_item):
        if url := urls.normalize(fields.get("murl")):
            return rung, _result(url, fields, *size)
    if url := urls.normalize(link.get("mediaurl")):
        return "link", _result(url, {}, *size)
    return "", None


def _objects(
    attributes: Mapping[str, str], *, is_item: bool
) -> Iterator[tuple[str, Mapping[str, object]]]:
    if is_item:
        yield "item", _json_object(attributes.get("m", ""))
        yield "item", _json_object(attributes.get("data-m", ""))
    for value in attributes.values():
        if '"murl"' in value:
            yield "attribute", _json_object(value)


def _json_object(text: str) -> Mapping[str, object]:
    try:
        fields = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _result(url: str, fields: Mapping[str, object], width: int, height: int) -> SearchResult:
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    title = " ".join(texts.get("t", "").split())
    md5 = texts.get("md5", "")
    return SearchResult(
        url,
        page_url=urls.normalize(texts.get("purl")) or "",
        # Without Bing's own marks around the words that were searched, and what else has no form.
        title="".join(letter for letter in title if letter.isprintable() or letter in _JOINERS),
        md5=md5.lower() if _MD5.fullmatch(md5) else "",
        width=width,
        height=height,
    )


def _link_parameters(url: str) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(url.partition("?")[2].partition("#")[0]))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 6 else 0


def _urls_in_text(text: str) -> Iterator[str]:
    for match in _IMAGE_URL.finditer(text):
        value = _REFERENCE.sub(lambda reference: html.unescape(reference[0]), match["url"])
        url = urls.normalize(_json_object(f'{{"murl": "{value}"}}').get("murl"))
        if url is not None:
            yield url
