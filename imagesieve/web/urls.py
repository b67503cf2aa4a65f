"""URLs: their parts as they go into a request, and whether their host is on the public internet.

This is the only place where a host is parsed: the downloader, the service's `Host` and `Origin`
headers and its command line all use the same grammar.
"""

import contextlib
import dataclasses
import functools
import ipaddress
import re
import socket
import urllib.parse
from typing import Any, NamedTuple

from imagesieve.errors import ClassifierError

PORTS = {"http": 80, "https": 443}

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAX_AUTHORITY = 260  # characters; a DNS name has at most 253, and a last dot and a port follow
_AUTHORITY = re.compile(
    r"(?:\[(?P<six>[0-9a-f:.]{2,45})\]|(?P<name>[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*)\.?)"
    r"(?::(?P<port>[0-9]{0,5}))?"
)
# Nothing that may stand in a path or a query is quoted, least of all what is quoted already:
# `%20`, `%25` and `&` must reach the host as they were found.
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SAFE = "!#$%&'()*+,/:;=?@[]~"
_PASSING_REASONS = frozenset({"no connection", "connection lost"})
_PASSING_STATUSES = frozenset({408, 429, *range(500, 600)})


def _networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.ip_network, text.split()))


# Their last 32 bits are an IPv4 address: compatible, mapped, translated, and behind NAT64.
_WRAPPERS = _networks("::/96 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96")
_INTERNET = ipaddress.ip_network("2000::/3")  # each host of the internet that speaks IPv6
# No hosts, although some releases of Python call them global: reserved for protocols, deprecated
# tunnels into IPv4 (among them Teredo and 6to4), and examples.
_NO_HOSTS = _networks(
    "192.0.0.0/24 192.88.99.0/24 ::/96 ::ffff:0:0:0/96 2001::/23 2002::/16 3fff::/20"
)


class FetchError(ClassifierError):
    """A URL gave nothing usable."""

    def __init__(
        self,
        url: str,
        reason: str,
        detail: str = "",
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{url}: {reason}{f' ({detail})' if detail else ''}")
        self.url = url  # where it failed, after the redirects that were followed
        self.reason = reason  # a few words that are the same for all such failures, for counting
        self.status = status  # of HTTP, where the server sent one other than 200
        self.retry_after = retry_after  # seconds, up to a day, that the server asks us to wait

    @property
    def is_passing(self) -> bool:
        """Whether the same request may well succeed a little later."""
        return self.reason in _PASSING_REASONS or self.status in _PASSING_STATUSES


class RefusedHostError(FetchError):
    """The host does not exist or is private; a second try will not change that."""


class Authority(NamedTuple):
    host: str  # in lower case, without brackets and last dot
    port: int | None


class Origin(NamedTuple):
    """Scheme, host and port; as text, a URL without a path where a usual port is left out."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


@dataclasses.dataclass(frozen=True)
class ParsedUrl:
    scheme: str  # http or https
    host: str  # lower case; a name in ASCII, or an IP address without brackets
    port: int  # 0 to 65535
    target: str  # path and query in ASCII, as they are requested
    # As it was written; two that differ only in this are equal.
    text: str = dataclasses.field(default="", compare=False)

    @property
    def origin(self) -> Origin:
        return Origin(self.scheme, self.host, self.port)


@functools.lru_cache(4096)  # each is asked about several times on its way
def parse(url: str) -> ParsedUrl:
    """Return the parts of a URL without user and fragment; FetchError if it is none of HTTP."""
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in PORTS:
            raise FetchError(url, "not http or https")
        host = _ascii_host(parts.hostname or "")
        port = PORTS[parts.scheme] if parts.port is None else parts.port
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        target = urllib.parse.quote(target, safe=_SAFE)
    except ValueError as error:
        raise FetchError(url, "not a valid URL", str(error)) from error
    return ParsedUrl(parts.scheme, host, port, target, url)


def normalize(text: object) -> str | None:
    """Return a URL as it is requested, or None if it is not an http or https URL.

    The host comes out in its ASCII form, what a URL may not hold percent-encoded in UTF-8.
    """
    if not isinstance(text, str) or "\ufffd" in text:  # a byte was lost: it can only be wrong
        return None
    try:
        parsed = parse(_LONE_PERCENT.sub("%25", text.strip()))
    except FetchError:
        return None
    return f"{parsed.origin}{parsed.target}"


def parse_authority(text: str) -> Authority | None:
    """Return host and port of a Host header or of a URL's authority; None for anything else."""
    is_plain = len(text) <= _MAX_AUTHORITY and text.isascii()  # a Kelvin sign is k in lower case
    if not is_plain or (match := _AUTHORITY.fullmatch(text.lower())) is None:
        return None
    port = int(match["port"]) if match["port"] else None
    try:
        host = match["name"] or str(ipaddress.IPv6Address(match["six"]))
    except ValueError:
        return None
    return None if port is not None and port > 65535 else Authority(host, port)


def parse_host(text: str) -> str | None:
    """Return a host name or an IP address in its usual form; None for others, or with a port."""
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        authority = parse_authority(text)
    return authority.host if authority and authority.port is None else None


def parse_origin(text: str) -> Origin | None:
    """Return an origin such as `https://shop.example:8443`; None for `null` and anything else."""
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    authority = parse_authority(rest)
    if authority is None or scheme not in PORTS:
        return None
    port = PORTS[scheme] if authority.port is None else authority.port
    return Origin(scheme, authority.host, port)


def is_disguised_ip(host: str) -> bool:
    """Return whether resolvers take a name for an IPv4 address, such as 127.1 or 0x7f.0.0.1."""
    if not host.rpartition(".")[2][:1].isdigit() or ":" in host:
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False


def redirect_target(url: str, location: str) -> str:
    """Return the URL that a Location header leads to; FetchError if it leads nowhere."""
    if not location:
        raise FetchError(url, "redirect to nowhere")
    # Header bytes arrive as Latin-1, while servers that send more than ASCII mean UTF-8.
    with contextlib.suppress(UnicodeError):
        location = location.encode("latin-1").decode("utf-8")
    try:
        return urllib.parse.urldefrag(urllib.parse.urljoin(url, location)).url
    except ValueError as error:
        raise FetchError(url, "not a valid URL", str(error)) from error


def resolve(
    url: ParsedUrl, *, allow_private: bool
) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """Return family and socket address of each IP address that the host has, best first.

    Raises:
        RefusedHostError: the host does not exist; or, unless `allow_private`, one of its IP
            addresses is private. Link-local ones never are allowed: there clouds keep a machine's
            secrets.
        FetchError: the name server does not answer right now.
    """
    try:
        found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        passes = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
        kind = FetchError if passes else RefusedHostError
        raise kind(url.text, "unknown host", str(error)) from error
    for ip in [str(place[0]) for *_, place in found]:
        if is_link_local(ip) or (not allow_private and is_private(ip)):
            raise RefusedHostError(url.text, "private address", ip)
    return [(family, place) for family, _, _, _, place in found]


def is_private(ip_address: str) -> bool:
    """Return whether an IP address, or one wrapped in it, is not one of the public internet."""
    ip = ipaddress.ip_address(ip_address)
    inner = _unwrapped(ip)
    if any(ip in network or inner in network for network in _NO_HOSTS):
        return True
    if isinstance(inner, ipaddress.IPv6Address) and inner not in _INTERNET:
        return True
    return not inner.is_global or inner.is_multicast or inner.is_reserved


def is_link_local(ip_address: str) -> bool:
    """Return whether an IP address is of the same wire only, such as 169.254.169.254."""
    return _unwrapped(ipaddress.ip_address(ip_address)).is_link_local


def is_loopback(host: str) -> bool:
    """Return whether a host, by name or IP address, is this machine; no name is looked up."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def ip_address(text: str) -> _IP:
    """Return the IP address of a socket's: without its zone, and IPv4 where IPv6 maps it."""
    ip = ipaddress.ip_address(text.partition("%")[0])
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def _unwrapped(ip: _IP) -> _IP:
    """Return the IPv4 address that an IPv6 address wraps, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if any(ip in network for network in _WRAPPERS):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.sixtofour or ip


def _ascii_host(name: str) -> str:
    host = parse_host(name.encode("idna").decode("ascii"))
    if host is None:
        raise ValueError(f"{name!r} is not a host")
    return host
