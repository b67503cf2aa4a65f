"""The fake Bing on 127.0.0.1 and its hosts on 127.0.1.x, in a process of its own."""

import asyncio
import collections
import html
import json
import time
import urllib.parse
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from downloads_rig.answers import Answer, Request, send
from downloads_rig.links import Link

PAGE_SIZE = 35
MIN_LATENCY_SECONDS, MAX_LATENCY_SECONDS = 0.030, 0.300  # 0.165 on average

_BING = "127.0.0.1"
_LISTED = ("name", "is_good", "sha256s", "endings", "copy_of")  # of a link
_BACKLOG = 1024  # connections that wait for us; a client may open one for each link at once
_NO_ROBOTS = send(b"none", 404, Content_Type="text/plain")
_GONE = send(b"gone", 404, Content_Type="text/plain")


class Web:
    """All servers: one address each, one port."""

    def __init__(self, links: list[Link], num_hosts: int, page_seconds: float) -> None:
        self.links = links  # what Bing lists, in order
        self._page_seconds = page_seconds  # the same for all, who number their pages differently
        self.hosts = [f"127.0.1.{1 + number % num_hosts}" for number in range(len(links))]
        self.port = 0
        self._answers: dict[tuple[str, str], Answer] = {}
        for link, host in zip(links, self.hosts, strict=True):
            for path, answer in ((link.path, link.answer), *link.others):
                self._answers[host, path] = answer
        self._open: collections.Counter[str] = collections.Counter()
        self.forget()

    def forget(self) -> None:
        """Start a new run."""
        self._asked: collections.Counter[tuple[str, str]] = collections.Counter()
        self._most_open = 0
        self._num_pages = 0
        self._cpu_start = time.process_time()

    async def start(self) -> None:
        """Listen on every address."""
        for host in (_BING, *sorted(set(self.hosts))):
            server = await asyncio.start_server(self._serve, host, self.port, backlog=_BACKLOG)
            self.port = server.sockets[0].getsockname()[1]

    def catalogue(self) -> dict[str, Any]:
        """Return where everything is, and what a client should make of it."""
        return {
            "base_url": f"http://{_BING}:{self.port}",
            "links": [{field: getattr(link, field) for field in _LISTED} for link in self.links],
        }

    def seen(self) -> dict[str, Any]:
        """Return what clients have done since the last `forget`."""
        return {
            "num_requests": self._num_pages + sum(self._asked.values()),
            "most_at_one_host": self._most_open,
            "web_cpu_seconds": time.process_time() - self._cpu_start,
            "asked_for": [
                link.name
                for link, host in zip(self.links, self.hosts, strict=True)
                if self._asked[host, link.path]
            ],
        }

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("sockname")[0]
        self._open[host] += 1
        if host != _BING:
            self._most_open = max(self._most_open, self._open[host])
        try:
            while await self._serve_one(host, reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client has had enough
        finally:
            self._open[host] -= 1
            writer.close()

    async def _serve_one(
        self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        target = head.split(" ", 2)[1]
        keeps_alive = "\r\nconnection: close\r\n" not in head.lower()
        await asyncio.sleep(self._page_seconds if host == _BING else latency(host, target))
        if host == _BING:
            self._num_pages += 1
            request = Request(host, target, 0, keeps_alive, reader, writer)
            page = self._page(target).encode()
            await send(page, Content_Type="text/html; charset=utf-8")(request)
        else:
            path = urllib.parse.unquote(target)
            number = self._asked[host, path]
            self._asked[host, path] += 1
            request = Request(host, target, number, keeps_alive, reader, writer)
            missing = _NO_ROBOTS if path == "/robots.txt" else _GONE
            await self._answers.get((host, path), missing)(request)
        return request.keeps_alive

    def _page(self, target: str) -> str:
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(target).query))
        first = max(1, int(asked.get("first", "1")))  # some start with 0
        items = [
            _item(number, link, f"http://{host}:{self.port}", f"http://{_BING}:{self.port}")
            for number, (link, host) in enumerate(zip(self.links, self.hosts, strict=True), 1)
            if first <= number < first + PAGE_SIZE
        ]
        next_url = f"/images/async?q=x&first={first + len(items)}&count={PAGE_SIZE}&mmasync=1"
        return (
            f'<div id="mmComponent_images_1" class="dgControl hover" '
            f'data-nextUrl="{html.escape(next_url)}" data-iid="images.5056">'
            f'<ul class="dgControl_list ">{"".join(items)}</ul></div>'
        )


def latency(host: str, target: str) -> float:
    """Return the seconds that a host takes for an answer: the same in every run."""
    share = zlib.crc32(f"{host}{target}".encode()) / 0xFFFFFFFF
    return MIN_LATENCY_SECONDS + share * (MAX_LATENCY_SECONDS - MIN_LATENCY_SECONDS)


def _item(number: int, link: Link, origin: str, bing: str) -> str:
    fields = {
        "purl": f"{origin}/page/{number}.html",
        "murl": origin + link.path,
        "turl": f"{bing}/th?id={link.thumbnail_id}&pid=15.1",
        "md5": link.md5,
        "t": f"Image {number}",
        "desc": "",
    }
    metadata = html.escape(json.dumps(fields, separators=(",", ":"), ensure_ascii=False))
    where = urllib.parse.quote(fields["murl"], safe="").lower()
    href = html.escape(f"/images/search?view=detailV2&mediaurl={where}&exph=256&expw=256")
    return (
        f'<li data-idx={number}><div class="iuscp varh"><div class="imgpt">'
        f'<a class="iusc" m="{metadata}" href="{href}"></a>'
        f'<div class="img_info hon"><span class="nowrap">256 x 256 &#183; jpeg</span></div>'
        "</div></div></li>"
    )


def run(
    connection: Connection,
    make_links: Callable[[], list[Link]],
    num_hosts: int | None,
    page_seconds: float,
) -> None:
    """Serve until the process is ended.

    Sends its catalogue when it listens, and for each message what it has seen since the last.
    """
    links = make_links()
    asyncio.run(_serve(connection, Web(links, num_hosts or len(links), page_seconds)))


async def _serve(connection: Connection, web: Web) -> None:
    await web.start()
    connection.send(web.catalogue())
    is_over = asyncio.Event()

    def answer() -> None:
        try:
            connection.recv()
        except EOFError:  # the benchmark has ended
            is_over.set()
            return
        connection.send(web.seen())
        web.forget()

    asyncio.get_running_loop().add_reader(connection.fileno(), answer)
    await is_over.wait()
