"""A pool in the manner of bbid, which most scripts of this kind descend from.

    python bbid.py BASE_URL QUERY FOLDER LIMIT

One thread for each link, twenty of which work at a time; links are cut out of the page by a regular
expression; a wait on a socket ends after two seconds; an image is known by its first bytes, and
written straight under its name.
"""

import hashlib
import re
import sys
import threading
import urllib.parse
import urllib.request
from pathlib import Path

NUM_AT_WORK = 20
SOCKET_TIMEOUT_SECONDS = 2.0
PAGE_SIZE = 35
HEADERS = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}

_LINK = re.compile(r"murl&quot;:&quot;(.*?)&quot;")


class Pool:
    """What the threads share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places = threading.Semaphore(NUM_AT_WORK)
        self._lock = threading.Lock()
        self._digests: set[str] = set()
        self._names: set[str] = set()

    def download(self, link: str) -> None:
        """Fetch one image and write it; what a thread does."""
        with self._places:
            try:
                data = fetch(urllib.parse.quote(link, safe=":/%?=&;+,@"))
                ending = ending_of(data)
                if ending is None:
                    print(f"SKIP: not an image: {link}")
                elif self._is_new(data):
                    self._new_path(link, ending).write_bytes(data)
                    print(f" OK : {link}")
                else:
                    print(f"SKIP: duplicate: {link}")
            except (OSError, ValueError) as error:
                print(f"FAIL: {link}: {error}")

    def _is_new(self, data: bytes) -> bool:
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        with self._lock:
            is_new = digest not in self._digests
            self._digests.add(digest)
        return is_new

    def _new_path(self, link: str, ending: str) -> Path:
        stem = Path(urllib.parse.urlsplit(link).path).stem[:36] or "image"
        with self._lock:
            name, number = f"{stem}.{ending}", 1
            while name in self._names:
                name, number = f"{stem}-{number}.{ending}", number + 1
            self._names.add(name)
        return self.folder / name


def fetch(url: str) -> bytes:
    """Read all that an address gives."""
    request = urllib.request.Request(url, headers=HEADERS)
    with urllib.request.urlopen(request, timeout=SOCKET_TIMEOUT_SECONDS) as response:
        return bytes(response.read())


def ending_of(data: bytes) -> str | None:
    """Return the format by the first bytes, as `imghdr` did: a JPEG is one of JFIF or Exif."""
    if data[6:10] in (b"JFIF", b"Exif"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    starts = {b"\x89PNG\r\n\x1a\n": "png", b"GIF8": "gif", b"BM": "bmp"}
    return next((name for start, name in starts.items() if data.startswith(start)), None)


def main() -> None:
    """Start a thread for each link until there are enough."""
    base_url, query, folder, limit = *sys.argv[1:4], int(sys.argv[4])
    pool = Pool(Path(folder))
    pool.folder.mkdir(parents=True, exist_ok=True)
    num_started, first = 0, 1
    last_links: list[str] = []
    while num_started < limit:
        parameters = urllib.parse.urlencode({"q": query, "first": first, "count": PAGE_SIZE})
        page = fetch(f"{base_url}/images/async?{parameters}").decode("utf-8", "replace")
        links = _LINK.findall(page)
        if not links or links == last_links:
            print("No more results")
            return
        for link in links[: limit - num_started]:
            threading.Thread(target=pool.download, args=(link,)).start()
        num_started, first, last_links = num_started + len(links), first + len(links), links


if __name__ == "__main__":
    main()
