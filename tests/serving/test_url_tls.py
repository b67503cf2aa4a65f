"""Row 48 of the attack table: hosts that prove their name, and hosts that do not."""

import ssl
from pathlib import Path

import pytest
from fetching import error_of, fetcher, place, resolver
from hostile import RED_JPEG
from tls_host import EXPIRED, IMAGES, LOCALHOST, speaking_tls, trusting
from web_host import WebHost

from imagesieve.serving.errors import FetchFailedError

SAFE_URL = "https://images.example/a"
SAFE_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(RED_JPEG), RED_JPEG)


@pytest.mark.parametrize(
    ("certificate", "trusted", "reason"),
    [
        (LOCALHOST, LOCALHOST, "not valid for 'images.example'"),
        (EXPIRED, EXPIRED, "has expired"),
        (IMAGES, LOCALHOST, "self-signed"),
    ],
    ids=["wrong name", "expired", "self-signed"],
)
def test_host_that_does_not_prove_its_name_is_a_failure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate: str,
    trusted: str,
    reason: str,
) -> None:
    with speaking_tls(certificate, SAFE_ANSWER, tmp_path) as port, trusting(trusted, tmp_path):
        resolver(monkeypatch, [place("127.0.0.1", port)])
        error = error_of(SAFE_URL)
    assert type(error) is FetchFailedError
    assert error.__cause__ is not None
    assert isinstance(error.__cause__.__cause__, ssl.SSLCertVerificationError)
    assert reason in str(error.__cause__)


def test_host_that_proves_its_name_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with speaking_tls(IMAGES, SAFE_ANSWER, tmp_path) as port, trusting(IMAGES, tmp_path):
        resolver(monkeypatch, [place("127.0.0.1", port)])
        assert fetcher().fetch(SAFE_URL) == RED_JPEG


def test_host_without_tls_is_a_failure(host: WebHost) -> None:
    assert type(error_of(SAFE_URL)) is FetchFailedError
