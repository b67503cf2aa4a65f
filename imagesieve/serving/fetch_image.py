"""Images that a request names by URL: fetched from public hosts, within bounds, or refused.

A stranger's URL sends this machine where the stranger cannot go: behind its firewall, to its
cloud's secrets. So only plain URLs are accepted, and `imagesieve.web` connects to checked IP
addresses alone. No answer tells what is there: refusals share a sentence, failures too.
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
    "No image is fetched from there: give an address of http or https on its usual port, of a "
    "public host that is allowed here, in plain ASCII, without user name, fragment and redirect."
)
FAILED = (
    "The address gave no image: it must answer with status 200 and with a JPEG, PNG, GIF, WebP "
    "or BMP that is not compressed once more and within the size limit."
)
TOO_SLOW = "The address took too long to give its image."

# The rest has no place in a URL, or two readers understand it in two ways: user names, fragments,
# backslashes, blanks, control characters, names without a dot or with one at their end, and all
# that Unicode would turn into a dot, a slash or a letter.
_URL = re.compile(
    r"(?ai)(?=.{,2048}\Z)https?://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)+|\[[0-9a-f:.]+\])"
    r"(?::[0-9]{1,5})?(?:[/?][!\"$-\[\]-~]*)?"
)

_log = logging.getLogger(__name__)


class UrlFetcher:
    """Fetches images, from any number of threads; `allowed_hosts` None is any public host."""

    def __init__(
        self,
        max_bytes: int,
        allowed_hosts: Collection[str] | None = None,
        *,
        max_at_once: int = 4,
        total_seconds: float = 8.0,  # from the call to the last byte
        allow_private: bool = False,  # for tests
    ) -> None:
        self._allowed_hosts = allowed_hosts
        self._total_seconds = total_seconds
        self._places = threading.BoundedSemaphore(max_at_once)
        settings = FetchSettings(
            total_seconds=total_seconds,
            max_bytes=max_bytes,
            memory_bytes=2 * max_bytes,  # nothing fills a disk
            min_bytes_per_second=0,
            max_redirects=0,
            accepts_compressed=False,
            allow_private_hosts=allow_private,
            check_start=lambda start: images.sniff(start) is not None,
        )
        self._fetcher = Fetcher(settings)

    def fetch(self, url: str) -> bytes:
        """Return the image at a URL; raise an error with a sentence above, or OverloadedError."""
        if not self._is_allowed(url):
            raise errors.UrlNotAllowedError(NOT_ALLOWED)
        if not self._places.acquire(blocking=False):
            raise errors.OverloadedError("Too many images are being fetched: try again.")
        fetched: Future[bytes] = Future()
        # Nothing can cut the look-up of a name short: where a name server is silent, the thread
        # keeps the place, and the caller goes; as a daemon it does not keep the server, either.
        worker = threading.Thread(None, self._work, "fetch-url", (url, fetched), daemon=True)
        try:
            worker.start()
        except RuntimeError as error:
            self._places.release()
            raise errors.OverloadedError("The server has no thread left: try again.") from error
        try:
            return fetched.result(self._total_seconds)
        except (TimeoutError, FetchError) as error:
            raise _refusal(error) from error
        finally:
            del fetched  # an error in it has this frame: the circle would keep a body for a while

    def _is_allowed(self, url: str) -> bool:
        if not _URL.fullmatch(url):
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
        except Exception as error:
            _log.debug("no image from %s: %.300r", urls.parse(url).host, error.__cause__ or error)
            fetched.set_exception(error)
        finally:
            del fetched  # as in `fetch`


def _refusal(error: TimeoutError | FetchError) -> Exception:
    if isinstance(error, TimeoutError) or error.reason == "timeout":
        return errors.DeadlineExceededError(TOO_SLOW)
    if isinstance(error, RefusedHostError) or 300 <= (error.status or 0) < 400:
        return errors.UrlNotAllowedError(NOT_ALLOWED)
    return errors.FetchFailedError(FAILED)
