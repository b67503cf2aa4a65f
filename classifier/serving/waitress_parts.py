"""Waitress parts that this service needs otherwise: its words, its limits, who comes first."""

import json
import logging
import uuid
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from werkzeug.exceptions import default_exceptions

from classifier.serving import legacy, problems
from classifier.serving.routes import BATCH_PATH

_log = logging.getLogger(__name__)

# They are asked while everything else waits, and cost nothing.
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
        media_type, status, body = refusal(path, code)
        _log.debug("%s", json.dumps({"path": path[:200], "status": status, "refused": code}))
        self.status = status
        self.response_headers += [
            ("Content-Type", media_type),
            ("Content-Length", str(len(body))),
            ("X-Content-Type-Options", "nosniff"),
        ]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class AnswerTask(WSGITask):  # type: ignore[misc] # waitress has no types
    """Answers through the application; of a leaving server, on connections that end with that."""

    def build_response_header(self) -> bytes:
        if self.channel.server.is_leaving:
            self.request.headers["CONNECTION"] = "close"
        header: bytes = super().build_response_header()
        return header


class RequestParser(HTTPRequestParser):  # type: ignore[misc] # waitress has no types
    """Takes large bodies only where batches are sent to; elsewhere nothing of them is stored."""

    path = ""  # of a request whose first line is none
    adj: Any

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if self.path == BATCH_PATH:
            self.adj = self.adj.for_batches


class Connection(HTTPChannel):  # type: ignore[misc] # waitress has no types
    error_task_class = RefusalTask
    task_class = AnswerTask
    parser_class = RequestParser


def refusal(path: str, code: int) -> tuple[str, str, bytes]:
    """Give media type, status line and body for a request that the HTTP server itself refuses."""
    error = default_exceptions.get(code, default_exceptions[400])()
    problem = problems.problem_for(error)
    request_id = str(uuid.uuid4())
    detail = problems.detail_of(error, request_id)
    if path == legacy.PATH:
        return "application/json", "200 OK", legacy.failure(detail).encode()
    body = problems.document(problem, detail, request_id).encode()
    return problems.MEDIA_TYPE, f"{problem.status} {error.name}", body
