"""Names in HTTP headers: which host a request is for, and which site's page it comes from."""

import ipaddress
import re
from typing import NamedTuple

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_MAX_CHARS = 260  # a DNS name has at most 253; a last dot and a port come on top
_AUTHORITY = re.compile(
    r"(?:\[(?P<six>[0-9a-f:.]{2,45})\]|(?P<name>[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*)\.?)"
    r"(?::(?P<port>[0-9]{0,5}))?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Two clients of one IPv6 network are one neighbour: everybody there has 2**64 addresses to choose.
_NEIGHBOURS_V6 = 64


class Authority(NamedTuple):
    """A host in lower case, without brackets and last dot, and the port if there was one."""

    host: str
    port: int | None


class Origin(NamedTuple):
    """The site of a page, as a browser names it."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


def parse_authority(text: str) -> Authority | None:
    """Read a Host header, or what stands between `//` and the path of a URL; None for junk."""
    if len(text) > _MAX_CHARS or not text.isascii():  # a Kelvin sign is k in lower case
        return None
    match = _AUTHORITY.fullmatch(text.lower())
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else None
    if port is not None and port > 65535:
        return None
    if match["name"] is not None:
        return Authority(match["name"], port)
    try:
        return Authority(str(ipaddress.IPv6Address(match["six"])), port)
    except ValueError:
        return None


def parse_host(text: str) -> str | None:
    """Read a host name or an IP address without a port; IPv6 may go without brackets."""
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        authority = parse_authority(text)
    return authority.host if authority and authority.port is None else None


def parse_origin(text: str) -> Origin | None:
    """Read an origin such as `https://shop.example:8443`; None for `null` and all else."""
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    authority = parse_authority(rest)
    if authority is None or scheme not in _DEFAULT_PORTS:
        return None
    port = _DEFAULT_PORTS[scheme] if authority.port is None else authority.port
    return Origin(scheme, authority.host, port)


def is_own(origin: Origin, own: Authority) -> bool:
    """Tell whether a page of `origin` belongs to the server that `own` was asked for as.

    The scheme does not count, as a proxy in front may take care of TLS. Neither does the port
    where that proxy left it out of the Host header.
    """
    return origin.host == own.host and own.port in (None, origin.port)


def is_loopback(address: str) -> bool:
    """Tell whether only this machine can reach the IP address."""
    return _ip(address).is_loopback


def default_hosts(bound_address: str) -> frozenset[str] | None:
    """Give the names that a server answers to unless told otherwise; None is any name.

    A page of a foreign site can have its own name resolved to 127.0.0.1, and then counts as of
    that server's origin (DNS rebinding); but its name stays in the Host header.

    Args:
        bound_address: the IP address that the server listens on.
    """
    if not is_loopback(bound_address):
        return None
    return LOOPBACK_NAMES | {str(_ip(bound_address))}


def neighbourhood(address: str) -> str:
    """Give what requests of one client have in common: its IPv4 address, or its IPv6 network."""
    try:
        ip = _ip(address)
    except ValueError:  # a Unix socket has no address
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ipaddress.IPv6Network((ip, _NEIGHBOURS_V6), strict=False))


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address as sockets give it: with a zone, or IPv4 within IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
