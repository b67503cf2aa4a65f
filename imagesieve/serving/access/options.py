"""The command line's part in who may use the service; loads nothing heavy for `--help`."""

import argparse
import logging
import math
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from imagesieve import console
from imagesieve.errors import UsageError
from imagesieve.serving.access import hosts

if TYPE_CHECKING:  # these load Flask
    from imagesieve.serving.access.checks import Access
    from imagesieve.serving.access.keys import Keyring
    from imagesieve.serving.access.rates import TokenBuckets

MAX_RATE = 1_000_000

_log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give `main.py` the options that `from_options` reads."""
    add = parser.add_argument_group("who may use the service").add_argument
    add(
        "--keys",
        type=Path,
        metavar="FILE",
        help="keys of callers, a line for each: NAME SCOPE[,SCOPE] KEY, with the scopes predict, "
        "feedback and admin (or set CLASSIFIER_KEYS to such lines, or to such entries with ; "
        "between them)",
    )
    add(
        "--insecure",
        action="store_true",
        help="listen to the network without keys: whoever reaches this machine may use it",
    )
    add(
        "--allow-host",
        type=_host,
        action="append",
        default=[],
        metavar="NAME",
        help="answer only to this name, besides those of this machine; may be repeated (without "
        "it: any name, but on 127.0.0.1 only localhost and the address itself)",
    )
    add(
        "--allow-origin",
        type=_origin,
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of this site use the service, such as https://shop.example; may be "
        "repeated (none)",
    )
    add(
        "--rate-limit",
        type=console.number(above=0, most=MAX_RATE, what="number of requests a second"),
        metavar="N",
        help="requests a second for each key, or for each address without keys (no limit)",
    )
    add(
        "--rate-burst",
        type=console.whole_number(1, MAX_RATE, what="whole number of requests"),
        metavar="N",
        help="of them at once after a rest (twice the rate, at least 10)",
    )


def from_options(
    options: argparse.Namespace,
    bound_address: str,
    environment: MutableMapping[str, str] = os.environ,
) -> "Access":
    """Give the checks that the command line asks for.

    Args:
        options: what `add_options` asked for, and `host` as `main.py` has it.
        bound_address: the IP address that the server listens on.
        environment: where `CLASSIFIER_KEYS` is looked for, and taken out of.

    Raises:
        UsageError: the keys cannot be used, the network could use the service without one, or
            --rate-burst stands alone.
    """
    from imagesieve.serving.access import checks as access
    from imagesieve.serving.access import keys

    keyring = keys.read_keys(options.keys, environment)
    _refuse_open_network(keyring, options.insecure, bound_address)
    return access.Access(
        keyring,
        allowed_hosts=_allowed_hosts(options, bound_address),
        allowed_origins=options.allow_origin,
        buckets=_buckets(options),
    )


def _refuse_open_network(keyring: "Keyring", insecure: bool, bound_address: str) -> None:
    if len(keyring) or hosts.is_loopback(bound_address):
        return
    if not insecure:
        raise UsageError(
            f"{bound_address} is open to the network, and no key is set: give keys by --keys FILE "
            "or CLASSIFIER_KEYS, or use --host 127.0.0.1, or add --insecure if everybody who "
            "reaches this machine may use the service."
        )
    _log.warning(
        "warning: %s is open to the network and asks for no key: whoever reaches this machine can "
        "use the service.",
        bound_address,
    )


def _allowed_hosts(options: argparse.Namespace, bound_address: str) -> frozenset[str] | None:
    defaults = hosts.default_hosts(bound_address)
    if defaults is None and not options.allow_host:
        return None
    # Its own names are no danger: a page under one of them is a page of this machine.
    own = {hosts.parse_host(name) for name in (options.host, bound_address.partition("%")[0])}
    named = {name for name in own if name and name not in ("0.0.0.0", "::")}  # noqa: S104
    return (defaults or hosts.LOOPBACK_NAMES) | named | set(options.allow_host)


def _buckets(options: argparse.Namespace) -> "TokenBuckets | None":
    from imagesieve.serving.access.rates import RateLimit, TokenBuckets

    if options.rate_limit is None:
        if options.rate_burst is not None:
            raise UsageError("--rate-burst goes with --rate-limit: give that too.")
        return None
    burst = options.rate_burst or max(10, math.ceil(2 * options.rate_limit))
    return TokenBuckets(RateLimit(options.rate_limit, burst))


def _host(text: str) -> str:
    host = hosts.parse_host(text)
    if host is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no host: give a name or an IP address alone, such as shop.example"
        )
    return host


def _origin(text: str) -> str:
    origin = hosts.parse_origin(text)
    if origin is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no origin: give scheme and host alone, such as https://shop.example"
        )
    return str(origin)
