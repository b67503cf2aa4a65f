"""Images that a request names by URL: fetched from public hosts, within bounds, or refused.

A stranger's URL sends this machine where the stranger cannot go: to the neighbours behind its
firewall, to its cloud's secrets. So only plain URLs are accepted, and `imagesieve.web` connects to
checked IP addresses alone. No answer tells what is there: refusals share a sentence, failures too.
"""

import logging
import re
import threading
from collections.abc import Collection
from concurrent.futures import Future

from imagesieve import images
from imagesieve.serving import errors
from imagesieve.web import urls
from imagesieve.web.fetch import Fetcher, FetchError, FetchSettings, RefusedHostError

NOT_ALLOWED = (
    "The address is not one that images are fetched from: give one of http or https on its usual "
    "port, of a public host that is allowed here, in plain ASCII, without user name, fragment and "
    "redirect."
)
FAILED = (
    "The address gave no image: it must answer with status 200 and with a JPEG, PNG, GIF, WebP "
    "or BMP that is not compressed once more and within the size limit."
)
TOO_SLOW = "The address took too long to give its image."

# What is not here has no place in a URL, or two readers of URLs understand it in two ways: user
# names, fragments, backslashes, blanks, control characters, names without a dot, a dot at their
# end, and all that Unicode would turn into a dot, a slash or a letter.
_URL = re.compile(
    r"https?://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
    r"(?:[/?][!\"$-\[\]-~]*)?",
    re.ASCII | re.IGNORECASE,
)
_MAX_CHARS = 2048  # of a URL
_LOG_CHARS = 300  # of what went wrong; a host's own words may be in it

_log = logging.getLogger(__name__)


class UrlFetcher:
    """Fetches images, from any number of threads."""

    def __init__(
        self,
        max_bytes: int,
        allowed_hosts: Collection[str] | None = None,  # None: any public host
        *,
        max_at_once: int = 4,
        total_seconds: float = 8.0,  # from the call to the last byte
        allow_private: bool = False,  # for tests
    ) -> None:
        self._allowed_hosts = None if allowed_hosts is None else frozenset(allowed_hosts)
        self._total_seconds = total_seconds
        self._places = threading.BoundedSemaphore(max_at_once)
        self._fetcher = Fetcher(
            FetchSettings(
                connect_seconds=3.0,
                read_seconds=2 * total_seconds,  # the deadline ends silence sooner
                total_seconds=total_seconds,
                max_bytes=max_bytes,
                memory_bytes=2 * max_bytes,  # nothing fills a disk
                min_bytes_per_second=0,
                max_redirects=0,
                accepts_compressed=False,
                allow_private_hosts=allow_private,
                check_start=lambda start: images.sniff(start) is not None,
            )
        )

    def fetch(self, url: str) -> bytes:
        """Return the encoded image at a URL.

        Raises:
            UrlNotAllowedError: images are not fetched from the URL, or it redirects.
            FetchFailedError: its host sent no image within the size limit.
            DeadlineExceededError: it took too long.
            OverloadedError: as many fetches as allowed are running.
        """
        if not self._is_allowed(url):
            raise errors.UrlNotAllowedError(NOT_ALLOWED)
        if not self._places.acquire(blocking=False):
            raise errors.OverloadedError(
                "Too many images are being fetched: try again in a moment."
            )
        fetched: Future[bytes] = Future()
        try:
            # Nothing can cut the look-up of a name short. Where a name server is silent, the thread
            # keeps the place, and the caller goes; as a daemon it does not keep the server, either.
            threading.Thread(
                target=self._work, args=(url, fetched), name="fetch-url", daemon=True
            ).start()
        except RuntimeError as error:
            self._places.release()
            raise errors.OverloadedError("The server has no thread left: try again.") from error
        try:
            return fetched.result(self._total_seconds)
        except TimeoutError as error:
            raise errors.DeadlineExceededError(TOO_SLOW) from error
        finally:
            del fetched  # an error in it has this frame: the circle would keep a body for a while

    def _is_allowed(self, url: str) -> bool:
        """Return whether a URL may be fetched by what it says; no name is looked up."""
        if len(url) > _MAX_CHARS or not _URL.fullmatch(url):
            return False
        try:
            parsed = urls.parse(url)
        except FetchError:
            return False
        host = urls.parse_host(parsed.host)
        if host is None or urls.is_disguised_ip(host) or parsed.port not in urls.PORTS.values():
            return False
        return self._allowed_hosts is None or host in self._allowed_hosts

    def _work(self, url: str, fetched: "Future[bytes]") -> None:
        try:
            try:
                body = self._fetcher.fetch(url, {"Accept": "image/*"}).body
            finally:
                self._places.release()  # before the caller goes on, who may fetch another
            fetched.set_result(body)
        except FetchError as error:
            reason = repr(error.__cause__ or error)[:_LOG_CHARS]
            _log.debug("no image from %s: %s", urls.parse(url).host, reason)
            refusal = _refusal(error)
            refusal.__cause__ = error
            fetched.set_exception(refusal)
        except Exception as error:
            fetched.set_exception(error)
        finally:
            del fetched  # as in `fetch`


def _refusal(error: FetchError) -> Exception:
    if isinstance(error, RefusedHostError) or 300 <= (error.status or 0) < 400:
        return errors.UrlNotAllowedError(NOT_ALLOWED)
    if error.reason == "timeout":
        return errors.DeadlineExceededError(TOO_SLOW)
    return errors.FetchFailedError(FAILED)
