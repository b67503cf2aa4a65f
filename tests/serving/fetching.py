"""Images by address: a fetcher to test, look-ups made up, and errors told as they must be."""

import socket
from typing import Any

import pytest

from imagesieve.errors import ClassifierError
from imagesieve.serving.errors import (
    DeadlineExceededError,
    FetchFailedError,
    UrlNotAllowedError,
    problem_for,
)
from imagesieve.serving.fetch_image import FAILED, NOT_ALLOWED, TOO_SLOW, UrlFetcher

URL = "http://images.example/a"
MAX_BYTES = 10 * 2**20
PUBLIC = "93.184.215.14"

Place = tuple[Any, ...]


def place(address: str, port: int = 80) -> Place:
    """Return one answer of a resolver."""
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))


def resolver(monkeypatch: pytest.MonkeyPatch, *answers: list[Place] | OSError) -> list[str]:
    """Answer look-ups in this order, the last one for ever; gives the names that are asked for."""
    left, asked = list(answers), []

    def look_up(name: str, *_arguments: Any, **_options: Any) -> list[Place]:
        asked.append(name)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def fetcher(allowed_hosts: list[str] | None = None, **changes: Any) -> UrlFetcher:
    """Return one that may visit this machine."""
    settings = {"allow_private": True, "total_seconds": 30.0, **changes}
    return UrlFetcher(MAX_BYTES, allowed_hosts, **settings)


def assert_told(error: ClassifierError) -> None:
    """See that an error tells the one sentence of its kind, with the right status."""
    sentence, status, slug = {
        UrlNotAllowedError: (NOT_ALLOWED, 422, "url-not-allowed"),
        FetchFailedError: (FAILED, 502, "fetch-failed"),
        DeadlineExceededError: (TOO_SLOW, 504, "deadline-exceeded"),
    }[type(error)]
    problem = problem_for(error)
    assert (str(error), problem.status, problem.slug) == (sentence, status, slug)


def error_of(url: str = URL, mine: UrlFetcher | None = None, **changes: Any) -> ClassifierError:
    with pytest.raises(ClassifierError) as caught:
        (mine or fetcher(**changes)).fetch(url)
    assert_told(caught.value)
    return caught.value


def assert_refused(url: str, mine: UrlFetcher) -> None:
    assert type(error_of(url, mine)) is UrlNotAllowedError
