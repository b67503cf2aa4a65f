"""What sites forbid: images by a header of their response, and paths by robots.txt."""

import collections
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from protego import Protego

from imagesieve.web import urls
from imagesieve.web.connections import AGENT_TOKEN
from imagesieve.web.fetch import Fetcher, FetchError, FetchSettings
from imagesieve.web.urls import Origin

_OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})
# Their values follow a colon, which elsewhere ends the name of the agent that is meant.
_WITH_VALUE = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
_AGENT = re.compile(r"\s*([a-z][\w.-]*|\*)(?:/[\w.]+)?\s*:", re.IGNORECASE)

_AGENT_LINE = re.compile(r"\s*user[\s-]*agent\b\s*:?(?P<agent>[^#]*)", re.IGNORECASE)
_MAX_BYTES = 512 * 1024  # RFC 9309 asks to read at least so many
_MAX_OPT_OUTS = 3  # images of one host; then nothing more is requested from it
_REFUSAL = b"User-agent: *\nDisallow: /\n"

# Failures of the host itself: a request for an image would end in the same way.
_NO_HOST = frozenset({"unknown host", "private address", "no connection", "no safe connection"})
# RFC 9309 takes rules that cannot be fetched as a complete refusal. These are no such failures:
# the host answers, but leads nowhere.
_NO_RULES = frozenset(
    {"too many redirects", "redirect to nowhere", "not http or https", "not a valid URL"}
)


def opt_out(headers: Sequence[tuple[str, str]], token: str) -> str:
    """Return the directive of a header that forbids the agent `token` to use the image, or ""."""
    for name, value in headers:
        if name.lower() == "tdm-reservation" and value.strip() == "1":
            return "tdm-reservation"
        if name.lower() == "x-robots-tag" and (directive := _opt_out_in(value, token.lower())):
            return directive
    return ""


def _opt_out_in(value: str, token: str) -> str:
    agent = "*"
    for part in re.split("[,;]", value.lower()):
        directive = part.strip()
        match = _AGENT.match(part)
        if match and match[1] not in _WITH_VALUE:
            agent = match[1]  # of this directive and those that follow
            directive = part[match.end() :].strip()
        if agent in ("*", token) and directive in _OPT_OUTS:
            return directive
    return ""


class RobotsPolicy:
    """What the hosts of a run forbid. Any thread may call any method.

    Images whose header forbids their use are refused, and so are hosts that forbid several. The
    robots.txt of each origin is fetched once, however many threads need it.
    """

    def __init__(self, *, robots_seconds: float = 5.0) -> None:
        self._seconds = robots_seconds  # for one robots.txt, redirects included
        self._lock = threading.Lock()
        self._opt_outs: dict[str, list[str]] = collections.defaultdict(list)  # by host
        self._rules: dict[Origin, Future[Protego]] = {}

    def check_headers(self, url: str, headers: Sequence[tuple[str, str]]) -> None:
        """Raise FetchError if the header of a response forbids the use of its image."""
        if directive := opt_out(headers, AGENT_TOKEN):
            with self._lock:
                self._opt_outs[urls.parse(url).host].append(directive)
            raise FetchError(url, "opted out", directive)

    def check_host(self, url: str) -> None:
        """Raise FetchError if the host has forbidden the use of several images."""
        with self._lock:
            found = self._opt_outs.get(urls.parse(url).host, [])
            if len(found) >= _MAX_OPT_OUTS:
                raise FetchError(url, "opted out", found[-1])

    def allows(self, url: str, fetcher: Fetcher) -> bool:
        """Return whether robots.txt allows us to fetch `url`.

        A file that is missing (4xx) forbids nothing; one that cannot be fetched for now (5xx, 429,
        a timeout) forbids everything. `fetcher` fetches it, with a deadline of its own.

        Raises:
            FetchError: the host cannot be reached at all, or the fetcher was stopped. That is not
                remembered.
        """
        parsed = urls.parse(url)
        with self._lock:
            rules = self._rules.get(parsed.origin)
            is_first = rules is None
            if rules is None:
                rules = self._rules[parsed.origin] = Future()
        if is_first:
            self._load(parsed.origin, rules, fetcher)
        return rules.result().can_fetch(f"{parsed.origin}{parsed.target}", AGENT_TOKEN)

    def _load(self, origin: Origin, rules: "Future[Protego]", fetcher: Fetcher) -> None:
        """Complete the future, be it with an error, for all threads that wait for it."""
        try:
            rules.set_result(parse_robots(self._read(f"{origin}/robots.txt", fetcher)))
        except BaseException as error:
            with self._lock:
                del self._rules[origin]
            rules.set_exception(error)

    def _read(self, url: str, fetcher: Fetcher) -> bytes:
        settings = FetchSettings(
            # Not the whole, so that a host without connection differs from one without answer.
            connect_seconds=min(fetcher.settings.connect_seconds, self._seconds / 2),
            total_seconds=min(fetcher.settings.total_seconds, self._seconds),
            max_bytes=_MAX_BYTES,
            keeps_start=True,
            allow_private_hosts=fetcher.settings.allow_private_hosts,
        )
        try:
            body = fetcher.fetch(url, settings=settings).body
        except FetchError as error:
            if error.reason == "stopped" or (error.url == url and error.reason in _NO_HOST):
                raise
            is_lasting = error.status is not None and error.status < 500 and error.status != 429
            return b"" if is_lasting or error.reason in _NO_RULES else _REFUSAL
        if len(body) == _MAX_BYTES:
            return body[: body.rfind(b"\n") + 1]  # half a path would forbid too much
        return body


def parse_robots(body: bytes) -> Protego:
    """Return the rules of a robots.txt; a body that is not text has none."""
    if b"\0" in body:
        return Protego.parse("")
    lines = body.decode("utf-8-sig", errors="replace").splitlines()
    return Protego.parse("\n".join(_with_few_agents(line) for line in lines))


def _with_few_agents(line: str) -> str:
    # Each rule is stored once for every agent of its group, so that a stranger's file of thousands
    # of agents would fill the memory. To us all others are one.
    match = _AGENT_LINE.match(line)
    if not match:
        return line
    name = match["agent"].partition("/")[0].strip().lower()  # some add a version
    if name.strip("*") == AGENT_TOKEN:
        return f"User-agent: {AGENT_TOKEN}"
    return f"User-agent: {name if name in ('', '*') else 'other'}"
