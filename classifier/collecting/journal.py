"""What was tried: one JSON line for each address, only ever appended to."""

import json
import threading
import time
from pathlib import Path
from typing import IO, Any

from classifier.files import reporting_output_errors

JOURNAL_NAME = ".bing_downloader.jsonl"  # hidden, so that it is no picture and no class


class Journal:
    """The journal of one class folder; any thread may add to it. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_NAME
        self._lock = threading.Lock()
        self._file: IO[str] | None = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def known(self) -> dict[str, str]:
        """Give the SHA-256 of each address whose picture is known from an earlier run.

        Lines that a crash left unfinished are passed over.
        """
        if not self.path.exists():
            return {}
        with reporting_output_errors(self.path):
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        entries = [entry for entry in map(_parse, lines) if entry is not None]
        return {entry["url"]: entry["sha256"] for entry in entries if entry.get("sha256")}

    def add(self, url: str, status: str, **fields: str) -> None:
        """Append one line: what became of `url`.

        Args:
            url: the picture's address.
            status: `kept`, `duplicate` or `failed`.
            fields: `reason`, `sha256`, `path` (within the folder), `page_url`; empty ones are
                left out.

        Raises:
            OutputError: it could not be written.
        """
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry = {"time": moment, "url": url, "status": status}
        entry |= {name: value for name, value in fields.items() if value}
        with self._lock, reporting_output_errors(self.path):
            file = self._file or self._open()
            file.write(json.dumps(entry) + "\n")
            file.flush()

    def _open(self) -> IO[str]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115
        if self._file.tell() and not self.path.read_bytes().endswith(b"\n"):
            self._file.write("\n")  # a crash tore the last line: do not glue ours to it
        return self._file


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    is_entry = isinstance(entry, dict) and isinstance(entry.get("url"), str)
    return entry if is_entry else None
