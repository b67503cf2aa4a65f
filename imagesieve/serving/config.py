"""The options of `main.py`, and the service that they ask for; `--help` loads nothing heavy."""

import argparse
import contextlib
import logging
import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from imagesieve import console
from imagesieve.errors import UsageError
from imagesieve.feedback import AUDIT, RECENT, UNCERTAIN
from imagesieve.web import urls

if TYPE_CHECKING:  # these load Flask, NumPy and Pillow, which `--help` must not wait for
    from imagesieve.model.decisions import DecisionPolicy
    from imagesieve.serving.access import Access
    from imagesieve.serving.app import Service
    from imagesieve.serving.feedback.review import Corrections
    from imagesieve.serving.fetch_image import UrlFetcher
    from imagesieve.serving.limits import ServingLimits

_MAX_RATE = 1_000_000
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_FEEDBACK_FOLDER = Path("data/feedback")
_FEEDBACK_MEGABYTES = 2048
# What each choice of --keep stores on disk.
_KEEP = {"none": (), "uncertain": (UNCERTAIN, AUDIT), "all": (UNCERTAIN, AUDIT, RECENT)}
_GOING_WITH_FEEDBACK = ("feedback", "feedback_limit", "keep", "audit_share", "class_of_interest")

_log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `assemble` reads."""
    add = parser.add_argument_group("who may use the service").add_argument
    about = (
        "keys of callers, a line for each: NAME SCOPE[,SCOPE] KEY; scopes are predict, feedback "
        "and admin (or set CLASSIFIER_KEYS to such lines, or with ; between them)"
    )
    add("--keys", type=Path, metavar="FILE", help=about)
    about = "listen to the network without keys: all may use it"
    add("--insecure", action="store_true", help=about)
    about = (
        "answer only to this name and those of this machine; may be repeated (any name, but on "
        "127.0.0.1 only localhost and the address itself)"
    )
    add("--allow-host", type=_host, action="append", default=[], metavar="NAME", help=about)
    about = "let pages of this site use it, such as https://shop.example; may be repeated (none)"
    add("--allow-origin", type=_origin, action="append", default=[], metavar="ORIGIN", help=about)
    rate = console.number(above=0, most=_MAX_RATE, what="number of requests a second")
    about = "requests a second for each key, or for each address without keys (no limit)"
    add("--rate-limit", type=rate, metavar="N", help=about)
    burst = console.whole_number(1, _MAX_RATE, what="whole number of requests")
    about = "of them at once after a rest (twice the rate, at least 10)"
    add("--rate-burst", type=burst, metavar="N", help=about)
    add = parser.add_argument_group("corrections").add_argument
    about = (
        "where corrected images are stored, in a folder for each class, for the next training "
        f"({_FEEDBACK_FOLDER})"
    )
    add("--feedback", type=Path, metavar="DIR", help=about)
    add("--no-feedback", action="store_true", help="take no corrections, and hold no images")
    size = console.whole_number(1, 1_000_000, what="whole number of megabytes")
    about = f"how large all corrected images may grow ({_FEEDBACK_MEGABYTES})"
    add("--feedback-limit", type=size, metavar="MB", help=about)
    about = (
        "which images wait for review on disk too, over a restart (none; but audited ones with "
        "--audit-share)"
    )
    add("--keep", choices=tuple(_KEEP), help=about)
    about = (
        "part of the dropped images, 0 to 1, that is drawn for review, to estimate what the filter "
        "misses (0; 0.01 is one of a hundred)"
    )
    add("--audit-share", type=console.number(0, 1), metavar="P", help=about)
    about = "what the filter is to keep; all else counts as dropped (only the fallback class is)"
    add("--class-of-interest", metavar="NAME", help=about)
    add = parser.add_argument_group("images by URL").add_argument
    about = (
        "take the URL of an image, in a field url, and fetch it from its public host; never from "
        "this machine or its networks (off)"
    )
    add("--allow-url", action="store_true", help=about)
    about = "fetch from this host alone; may be repeated (any public host)"
    add("--allow-url-host", type=_host, action="append", default=[], metavar="NAME", help=about)
    add = parser.add_argument_group("what it may cost").add_argument
    about = "requests worked on at once; some more wait half a second for a place (16)"
    at_once = console.whole_number(1, 1000)
    add("--max-in-flight", type=at_once, default=16, metavar="N", help=about)
    about = "predictions that are cached, for images that come again; 0 for none (10000)"
    entries = console.whole_number(0, 1_000_000)
    add("--cache-entries", type=entries, default=10_000, metavar="N", help=about)


@contextlib.contextmanager
def assemble(
    options: argparse.Namespace, policy: "DecisionPolicy | None", bound_address: str
) -> Iterator["Service"]:
    """Yield the service that the options of `main.py` ask for, and close its parts in the end.

    Raise UsageError if options do not go together, or the network could use it without a key.
    """
    from imagesieve.explaining.worker import Explainer
    from imagesieve.serving.app import Service
    from imagesieve.serving.limits import Admission, ServingLimits
    from imagesieve.serving.model_manager import ModelManager

    limits = ServingLimits(max_in_flight=options.max_in_flight, cache_entries=options.cache_entries)
    models = ModelManager(
        options.model, engine=options.engine, precision=options.precision, policy=policy
    )
    access = access_from_options(options, bound_address)
    fetcher = fetcher_from_options(options, limits)
    fetch = fetcher.fetch if fetcher else None
    corrections = corrections_from_options(options)
    with contextlib.ExitStack() as stack:
        explainer = stack.enter_context(contextlib.closing(Explainer()))
        if corrections:
            stack.callback(corrections.close)
            corrections.open()
        stack.callback(models.join)
        stack.callback(models.close)
        yield Service(models, Admission(limits), access, fetch, corrections, explainer)


def access_from_options(
    options: argparse.Namespace,
    bound_address: str,
    environment: MutableMapping[str, str] = os.environ,
) -> "Access":
    """Return the checks of callers; raise as `assemble` and `read_keys` do."""
    from imagesieve.serving.access import Access, read_keys
    from imagesieve.serving.limits import TokenBuckets

    keys = read_keys(options.keys, environment)
    if not keys and not urls.is_loopback(bound_address):
        if not options.insecure:
            raise UsageError(
                f"{bound_address} is open to the network, and no key is set: give --keys FILE or "
                "CLASSIFIER_KEYS, use --host 127.0.0.1, or add --insecure if all may use it."
            )
        about = "warning: %s is open to the network and requires no key: all may use the service."
        _log.warning(about, bound_address)
    if options.rate_burst is not None and options.rate_limit is None:
        raise UsageError("--rate-burst goes with --rate-limit: give that too.")
    rate, buckets = options.rate_limit, None
    if rate is not None:
        buckets = TokenBuckets(rate, options.rate_burst or max(10, math.ceil(2 * rate)))
    return Access(keys, allowed_hosts(options, bound_address), options.allow_origin, buckets)


def allowed_hosts(options: argparse.Namespace, bound_address: str) -> frozenset[str] | None:
    """Return the names that the server answers to; None is any name.

    A page of a foreign site can have its own name resolved to 127.0.0.1, and then counts as of
    that server's origin (DNS rebinding); but its name stays in the Host header.
    """
    if not urls.is_loopback(bound_address) and not options.allow_host:
        return None
    # Its own names are safe: a page under one of them is a page of this machine.
    own = {urls.parse_host(name) for name in (options.host, bound_address.partition("%")[0])}
    named = {name for name in own if name and name not in ("0.0.0.0", "::")}  # noqa: S104
    return _LOOPBACK_NAMES | named | set(options.allow_host)


def fetcher_from_options(
    options: argparse.Namespace, limits: "ServingLimits"
) -> "UrlFetcher | None":
    if not options.allow_url:
        if options.allow_url_host:
            raise UsageError("--allow-url-host goes with --allow-url: give that too.")
        return None
    from imagesieve.serving.fetch_image import UrlFetcher

    hosts = options.allow_url_host or None
    return UrlFetcher(limits.images.max_bytes, hosts, max_at_once=limits.max_fetches)


def corrections_from_options(options: argparse.Namespace) -> "Corrections | None":
    """Return the corrections; None with --no-feedback, which goes with none of their options."""
    from imagesieve.serving.feedback.review import Corrections, Selection

    if options.no_feedback:
        for name in _GOING_WITH_FEEDBACK:
            if getattr(options, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} does not go with --no-feedback.")
        return None
    share = options.audit_share or 0.0
    megabytes = options.feedback_limit or _FEEDBACK_MEGABYTES
    return Corrections(
        options.feedback or _FEEDBACK_FOLDER,
        megabytes * 2**20,
        Selection(audit_share=share, class_of_interest=options.class_of_interest),
        _KEEP[options.keep] if options.keep else ((AUDIT,) if share else ()),
    )


def _host(text: str) -> str:
    host = urls.parse_host(text)
    if host is None:
        about = "give an ASCII name or an IP address alone, such as shop.example"
        raise argparse.ArgumentTypeError(f"{text!r} is not a host: {about}")
    return host


def _origin(text: str) -> str:
    origin = urls.parse_origin(text)
    if origin is None:
        about = "give scheme and host alone, such as https://shop.example"
        raise argparse.ArgumentTypeError(f"{text!r} is not an origin: {about}")
    return str(origin)
