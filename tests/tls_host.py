"""A server of our own that speaks TLS, and certificates that were made for it and open nothing."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest

from imagesieve.web import connections

# For the name `localhost`, until 2126.
LOCALHOST = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgDz1Wze5RdqRZg7U3
H5x6qjfbDs6W7+V3n+4+/XyeYR2hRANCAAQzwSEdZiXftYnpCt3tJWDW/+v8s/7A
KWs0ARYa3GSs5ZPov39WYfCpBejBJBkOyxMJhMFjJUwwKx0sGO8SVDsP
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBpDCCAUugAwIBAgIUN07FSn/q+4BhJER3za0I9AmHJK8wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTE1NDQzMVoYDzIxMjYxMDI4
MTU0NDMxWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQzwSEdZiXftYnpCt3tJWDW/+v8s/7AKWs0ARYa3GSs5ZPov39WYfCp
BejBJBkOyxMJhMFjJUwwKx0sGO8SVDsPo3kwdzAdBgNVHQ4EFgQUHDb3qnXzZjCZ
qRmhez9XJG76svowHwYDVR0jBBgwFoAUHDb3qnXzZjCZqRmhez9XJG76svowDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwDgYDVR0PAQH/BAQD
AgKEMAoGCCqGSM49BAMCA0cAMEQCICCASYh00ZjNFF75Ckma8IwOMoMuicQemu6l
wPVF/PVNAiBf1I5obBB/ZgUeigF4EzHC32oR/R8/YxtiPTVuurh5lw==
-----END CERTIFICATE-----
"""
# For the name `images.example`, until 2126.
IMAGES = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3LpC546zYJ1ejk1S
G+hGsxqkd0sGHb6FP/YMnC1/4ImhRANCAASOnFYa6TeqVUQlYm3mwL/FZnoBtpZY
13RjsxdOSZ2tkjsHCpsBGQRGHtrHTe3YYOLo57xYkNpN9Awd6HI0uaDa
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBjDCCATOgAwIBAgIIV/qFkiFafuAwCgYIKoZIzj0EAwIwGzEZMBcGA1UEAwwQ
cGljdHVyZXMuZXhhbXBsZTAgFw0yNjAxMDEwMDAwMDBaGA8yMTI2MDEwMTAwMDAw
MFowGzEZMBcGA1UEAwwQcGljdHVyZXMuZXhhbXBsZTBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABI6cVhrpN6pVRCVibebAv8VmegG2lljXdGOzF05Jna2SOwcKmwEZ
BEYe2sdN7dhg4ujnvFiQ2k30DB3ocjS5oNqjXzBdMA8GA1UdEwEB/wQFMAMBAf8w
GwYDVR0RBBQwEoIQcGljdHVyZXMuZXhhbXBsZTAOBgNVHQ8BAf8EBAMCAoQwHQYD
VR0OBBYEFJbDbgBibPHC6rz9icsboQYmFHbfMAoGCCqGSM49BAMCA0cAMEQCIE6i
ihBgMj4uWnkyCU20GUq13JI4CYA6HoUJ4f+7OSzvAiAFs3txOZQ3Thju7pDHy+vF
Y37dFa7BCgHJ6VqRn4GUkQ==
-----END CERTIFICATE-----
"""
# For the same name, until February 2025.
EXPIRED = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggM4hWlUunv+Dfblp
bOAMEENy1pDsRYL9j6BTDWRweKShRANCAASQHXnlofojzqTZ4pmGFui0f1sYUz0I
zzWjxeCwHnbSMEQ7VV4QvmdFJT+NRCzAzLvrPADONRfwrCha5ir6fqEj
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBizCCATGgAwIBAgIICXCF9MpHcFIwCgYIKoZIzj0EAwIwGzEZMBcGA1UEAwwQ
cGljdHVyZXMuZXhhbXBsZTAeFw0yNTAxMDEwMDAwMDBaFw0yNTAyMDEwMDAwMDBa
MBsxGTAXBgNVBAMMEHBpY3R1cmVzLmV4YW1wbGUwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASQHXnlofojzqTZ4pmGFui0f1sYUz0IzzWjxeCwHnbSMEQ7VV4QvmdF
JT+NRCzAzLvrPADONRfwrCha5ir6fqEjo18wXTAPBgNVHRMBAf8EBTADAQH/MBsG
A1UdEQQUMBKCEHBpY3R1cmVzLmV4YW1wbGUwDgYDVR0PAQH/BAQDAgKEMB0GA1Ud
DgQWBBS+r6dzV8dG7ueZYfaOuL1VjfJBlDAKBggqhkjOPQQDAgNIADBFAiEAt8B2
n5jHDNf8H0qZV8ICwE6deB4YCCb5lqSa9cGtY1oCIA1pC9fZOM/SAFLD5pFHjDO2
luEtWIXITmxkMeoYuW+1
-----END CERTIFICATE-----
"""


@contextlib.contextmanager
def speaking_tls(certificate: str, answer: bytes, folder: Path) -> Iterator[int]:
    """Give the port of a server that proves itself with `certificate` and sends `answer`."""
    path = folder / "server.pem"
    path.write_text(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:  # closed: the test is over
                return
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as safe:
                safe.recv(65536)
                safe.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5.0)


@contextlib.contextmanager
def trusting(certificates: str, folder: Path) -> Iterator[None]:
    """Have these certificates, and no others, stand for the roots that the world trusts."""
    path = folder / "trusted.pem"
    path.write_text(certificates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(path))
        connections._new_tls_context.cache_clear()
        yield
    connections._new_tls_context.cache_clear()
