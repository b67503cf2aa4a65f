"""A Bing of our own on 127.0.0.1: result pages in its wire format, and images of every kind."""

import html
import json
import random
import urllib.parse

from painted import encode
from PIL import Image, ImageDraw
from web_host import Answer, Handler, WebHost, send

CAPTCHA = "<html><title>Bing</title><div class='captcha'>One last step</div></html>"
CHANGED = "<html>" + "<div class='newGrid' data-pic='x'>image</div>" * 200 + "</html>"


def draw(seed: int, image_format: str = "JPEG", size: tuple[int, int] = (96, 80)) -> bytes:
    """Draw an image that no other seed gives; `size` is (width, height)."""
    dice = random.Random(seed)
    image = Image.new("RGB", size, tuple(dice.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        corner = (dice.randrange(size[0]), dice.randrange(size[1]))
        pen.ellipse(
            (*corner, corner[0] + dice.randrange(5, 40), corner[1] + dice.randrange(5, 40)),
            fill=tuple(dice.randrange(256) for _ in range(3)),
        )
    return encode(image, image_format)


def item(url: str, **fields: str) -> dict[str, str]:
    """Return the JSON of one result."""
    return {"purl": "http://page.example/", "murl": url, "t": "A title", **fields}


class FakeBing(WebHost):
    """A host of images that also answers searches for them."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[dict[str, str]] = []  # results of the queries without `items_of`
        self.items_of: dict[str, list[dict[str, str]]] = {}  # query -> its own results
        self.robots: dict[str, Answer] = {}  # host -> /robots.txt; the others have none (404)
        self.search_answer: Answer | None = None  # replaces all result pages
        self.search_answer_of: dict[str, Answer] = {}  # query -> replaces its result pages
        self.page_size = 35
        self.has_next_url = True
        self.repeats_last_page = False  # what Bing does at the end, instead of an empty page

    def find(self, path: str, host: str) -> Answer:
        """Return the answer to a request; `host` is the address that it came to."""
        if path.startswith("/images/async?"):
            return self.answer_search
        if path == "/robots.txt":
            return self.robots.get(host, send(b"", 404))
        return super().find(path, host)

    @property
    def image_requests(self) -> list[str]:
        others = ("/images/async", "/robots.txt")
        return [path for path in self.requests if not path.startswith(others)]

    @property
    def page_requests(self) -> list[dict[str, str]]:
        paths = [path for path in self.requests if path.startswith("/images/async")]
        return [
            dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query, keep_blank_values=True))
            for path in paths
        ]

    def add(
        self,
        path: str,
        answer: Answer | bytes,
        *,
        query: str | None = None,
        host: int | None = None,
        **fields: str,
    ) -> str:
        """Serve an answer or a body, and list it as the next result; returns its URL.

        It is listed for one query or wherever nothing else is, on the server's own host or on
        `host(number)`, with other fields in its JSON.
        """
        self.routes[path] = send(answer) if isinstance(answer, bytes) else answer
        url = (self.url if host is None else self.host(host)) + path
        items = self.items if query is None else self.items_of.setdefault(query, [])
        items.append(item(url, **fields))
        return url

    def add_images(
        self, count: int, start: int = 0, *, query: str | None = None, num_hosts: int = 20
    ) -> None:
        """Serve and list good images, spread over hosts so that none is asked too often."""
        for number in range(start, start + count):
            host = 1 + number % num_hosts if num_hosts else None
            self.add(f"/{number}.jpg", draw(number), query=query, host=host)

    def show(self, page: str) -> None:
        """Answer every search with this page."""
        self.search_answer = send(page.encode(), Content_Type="text/html; charset=utf-8")

    def answer_search(self, handler: Handler) -> None:
        query_string = urllib.parse.urlsplit(handler.path).query
        asked = dict(urllib.parse.parse_qsl(query_string, keep_blank_values=True))
        answer = self.search_answer_of.get(asked["q"]) or self.search_answer
        answer = answer or send(self._page(asked).encode(), Content_Type="text/html")
        answer(handler)

    def _page(self, asked: dict[str, str]) -> str:
        items = self.items_of.get(asked["q"], self.items)
        first = int(asked["first"]) - 1
        if self.repeats_last_page and first >= len(items):
            first = max(0, len(items) - self.page_size)
        shown = items[first : first + self.page_size]
        return page_of(shown, first + 1 + len(shown) if self.has_next_url else None)


def page_of(items: list[dict[str, str]], next_first: int | None = None) -> str:
    """Write a result page in Bing's format."""
    next_url = f"/images/async?q=x&first={next_first}&count=35&mmasync=1"
    attribute = f' data-nextUrl="{html.escape(next_url)}"' if next_first else ""
    rows = "".join(
        f'<li data-idx={number}><div class="iuscp varh"><div class="imgpt">'
        f'<a class="iusc" m="{html.escape(json.dumps(fields))}" href="/images/search?q=x">'
        "</a></div></div></li>"
        for number, fields in enumerate(items, 1)
    )
    return (
        f'<div id="mmComponent_images_1" class="dgControl hover"{attribute}>'
        f'<ul class="dgControl_list ">{rows}</ul></div>'
    )
