"""The keys that callers send: read from a file or the environment, kept as digests only."""

import dataclasses
import enum
import hashlib
import hmac
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path

from imagesieve.errors import UsageError


class Scope(enum.StrEnum):
    """What a key may allow its holder."""

    PREDICT = "predict"
    FEEDBACK = "feedback"
    ADMIN = "admin"


VARIABLE = "CLASSIFIER_KEYS"
MAX_NAME_CHARS = 64
MIN_KEY_CHARS = 16
MAX_KEY_CHARS = 256

_MAX_FILE_BYTES = 2**20
_KEY = re.compile(rf"[!-~]{{{MIN_KEY_CHARS},{MAX_KEY_CHARS}}}")
_FORM = "<name> <scope>[,<scope>] <key>"
_SCOPES = ", ".join(Scope)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Key:
    """A key's name, what it allows, and its SHA-256; the key itself is not stored."""

    name: str
    scopes: frozenset[Scope]
    digest: bytes


class Keyring(tuple[Key, ...]):
    """All keys of the service."""

    __slots__ = ()

    def find(self, presented: str) -> Key | None:
        """Return the key whose text this is.

        Every key is compared, each in constant time: how long it takes tells nothing.
        """
        digest = _digest(presented[: MAX_KEY_CHARS + 1])  # no key is as long as that
        found = None
        for key in self:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def read_keys(path: Path | None, environment: MutableMapping[str, str]) -> Keyring:
    """Read the keys of a file and of the environment's `CLASSIFIER_KEYS`.

    A line is `<name> <scope>[,<scope>] <key>`; `#` begins a comment. In the variable, a semicolon
    does for the end of a line. The variable is taken out of `environment`, so that no child
    process inherits it.

    Raises:
        UsageError: about a place, never with what stands there: it may be a key.
    """
    lines: list[tuple[str, str]] = []
    if path is not None:
        lines += _lines(f"{path} line", _read(path))
    variable = environment.pop(VARIABLE, "")
    if variable.strip():  # containers have an empty one for none
        lines += _lines(f"{VARIABLE} entry", variable.replace(";", "\n"))
    return Keyring(_parsed(lines))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"The key file {path} cannot be read: {error.strerror}.") from error
    if len(data) > _MAX_FILE_BYTES:
        raise UsageError(
            f"{path} has more than {_MAX_FILE_BYTES:,} bytes, too many for a key file."
        )
    if stat.S_ISREG(mode) and mode & 0o077:
        _log.warning(
            "warning: others on this machine may read or change the key file %s: run chmod 600 on "
            "it.",
            path,
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Not `from`: that error carries the file's bytes, and a log may show it.
        raise UsageError(f"The key file {path} is not UTF-8 text: save it as UTF-8.") from None


def _lines(source: str, text: str) -> list[tuple[str, str]]:
    """Return place and text of the lines that should hold a key."""
    stripped = (
        (f"{source} {number}", line.strip()) for number, line in enumerate(text.split("\n"), 1)
    )
    lines = [(place, line) for place, line in stripped if line and not line.startswith("#")]
    if not lines:
        raise UsageError(f"{source.rpartition(' ')[0]} holds no key: write {_FORM} on a line.")
    return lines


def _parsed(lines: Iterable[tuple[str, str]]) -> Iterator[Key]:
    seen: dict[tuple[str, str | bytes], str] = {}
    for place, line in lines:
        key = _parse(place, line)
        for what, value in (("name", key.name), ("key", key.digest)):
            first = seen.setdefault((what, value), place)
            if first != place:
                raise UsageError(f"{place} has the same {what} as {first}: each must be its own.")
        yield key


def _parse(place: str, line: str) -> Key:
    fields = line.split()
    if len(fields) > 3 and fields[3].startswith("#"):
        del fields[3:]
    if len(fields) != 3:
        raise UsageError(f"{place} has {len(fields)} words: write {_FORM}, without other spaces.")
    name, scopes, key = fields
    if len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise UsageError(
            f"{place} has no usable name: take at most {MAX_NAME_CHARS} printable characters."
        )
    if not _KEY.fullmatch(key):
        raise UsageError(
            f"{place} has no usable key: take {MIN_KEY_CHARS} to {MAX_KEY_CHARS} ASCII characters, "
            "such as those that `openssl rand -hex 24` prints."
        )
    try:
        allowed = frozenset(Scope(scope) for scope in scopes.split(","))
    except ValueError:  # not `from` it: it quotes the word, which may be a misplaced key
        raise UsageError(
            f"{place} has an unknown scope: use {_SCOPES}, with commas between them."
        ) from None
    return Key(name, allowed, _digest(key))


def _digest(key: str) -> bytes:
    # Headers are Latin-1; what no encoder takes must become nothing that an ASCII key could be.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
