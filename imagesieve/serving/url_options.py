"""The command line's part in fetching images by address; loads nothing heavy for `--help`."""

import argparse
from typing import TYPE_CHECKING

from imagesieve.errors import UsageError
from imagesieve.serving.access import hosts

if TYPE_CHECKING:  # it loads Pillow and urllib3
    from imagesieve.serving.fetch_image import UrlFetcher
    from imagesieve.serving.limits import ServingLimits


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give `main.py` the options that `from_options` reads."""
    add = parser.add_argument_group("images by address").add_argument
    add(
        "--allow-url",
        action="store_true",
        help="take the address of an image, in a field url, and fetch it from its public host; "
        "never from this machine or its networks (off)",
    )
    add(
        "--allow-url-host",
        type=_host,
        action="append",
        default=[],
        metavar="NAME",
        help="fetch from this host alone, not from those below it; may be repeated (any public "
        "host)",
    )


def from_options(options: argparse.Namespace, limits: "ServingLimits") -> "UrlFetcher | None":
    """Give the fetcher that the command line asks for, or None when addresses are not taken.

    Args:
        options: what `add_options` asked for.
        limits: how large an image may be, and how many are fetched at once.

    Raises:
        UsageError: hosts are named, and yet no address is taken.
    """
    if not options.allow_url:
        if options.allow_url_host:
            raise UsageError("--allow-url-host goes with --allow-url: give that too.")
        return None
    from imagesieve.serving.fetch_image import UrlFetcher, UrlSettings

    settings = UrlSettings(max_at_once=limits.max_fetches)
    return UrlFetcher(limits.images.max_bytes, options.allow_url_host or None, settings)


def _host(text: str) -> str:
    host = hosts.parse_host(text)
    if host is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no host: give a name in ASCII or an IP address alone, such as "
            "images.example"
        )
    return host
