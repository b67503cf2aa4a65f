"""Where an address leads: its parts as they go into a request, and whether it is a public place."""

import contextlib
import dataclasses
import functools
import ipaddress
import re
import socket
import urllib.parse
from typing import Any

from imagesieve.errors import ClassifierError

PORTS = {"http": 80, "https": 443}

_HOST = re.compile(r"[a-z0-9._:-]+(?:%[a-z0-9]+)?", re.IGNORECASE)
# Nothing that may stand in a path or a query is quoted, least of all what is quoted already:
# `%20`, `%25` and `&` must reach the host as they were found.
_SAFE = "!#$%&'()*+,/:;=?@[]~"


def _networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.ip_network, text.split()))


# Their last 32 bits are an IPv4 address: compatible, mapped, translated, and behind NAT64.
_WRAPPERS = _networks("::/96 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96")
_INTERNET = ipaddress.ip_network("2000::/3")  # each host of the internet that speaks IPv6
# Nobody's hosts, although some releases of Python call them global: what protocols keep for
# themselves, ways into IPv4 that are given up (among them Teredo and 6to4), and examples.
_NO_HOSTS = _networks(
    "192.0.0.0/24 192.88.99.0/24 ::/96 ::ffff:0:0:0/96 2001::/23 2002::/16 3fff::/20"
)


class AddressError(ClassifierError):
    """Nothing can be asked at an address.

    Attributes:
        reason: a few words, the same for all such failures.
        detail: what was found, or "".
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail


class RefusedHostError(AddressError):
    """A host is none, or one of its places is private; asking again will not change that."""


@dataclasses.dataclass(frozen=True)
class Address:
    """A URL, taken apart.

    Attributes:
        scheme: http or https.
        host: lower case; a name in ASCII, or an IP address without brackets.
        port: from 0 to 65535.
        target: path and query in ASCII, as they are requested.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        """Scheme, host and port as a URL without a path; a usual port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


@functools.lru_cache(4096)  # each is asked about several times on its way
def parse(url: str) -> Address:
    """Take a URL apart. A user name, a password and a fragment are left out.

    Raises:
        AddressError: it is not http or https, or not a valid address.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in PORTS:
            raise AddressError("not http or https")
        host = _ascii_host(parts.hostname or "")
        port = PORTS[parts.scheme] if parts.port is None else parts.port
        target = _quote(parts.path or "/") + (f"?{_quote(parts.query)}" if parts.query else "")
    except ValueError as error:
        raise AddressError("not a valid address", str(error)) from error
    return Address(parts.scheme, host, port, target)


def redirect_target(url: str, location: str) -> str:
    """Give the URL that a Location header sends to, without fragment.

    Raises:
        AddressError: it leads nowhere, or is not a valid address.
    """
    if not location:
        raise AddressError("redirect to nowhere")
    # Header bytes arrive as Latin-1, while servers that send more than ASCII mean UTF-8.
    with contextlib.suppress(UnicodeError):
        location = location.encode("latin-1").decode("utf-8")
    try:
        return urllib.parse.urldefrag(urllib.parse.urljoin(url, location)).url
    except ValueError as error:
        raise AddressError("not a valid address", str(error)) from error


def resolve(
    host: str, port: int, *, allow_private: bool
) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """Look a host up: family and socket address of each of its places, best first.

    Raises:
        RefusedHostError: it does not exist; or, unless they are allowed, one of its places is
            private. Link-local ones never are: there clouds keep a machine's secrets.
        AddressError: nobody can say right now where it is.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        passes = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
        kind = AddressError if passes else RefusedHostError
        raise kind("unknown host", str(error)) from error
    for *_, place in found:
        if is_link_local(str(place[0])) or (not allow_private and is_private(str(place[0]))):
            raise RefusedHostError("private address", str(place[0]))
    return [(family, place) for family, _, _, _, place in found]


def is_private(address: str) -> bool:
    """Tell whether an IP address is anything but one of the public internet.

    Private, loopback, link-local, multicast, reserved and unspecified addresses count, also when
    they are wrapped in an IPv6 address.
    """
    ip = ipaddress.ip_address(address)
    inner = _unwrapped(ip)
    if any(ip in network or inner in network for network in _NO_HOSTS):
        return True
    if isinstance(inner, ipaddress.IPv6Address) and inner not in _INTERNET:
        return True
    return not inner.is_global or inner.is_multicast or inner.is_reserved


def is_link_local(address: str) -> bool:
    """Tell whether an IP address means something on the same wire only, such as 169.254.169.254."""
    return _unwrapped(ipaddress.ip_address(address)).is_link_local


def _unwrapped(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Give the IPv4 address that an IPv6 address wraps, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if any(ip in network for network in _WRAPPERS):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.sixtofour or ip


def _ascii_host(host: str) -> str:
    name = host.encode("idna").decode("ascii")
    if not _HOST.fullmatch(name):
        raise ValueError(f"{host!r} is no host")
    return name


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe=_SAFE)
