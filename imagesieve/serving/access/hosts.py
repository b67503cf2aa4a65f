"""Hosts of HTTP headers: the names a server answers to, its own pages, and what clients share."""

import ipaddress

from imagesieve.web import urls

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

# Two clients of one IPv6 network count as one: each could choose among 2**64 addresses.
_CLIENT_BITS_V6 = 64


def is_own(origin: urls.Origin, own: urls.Authority) -> bool:
    """Return whether a page of `origin` belongs to the server that `own` was requested as.

    The scheme does not count, as a proxy in front may take care of TLS. Neither does the port
    where that proxy left it out of the Host header.
    """
    return origin.host == own.host and own.port in (None, origin.port)


def default_hosts(bound_address: str) -> frozenset[str] | None:
    """Return the names that a server answers to by default; None is any name.

    A page of a foreign site can have its own name resolved to 127.0.0.1, and then counts as of
    that server's origin (DNS rebinding); but its name stays in the Host header.

    Args:
        bound_address: the IP address that the server listens on.
    """
    if not urls.is_loopback(bound_address):
        return None
    return LOOPBACK_NAMES | {str(_ip(bound_address))}


def client_network(address: str) -> str:
    """Return what the requests of one client share: its IPv4 address, or its IPv6 network."""
    try:
        ip = _ip(address)
    except ValueError:  # a Unix socket has no address
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ipaddress.IPv6Network((ip, _CLIENT_BITS_V6), strict=False))


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address as sockets have it: with a zone, or IPv4 within IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
