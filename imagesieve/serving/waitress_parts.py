"""Parts of waitress with this service's own errors, limits and priorities."""

import contextlib
import json
import logging
import re
import socket
import threading
import time
import uuid
from typing import Any

import msgspec
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import BadRequest, Error
from werkzeug.exceptions import default_exceptions

from imagesieve.serving import errors
from imagesieve.serving.limits import BATCH_PATH
from imagesieve.serving.routes import legacy

_log = logging.getLogger(__name__)

# A sender that does not listen to its answers must not have hundreds of them waiting for it.
_MOST_PIPELINED = 32
# After a refusal the rest of a body is thrown away for so long, lest the sender should hear of a
# broken connection in place of the answer.
_LINGERING_SECONDS = 10.0
# Of chunks: bytes besides those of the body, at first, and as a share of the body. Each chunk costs
# some microseconds in the one thread that receives, so a body must not come byte by byte.
_FREE_FRAMING_BYTES = 65_536
_FRAMING_SHARE = 1 / 8
_SLOWEST = 4096  # bytes a second, on the whole, of a request that takes longer than silence may
_SMALL_BYTES = 2**18  # of a body that is taken even when large ones are refused
_FULL_RETRY_SECONDS = 10  # until a disk may have room again
_FULL = "There is no room for a body of this size: send a smaller one, or try again later."

_TRANSFER_CODING = re.compile(rb"^transfer-encoding:[ \t]*(.*?)[ \t]*\r?$", re.I | re.M)

# Probes come while everything else waits, and cost nothing.
_FIRST = frozenset({"/healthz", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})


class Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc] # waitress has no types
    """Hands requests to threads in the order of their arrival, but probes before all others."""

    def add_task(self, task: Any) -> None:
        with self.lock:
            if task.requests and task.requests[0].path in _FIRST:
                self.queue.appendleft(task)
            else:
                self.queue.append(task)
            self.queue_cv.notify()


class RefusalTask(ErrorTask):  # type: ignore[misc] # waitress has no types
    """Answers what never reaches the application, such as a body far over the limit."""

    def execute(self) -> None:
        path, code = str(self.request.path), self.request.error.code
        request_id = str(uuid.uuid4())
        media_type, status, body = refusal(path, code, request_id)
        entry = {"id": request_id, "path": path[:200], "status": status, "refused": code}
        _log.debug("%s", json.dumps(entry))
        self.status = status
        headers = {
            "Content-Type": media_type,
            "Content-Length": str(len(body)),
            "X-Content-Type-Options": "nosniff",
            "X-Request-Id": request_id,
            **({"Retry-After": str(_FULL_RETRY_SECONDS)} if code == _FullError.code else {}),
        }
        self.response_headers += headers.items()
        self.set_close_on_finish()
        self.channel.is_deaf = True
        self.content_length = len(body)
        self.write(body)


class AnswerTask(WSGITask):  # type: ignore[misc] # waitress has no types
    """Answers through the application; of a leaving server, on connections that end with that."""

    def build_response_header(self) -> bytes:
        if self.channel.server.is_leaving:
            self.request.headers["CONNECTION"] = "close"
        header: bytes = super().build_response_header()
        return header

    def get_environment(self) -> dict[str, Any]:
        environment: dict[str, Any] = super().get_environment()
        # A file would stay open until its reader has taken all of it, and readers can be slow.
        del environment["wsgi.file_wrapper"]
        return environment


class Bodies:
    """Counts the bytes of all bodies that are here, in memory or on disk; for any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._total = 0
        self._lock = threading.Lock()
        self.are_too_many = False  # then more must be refused

    def add(self, num_bytes: int) -> None:
        """Note what came, or with a negative number what went."""
        with self._lock:
            self._total += num_bytes
            self.are_too_many = self._total > self._most


class _FullError(Error):  # type: ignore[misc] # a body cannot be stored
    code = 503


class _TooSlowError(Error):  # type: ignore[misc] # a request only holds a connection
    code = 408


class RequestParser(HTTPRequestParser):  # type: ignore[misc] # waitress has no types
    """Refuses what waitress would misunderstand, stumble over, or take ages for.

    Large bodies are taken only where batches are sent to; elsewhere nothing of them is stored.
    """

    path = ""  # of a request whose first line is none
    adj: Any
    error: Error | None
    _num_bytes = 0  # of the body, as noted in `Bodies`

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self._begun = time.monotonic()

    def received(self, data: bytes) -> int:
        try:
            taken: int = super().received(data)
        except OSError as error:  # a full disk, no temporary folder, too many open files
            _log.warning("The body of a request cannot be stored: %s.", error.strerror or error)
            self.error = _FullError("full")
            self.completed = True
            return len(data)
        if not self.completed:
            self.error = self._fault()
            self.completed = self.error is not None
        if self.completed:  # otherwise waitress would tell the sender to go on, and wait for that
            self.expect_continue = False
        return taken

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # an address such as http://[, a length of 5000 digits
            raise ParsingError("A URL or a number is malformed") from error
        self._check_coding(header_plus)
        if self.path == BATCH_PATH:
            self.adj = self.adj.for_batches

    def close(self) -> None:
        self._note(0)
        # What could not be written is tried once more when its file is closed.
        with contextlib.suppress(OSError):
            super().close()

    def _fault(self) -> Error | None:
        received = self.header_bytes_received + self.body_bytes_received
        if time.monotonic() - self._begun > self.adj.channel_timeout + received / _SLOWEST:
            return _TooSlowError("too slow")
        if self.body_rcv is None:
            return None
        self._note(len(self.body_rcv))
        framing = self.body_bytes_received - self._num_bytes
        if self.chunked and framing > _FREE_FRAMING_BYTES + _FRAMING_SHARE * self._num_bytes:
            return BadRequest("chunks are too small")
        if self._num_bytes > _SMALL_BYTES and self.adj.bodies.are_too_many:
            return _FullError("too much at once")
        return None

    def _note(self, num_bytes: int) -> None:
        self.adj.bodies.add(num_bytes - self._num_bytes)
        self._num_bytes = num_bytes

    def _check_coding(self, header_plus: bytes) -> None:
        """Refuse a body whose end a proxy in front may see in another place than waitress."""
        codings = [coding.lower() for coding in _TRANSFER_CODING.findall(header_plus)]
        if codings and (
            codings != [b"chunked"] or self.version != "1.1" or "CONTENT_LENGTH" in self.headers
        ):
            raise ParsingError("Transfer-Encoding must be chunked, and stand alone")


class Connection(HTTPChannel):  # type: ignore[misc] # waitress has no types
    """Takes a bounded number of requests ahead, and closes so that its last answer is heard."""

    error_task_class = RefusalTask
    task_class = AnswerTask
    parser_class = RequestParser
    will_close: bool
    request: Any
    is_deaf = False  # the last answer was written before all of the input was read
    _lingers_until: float | None = None

    def received(self, data: bytes) -> bool:
        if self.is_deaf:
            if self._lingers_until is not None and time.monotonic() > self._lingers_until:
                self.handle_close()
            return False
        is_taken: bool = super().received(data)
        with self.requests_lock:
            if len(self.requests) > _MOST_PIPELINED:
                self._take_no_more()
        return is_taken

    def handle_close(self) -> None:
        if not (self.is_deaf and self.will_close and self._lingers_until is None):
            super().handle_close()
            if self.request is not None:  # its sender left in the middle; it may have a file
                self.request.close()
            return
        self._lingers_until = time.monotonic() + _LINGERING_SECONDS
        self.will_close = False
        with contextlib.suppress(OSError):  # the other side has closed by itself
            self.socket.shutdown(socket.SHUT_WR)

    def _take_no_more(self) -> None:
        """Let the first requests be the last: as HTTP has it, the others may be sent again."""
        for request in self.requests[_MOST_PIPELINED:]:
            request.close()
        del self.requests[_MOST_PIPELINED:]
        self.requests[-1].headers["CONNECTION"] = "close"
        if self.request is not None:  # it has come in part
            self.request.close()
            self.request = None
        self.is_deaf = True


def refusal(path: str, code: int, request_id: str) -> tuple[str, str, bytes]:
    """Return media type, status line and body for a request that the HTTP server itself refuses."""
    kind = default_exceptions.get(code, default_exceptions[400])
    error = kind(_FULL if code == _FullError.code else None)
    document = errors.document(error, request_id)
    if path == legacy.PATH:
        status = f"{code} {error.name}" if code == _FullError.code else "200 OK"
        return "application/json", status, legacy.failure(document.detail).encode()
    if code == _FullError.code:
        document.retry_after = _FULL_RETRY_SECONDS
    return errors.MEDIA_TYPE, f"{document.status} {error.name}", msgspec.json.encode(document)
