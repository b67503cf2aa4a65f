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
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg4IZhzEWtVnmCmHvB
6FZQddKeGMbSvuiB12GiVPPsYM2hRANCAARedb/1puS2+WRig5/hPTDMbwo+kS8g
fGFVi/EVAzbmUlnLhsd11FGRTGKWcHSm8upTe34vUCLahL6Zyh0a1ei4
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBpDCCAUqgAwIBAgIUGfgXX1eq+Y9dKJGm/4lYBN7/aDowCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOaW1hZ2VzLmV4YW1wbGUwIBcNMjYxMTMwMTEwNjQxWhgPMjEy
NjExMDYxMTA2NDFaMBkxFzAVBgNVBAMMDmltYWdlcy5leGFtcGxlMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEXnW/9abktvlkYoOf4T0wzG8KPpEvIHxhVYvxFQM2
5lJZy4bHddRRkUxilnB0pvLqU3t+L1Ai2oS+mcodGtXouKNuMGwwHQYDVR0OBBYE
FHAbLe5f6IF6HOGJjd+Pzk5q9DS5MB8GA1UdIwQYMBaAFHAbLe5f6IF6HOGJjd+P
zk5q9DS5MA8GA1UdEwEB/wQFMAMBAf8wGQYDVR0RBBIwEIIOaW1hZ2VzLmV4YW1w
bGUwCgYIKoZIzj0EAwIDSAAwRQIhAPiRCMMhJkXUJrPenuaWD460Rl6CGUDckPOJ
CP9ePSCUAiBN8dzsMFtvEJE/oTc2WWlIG/2hB9a0DaHekvpf4YndVA==
-----END CERTIFICATE-----
"""
# For the same name, until February 2025.
EXPIRED = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgkysU/3eoF/GrmvSR
jbSZlCQfPJWCxYfXkAhXb0KkjWqhRANCAAQWX+Ztc2MQQdJWcoGs8D8xCPEqhuoA
NvzP1CRfcPayqvZAXC3LQO+pEToX8P8j4Cxr16Z2RUmQjnb+RnuaqmwU
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBbjCCARSgAwIBAgIBATAKBggqhkjOPQQDAjAZMRcwFQYDVQQDDA5pbWFnZXMu
ZXhhbXBsZTAeFw0yNTAxMDEwMDAwMDBaFw0yNTAyMDEwMDAwMDBaMBkxFzAVBgNV
BAMMDmltYWdlcy5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFl/m
bXNjEEHSVnKBrPA/MQjxKobqADb8z9QkX3D2sqr2QFwty0DvqRE6F/D/I+Asa9em
dkVJkI52/kZ7mqpsFKNNMEswDwYDVR0TAQH/BAUwAwEB/zAZBgNVHREEEjAQgg5p
bWFnZXMuZXhhbXBsZTAdBgNVHQ4EFgQUlOuB8vWaAa18VAR2iEtOyQwp2QwwCgYI
KoZIzj0EAwIDSAAwRQIhAOmy2zLWKSEBOn+wcBN4pUjWiCa5A1/bhQuF6zyP0oPl
AiB/pSc1fvMC7nR5VvmPUtPc/jdU0g/vzjKM9P27nPAVIA==
-----END CERTIFICATE-----
"""


@contextlib.contextmanager
def speaking_tls(certificate: str, answer: bytes, folder: Path) -> Iterator[int]:
    """Yield the port of a server that proves itself with `certificate` and sends `answer`."""
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
