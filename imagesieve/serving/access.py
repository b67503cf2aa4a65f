"""Who may do what: keys, kept as digests only, and the checks before a view runs."""

import dataclasses
import enum
import hashlib
import hmac
import ipaddress
import logging
import re
import stat
from collections.abc import Collection, Hashable, MutableMapping
from pathlib import Path

import flask

from imagesieve.errors import UsageError
from imagesieve.files import read_text
from imagesieve.serving.errors import (
    BadHostError,
    ForbiddenError,
    RateLimitedError,
    UnauthorizedError,
)
from imagesieve.serving.limits import TokenBuckets
from imagesieve.web import urls


class Scope(enum.StrEnum):
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
SCOPES_WITHOUT_KEYS = frozenset({Scope.PREDICT, Scope.FEEDBACK})

_HOW_TO_SEND = "send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`"
_OTHER_SITE = (
    "A page of another site sent this (or a proxy in front changed the Host header): use the "
    "service's own page, or start the service with --allow-origin ORIGIN."
)
# Two clients of one IPv6 network count as one: each could choose among 2**64 addresses.
_CLIENT_BITS_V6 = 64
_READING = frozenset({"GET", "HEAD", "OPTIONS"})  # methods that change nothing
_PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, X-API-Key, Content-Type",
    "Access-Control-Max-Age": "600",  # seconds that a browser may remember this
}
_EXPOSED = "X-Request-Id, Retry-After, X-Label"  # what pages of listed origins may read as well

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Key:
    """A key's name, what it allows, and its SHA-256; the key itself is not stored."""

    name: str
    scopes: frozenset[Scope]
    digest: bytes


class Keyring(tuple[Key, ...]):
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
    does for the end of a line; it is taken out of `environment`, so that no child process inherits
    it. A UsageError names a place, never what stands there: it may be a key.
    """
    lines = _lines(f"{path} line", _read(path)) if path else []
    variable = environment.pop(VARIABLE, "")
    if variable.strip():  # containers have an empty one for none
        lines += _lines(f"{VARIABLE} entry", variable.replace(";", "\n"))
    seen: dict[tuple[str, str | bytes], str] = {}
    keys = Keyring(_parse(place, line) for place, line in lines)
    for (place, _), key in zip(lines, keys, strict=True):
        for what, value in (("name", key.name), ("key", key.digest)):
            first = seen.setdefault((what, value), place)
            if first != place:
                raise UsageError(f"{place} has the same {what} as {first}: each must be its own.")
    return keys


def _read(path: Path) -> str:
    text = read_text(path, _MAX_FILE_BYTES, "key file")
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) and mode & 0o077:
        about = "warning: others on this machine may read or change the key file %s: run chmod 600"
        _log.warning(about, path)
    return text


def _lines(source: str, text: str) -> list[tuple[str, str]]:
    """Return place and text of the lines that should hold a key."""
    stripped = enumerate(map(str.strip, text.split("\n")), 1)
    lines = [(f"{source} {number}", line) for number, line in stripped if line and line[0] != "#"]
    if not lines:
        raise UsageError(f"{source.rpartition(' ')[0]} holds no key: write {_FORM} on a line.")
    return lines


def _parse(place: str, line: str) -> Key:
    fields = line.split()
    if len(fields) > 3 and fields[3].startswith("#"):
        del fields[3:]
    if len(fields) != 3:
        raise UsageError(f"{place} has {len(fields)} words: write {_FORM}, without other spaces.")
    name, scopes, key = fields
    if len(name) > MAX_NAME_CHARS or not name.isprintable():
        most = f"at most {MAX_NAME_CHARS} printable characters"
        raise UsageError(f"{place} has no usable name: take {most}.")
    if not _KEY.fullmatch(key):
        raise UsageError(
            f"{place} has no usable key: take {MIN_KEY_CHARS} to {MAX_KEY_CHARS} ASCII characters, "
            "such as those that `openssl rand -hex 24` prints."
        )
    try:
        allowed = frozenset(Scope(scope) for scope in scopes.split(","))
    except ValueError:  # not `from` it: it quotes the word, which may be a misplaced key
        raise UsageError(f"{place} has an unknown scope: use {_SCOPES}, with commas.") from None
    return Key(name, allowed, _digest(key))


def _digest(key: str) -> bytes:
    # Headers are Latin-1; what no encoder takes must become nothing that an ASCII key could be.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


@dataclasses.dataclass(frozen=True)
class Caller:
    name: str | None  # of the key that was sent; None without keys
    scopes: frozenset[Scope]
    address: str  # IP address that the connection comes from; "" if it has none

    @property
    def share(self) -> Hashable:
        """Whose rate the caller uses up: that of the key, or of the client's network."""
        return ("key", self.name) if self.name else _client_network(self.address)


@dataclasses.dataclass(frozen=True, eq=False)
class Access:
    """Keys, hosts, sites and rates of one service."""

    # Without any, all callers predict and correct, and none administrate.
    keys: Keyring = dataclasses.field(default_factory=Keyring)
    allowed_hosts: Collection[str] | None = None  # in lower case, or IP addresses; None for any
    allowed_origins: Collection[str] = ()  # whose pages may use it, as browsers write them
    buckets: TokenBuckets | None = None  # how often each caller may come; None for no limit

    @property
    def has_keys(self) -> bool:
        return bool(self.keys)

    def check_site(self, request: flask.Request) -> None:
        """Raise BadHostError for another host, ForbiddenError for a page of another site.

        Programs send no header that names a site.
        """
        own = self._own_authority(request)
        origin = request.headers.get("Origin")
        if request.method in _READING or origin in self.allowed_origins:
            return
        site = request.headers.get("Sec-Fetch-Site")
        if site is not None and site not in ("same-origin", "none"):
            raise ForbiddenError(_OTHER_SITE)
        if origin is not None:
            parsed = urls.parse_origin(origin)
            if parsed is None or own is None or parsed.host != own.host:
                raise ForbiddenError(_OTHER_SITE)
            # The scheme does not count, as a proxy in front may take care of TLS. Neither does the
            # port where that proxy left it out of the Host header.
            if own.port not in (None, parsed.port):
                raise ForbiddenError(_OTHER_SITE)

    def identify(self, request: flask.Request, scope: Scope) -> Caller:
        """Return who sent a request, who pays one token of the rate for it.

        The IP address is the connection's, never what a header such as X-Forwarded-For claims.
        """
        caller = self._caller(request)
        self._spend(caller, 1, at_least=1)
        if scope in caller.scopes:
            return caller
        if self.has_keys:
            raise ForbiddenError(f"The key does not allow this: it needs the scope {scope}.")
        raise ForbiddenError(
            f"This address needs a key with the scope {scope}, and the service has none: start it "
            f"with --keys FILE or with {VARIABLE} in its environment."
        )

    def take(self, caller: Caller, cost: int) -> None:
        """Take more from a caller than `identify` did: so much that it may be in debt afterwards.

        A caller who is in debt already gets a RateLimitedError.
        """
        if cost > 0:
            self._spend(caller, cost, at_least=0)

    def preflight(self, request: flask.Request) -> flask.Response | None:
        """Answer a browser that asks for a page of a listed origin; `cors_headers` says what."""
        if not self._is_preflight(request):
            return None
        self._own_authority(request)
        return flask.Response(status=204)

    def cors_headers(self, request: flask.Request) -> dict[str, str]:
        """Return the headers of CORS that belong to the answer, refusals included."""
        if not self.allowed_origins:
            return {}
        headers = {"Vary": "Origin"}  # a cache must not give one site's answer to another
        origin = request.headers.get("Origin", "")
        if origin in self.allowed_origins:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = _EXPOSED
        if self._is_preflight(request):
            headers.update(_PREFLIGHT_HEADERS)
        return headers

    def _is_preflight(self, request: flask.Request) -> bool:
        return (
            request.method == "OPTIONS"
            and "Access-Control-Request-Method" in request.headers
            and request.headers.get("Origin", "") in self.allowed_origins
        )

    def _own_authority(self, request: flask.Request) -> urls.Authority | None:
        """Return the host that the request is for; None when a request of HTTP/1.0 names none."""
        text = request.headers.get("Host")
        if text is None and request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
            if self.allowed_hosts is not None:
                raise BadHostError("The request has no Host header, and this service needs one.")
            return None
        authority = urls.parse_authority(text or "")
        if authority is None or _contradicts(request, authority):
            raise BadHostError("The request does not say clearly which host it is for.")
        if self.allowed_hosts is not None and authority.host not in self.allowed_hosts:
            raise BadHostError(
                "The service does not answer to the name in the Host header: use one that it "
                "knows, or start it with --allow-host NAME."
            )
        return authority

    def _caller(self, request: flask.Request) -> Caller:
        address = request.remote_addr or ""
        if not self.has_keys:
            return Caller(None, SCOPES_WITHOUT_KEYS, address)
        try:
            key = self._find(_presented(request))
        except UnauthorizedError:
            # Many of these are slowed down by their address, and use up the share of no key.
            self._spend(Caller(None, frozenset(), address), 1, at_least=1)
            raise
        return Caller(key.name, key.scopes, address)

    def _find(self, presented: str) -> Key:
        key = self.keys.find(presented)
        if key is None:
            raise UnauthorizedError("This key is not known to the service.")
        return key

    def _spend(self, caller: Caller, cost: int, *, at_least: int) -> None:
        if self.buckets is None:
            return
        seconds = self.buckets.take(caller.share, cost, at_least=at_least)
        if seconds:
            about = f"Too many requests: this caller can go on in {seconds} s."
            raise RateLimitedError(about, seconds)


def _client_network(address: str) -> str:
    """Return what the requests of one client share: its IPv4 address, or its IPv6 network."""
    try:
        ip = urls.ip_address(address)
    except ValueError:  # a Unix socket has no address
        return address
    bits = _CLIENT_BITS_V6 if ip.version == 6 else ip.max_prefixlen
    return str(ipaddress.ip_network((ip, bits), strict=False))


def _contradicts(request: flask.Request, authority: urls.Authority) -> bool:
    """Return whether the request line names a host, as for a proxy, and another one than `Host`."""
    target = str(request.environ.get("REQUEST_URI") or request.environ.get("RAW_URI") or "/")
    if target.startswith("/") or target == "*":
        return False
    named = urls.parse_authority(re.split("[/?#]", target.partition("://")[2], maxsplit=1)[0])
    return named is None or named.host != authority.host


def _presented(request: flask.Request) -> str:
    """Return the key that a request sends; raise if there is none, an empty one, or two."""
    authorization = request.headers.get("Authorization")
    presented = request.headers.get("X-API-Key")
    if authorization is not None:
        scheme, _, bearer = authorization.partition(" ")
        if scheme.lower() == "bearer":
            if presented is not None and presented.strip() != bearer.strip():
                raise UnauthorizedError("Two different keys were sent: send one.")
            presented = bearer
        elif presented is None:  # else the other scheme is that of a proxy in front
            raise UnauthorizedError(f"The Authorization header is no key: {_HOW_TO_SEND}.")
    if presented is None:
        raise UnauthorizedError(f"This address needs a key: {_HOW_TO_SEND}.")
    if not presented.strip():
        raise UnauthorizedError(f"The key is empty: {_HOW_TO_SEND}.")
    return presented.strip()
