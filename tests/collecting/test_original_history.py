"""A download history of the original is read; nothing in it is run, and none costs too much."""

import builtins
import contextlib
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from imagesieve.collecting import original_history
from imagesieve.collecting.original_history import read_urls
from imagesieve.errors import UsageError

URLS = ["http://a.example/1.jpg", "https://b.example/%C3%A9%20&x=1.png", "http://c.example/a?b"]
MD5S = {"0123456789abcdef" * 2: "1.jpg", "fedcba9876543210" * 2: "菜单_1.png"}
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

# As Python 2 wrote them: texts are bytes (U), sets are calls of `__builtin__.set`.
PYTHON_2_LIST = (
    b"\x80\x02]q\x00(U\x16http://a.example/1.jpgq\x01U\x12http://b.ex/\xc3\xa9.jpgq\x02e."
)
PYTHON_2_SET = (
    b"\x80\x02c__builtin__\nset\nq\x00]q\x01U\x16http://a.example/1.jpgq\x02a\x85q\x03Rq\x04."
)
PYTHON_2_DICT = b"\x80\x02}q\x00U\x20" + b"0123456789abcdef" * 2 + b"q\x01U\x051.jpgq\x02s."
PYTHON_2_TEXT = b"(lp0\nS'http://a.example/1.jpg'\np1\naVhttp://b.example/\\u83dc.jpg\np2\na."


Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(data: bytes) -> Path:
        path = tmp_path / "download_history.pickle"
        path.write_bytes(data)
        return path

    return write


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Harmless:
    """Pickles as an object of a class of ours."""


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("collection", [list, tuple, set, frozenset, dict.fromkeys])
def test_a_genuine_history_is_read(
    write: Write, protocol: int, collection: Callable[[list[str]], object]
) -> None:
    data = pickle.dumps(collection(URLS), protocol) + pickle.dumps(MD5S, protocol)
    assert set(read_urls(write(data))) == set(URLS)


def genuine() -> Iterable[tuple[str, bytes, Sequence[str]]]:
    """Yield what a history may be besides two pickles of Python 3, and its URLs."""
    urls, md5s = pickle.dumps(URLS), pickle.dumps(MD5S)
    accented = "http://xn--mnchen-3ya.example/%C3%BC%201.jpg"
    others = [None, 1, 2.5, b"http://bytes.example/", ["http://nested.example/"], "", "ftp://x/"]
    others += ["x", "file:///etc/passwd", "http://x/\nb", "http://x/\ud800", URLS[0]]
    odd = {3: "d.jpg", ("e",): "e.jpg", "a" * 32: "../up.jpg", "b" * 32: 7}
    long = [f"http://a.example/{number}.jpg" for number in range(5_000)]
    first = "http://a.example/1.jpg"
    yield "a list of Python 2", PYTHON_2_LIST, (first, "http://b.ex/%C3%A9.jpg")
    yield "a set of Python 2", PYTHON_2_SET, (first,)
    yield "a text of Python 2", PYTHON_2_TEXT, (first, "http://b.example/%E8%8F%9C.jpg")
    yield "no second pickle", urls, URLS
    yield "another second pickle", urls + pickle.dumps([1, 2]), URLS
    yield "a call behind both", urls + md5s + pickle.dumps(Call(os.system, "true")) + b"\xff", URLS
    yield "nothing in it", pickle.dumps([]) + pickle.dumps({}), ()
    yield "not only URLs", pickle.dumps(others) + pickle.dumps(odd), URLS[:1]
    yield "repetitions", pickle.dumps(long + long) + md5s, long
    yield (
        "odd letters",
        pickle.dumps(["HTTP://münchen.example/ü 1.jpg", f"{accented}#top"]),
        [accented],
    )


@pytest.mark.parametrize(("data", "urls"), [pytest.param(*row[1:], id=row[0]) for row in genuine()])
def test_other_genuine_histories_are_read(write: Write, data: bytes, urls: Sequence[str]) -> None:
    data += PYTHON_2_DICT if data in (PYTHON_2_LIST, PYTHON_2_SET, PYTHON_2_TEXT) else b""
    assert read_urls(write(data)) == tuple(urls)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("place", ["first", "inside", "second"])
@pytest.mark.parametrize(
    "hostile",
    [
        Call(os.system, "touch hacked"),
        Call(builtins.eval, "open('hacked', 'w')"),
        Call(builtins.exec, "open('hacked', 'w')"),
        Call(builtins.getattr, str, "format"),
        Call(builtins.open, "hacked", "w"),
        Call(builtins.range, 10**12),
        Call(builtins.bytearray, 10**12),
        Call(builtins.__import__, "os"),
        Harmless(),
        Harmless,
    ],
    ids=lambda value: getattr(getattr(value, "call", [None])[0], "__name__", None),
)
def test_nothing_is_ever_called(
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hostile: object,
    place: str,
    protocol: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    values = {
        "first": [hostile],
        "inside": [["http://a.example/", [hostile]]],
        "second": [URLS, {"0" * 32: hostile}],
    }[place]
    path = write(b"".join(pickle.dumps(value, protocol) for value in values))
    with pytest.raises(UsageError, match="not imported, because it asks for"):
        read_urls(path)
    assert list(tmp_path.iterdir()) == [path]


TRICKS = {
    "a name put together on the stack": b"\x80\x04" + text("os") + text("system") + b"\x93.",
    "a dotted name": b"\x80\x04" + text("builtins") + text("set.__init__") + b"\x93.",
    "a name with a blank in it": b"\x80\x04" + text("builtins set") + text("") + b"\x93.",
    "a name recalled": b"\x80\x04" + text("os") + b"\x94" + text("system") + b"\x94h\x00h\x01\x93.",
    "a name of other values": b"\x80\x04]]\x93.",
    "an address and then a call": b"\x80\x02]c__builtin__\neval\n(X\x01\x00\x00\x00ttRa.",
    "a set called with two lists": b"cbuiltins\nset\n(]]tR.",
    "a set of a text": b"cbuiltins\nset\n(Vabc\ntR.",
    "a call of a list": b"]]\x85R.",
    "a set's state": b"cbuiltins\nset\n(]tR}b.",
    "an instance": b"(ios\nsystem\n.",
    "an object": b"(cbuiltins\nset\n]o.",
    "a new object": b"\x80\x02cbuiltins\nset\n)\x81.",
    "a new object with keywords": b"\x80\x04cbuiltins\nset\n)}\x92.",
    "a persistent id as text": b"Phttp://a.example/\n.",
    "a persistent id": b"Vhttp://a.example/\nQ.",
    "the extension registry, 1 byte": b"\x80\x02\x82\x01.",
    "the extension registry, 2 bytes": b"\x80\x02\x83\x01\x00.",
    "the extension registry, 4 bytes": b"\x80\x02\x84\x01\x00\x00\x00.",
    "a buffer from outside": b"\x80\x05\x97.",
    "a read-only buffer": b"\x80\x05]\x98.",
}
DAMAGES = {
    "no pickle": b"<html>not here</html>",
    "an image": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "zeros": bytes(1000),
    "a text announced with 2**62 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "a text announced with 2**64 - 1 bytes": b"\x80\x04\x8d" + b"\xff" * 8 + b"x.",
    "bytes announced with 2**62": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "a byte array announced with 2**62": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.",
    "a frame announced with 2**62": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"(",
    "a number announced with 2**31 - 1 bytes": b"\x8b\xff\xff\xff\x7f1.",
    "a number announced with -1 bytes": b"\x8b\xff\xff\xff\xff1.",
    "a number of 100,000 digits": b"I" + b"9" * 100_000 + b"\n.",
    "an unquoted text": b"S" + b"9" * 100_000 + b"\n.",
    "a text that is no UTF-8": b"X\x01\x00\x00\x00\xff.",
    "a pop from nothing": b"0.",
    "an end without a value": b"(.",
    "an append to nothing": b"Vx\na.",
    "an append to a text": b"Vx\nVx\na.",
    "values without a mark": b"]Vx\ne.",
    "a key without a value": b"}(Vx\nu.",
    "keys for a list": b"](Vx\nVx\nu.",
    "a memo never filled": b"h\x07.",
    "a memo of nothing": b"q\x07.",
    "a copy of nothing": b"2.",
    "three where there are two": b"]]\x87.",
}


@pytest.mark.parametrize("data", TRICKS.values(), ids=TRICKS)
def test_every_other_instruction_is_refused(write: Write, data: bytes) -> None:
    for start in (b"", pickle.dumps(URLS)):
        with pytest.raises(UsageError, match=r"download_history\.pickle"):
            read_urls(write(start + data))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("data", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused_at_once(write: Write, data: bytes) -> None:
    path = write(data)
    with pytest.raises(UsageError, match=r"damaged or cut off: .*") as caught:
        read_urls(path)
    assert len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_cut_off_anywhere_is_refused_or_ends_with_a_pickle(
    write: Write, protocol: int
) -> None:
    urls, md5s = pickle.dumps(URLS, protocol), pickle.dumps(MD5S, protocol)
    whole = urls + md5s
    for length in range(len(whole)):
        path = write(whole[:length])
        if length == len(urls):
            assert read_urls(path) == tuple(URLS)
        else:
            with pytest.raises(UsageError, match=r"cut off|is empty"):
                read_urls(path)


def deep(start: bytes, end: bytes) -> bytes:
    return start * 100_000 + b"]" + end * 100_000 + b"."


# Small files that cost an ordinary reader gigabytes, minutes, or the whole process.
BOMBS = {
    "deep lists": deep(b"](", b"e"),
    "deep tuples": deep(b"(", b"t"),
    "deep dicts": b"}" + b"Vk\n}" * 100_000 + b"s" * 100_000 + b".",
    "deep calls": deep(b"cbuiltins\nset\n(", b"tR")[: 2**22],
    "lists of ten lists": b"](Vx\ne" + b"p0\n0](" + b"](g0\ng0\ng0\ng0\neq\x00" * 1000 + b"e.",
    "tuples of the same tuple": b")" + b"2\x86" * 100_000 + b".",
    "a dict with such a key": b"})" + b"2\x86" * 100_000 + b"Nsp0\n0](g0\ne.",
    "a list within itself": b"]q\x00" + b"h\x00a" * 1000 + b".",
    "a high memo": b"]r\xff\xff\xff\x7f.",
    "many high memos": b"]"
    + b"".join(b"r" + struct.pack("<I", n << 12) for n in range(20_000))
    + b".",
    "empty lists": b"](" + b"]" * 300_000 + b"e.",
    "empty dicts": b"](" + b"}" * 300_000 + b"e.",
    "marks": b"]" + b"(" * 300_000 + b"1" * 50_000 + b".",
    "numbers": b"](" + b"K\x01" * 300_000 + b"e.",
    "one long name": b"c" + b" " * 5_000_000 + b"\nx\n.",
    "one long text": b"X" + struct.pack("<I", 2**22) + b"x" * 2**22 + b".",
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_little(write: Write, name: str) -> None:
    path = write(BOMBS[name])
    if name in ("lists of ten lists", "many high memos", "one long name"):  # else it takes long
        tracemalloc.start()
    with contextlib.suppress(UsageError):
        assert read_urls(path) == ()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * original_history.MAX_BYTES


def test_a_file_with_too_many_bytes_or_instructions_is_given_up(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pickle.dumps(URLS)
    with monkeypatch.context() as patch:
        patch.setattr(original_history, "MAX_INSTRUCTIONS", 100)
        with pytest.raises(UsageError, match="more than 100 instructions"):
            read_urls(write(b"](" + b"N" * 97 + b"e." + b"}."))
    monkeypatch.setattr(original_history, "MAX_BYTES", len(data))
    assert read_urls(write(data)) == tuple(URLS)
    with pytest.raises(UsageError, match="has more than"):
        read_urls(write(data + b"."))


def test_files_that_are_no_history_are_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"download_history\.pickle is empty"):
        read_urls(write(b""))
    for path in (tmp_path / "none.pickle", tmp_path, Path("a\0b")):
        with pytest.raises(UsageError, match="cannot be read"):
            read_urls(path)
    for value in ("http://a.example/", 3, None, b"x"):
        with pytest.raises(UsageError, match="does not begin with a list of URLs"):
            read_urls(write(pickle.dumps(value)))
